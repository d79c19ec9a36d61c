"""What the guard loads before it reads which registry, webhooks and windows its configuration asks for."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "aiohttp",  # webhooks, Alertmanager, a registry of its own process, windows of a fleet
    "sqlalchemy",  # the registry of this process
    "alembic",
    "duckdb",
    "faiss",
    "matplotlib",
    "numpy",
    "torch",
    "transformers",
)


def test_heavy_libraries_are_loaded_only_where_they_are_used() -> None:
    ask = f"import sys, guard.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_client_of_a_registry_elsewhere_loads_no_database() -> None:
    ask = "import sys, registry.client; print('sqlalchemy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
