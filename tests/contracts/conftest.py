"""The ways to a registry that its contract tests go: two databases, in process and over HTTP, and a simulated one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from registry.client import LocalRegistry, RegistryClient, RegistryPort
from registry.store import RegistryStore
from slo.clock import SystemClock
from tests.postgres_kit import Server
from tests.registry_kit import Served
from tests.sim.registry import MemoryRegistry


@pytest.fixture(params=["sqlite local", "sqlite http", "postgresql local", "postgresql http", "simulated local"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(request: pytest.FixtureRequest, way: str, tmp_path: Path) -> Iterator[RegistryStore]:
    if way.startswith("sqlite"):
        made = RegistryStore(f"sqlite:///{tmp_path}/registry.db")
    elif way.startswith("simulated"):
        made = MemoryRegistry(SystemClock().wall_s)  # type: ignore[assignment]
    else:
        server: Server = request.getfixturevalue("postgresql_server")
        server.empty()
        made = RegistryStore(server.url())
    yield made
    made.close()


@pytest.fixture
def served(store: RegistryStore) -> Iterator[Served]:
    server = Served(store, token="t0p")
    yield server
    server.stop()


@pytest.fixture
async def port(request: pytest.FixtureRequest, way: str, store: RegistryStore) -> AsyncIterator[RegistryPort]:
    if way.endswith("local"):
        yield LocalRegistry(store)
        return
    served: Served = request.getfixturevalue("served")
    client = RegistryClient(served.url, token="t0p")
    yield client
    await client.close()
