"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import postgres_kit
from tests.virtual_time import VirtualLoop

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))  # noqa: TID251 - test switch


@pytest.fixture
def anyio_backend() -> object:
    """Real asyncio loop; override with `virtual` in a module that wants virtual time."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgres_kit.Server]:
    """A real PostgreSQL; the tests that ask for it skip where its package is missing."""
    if postgres_kit.binaries() is None:
        pytest.skip(postgres_kit.PACKAGE)
    with postgres_kit.running() as server:
        yield server


VIRTUAL = ("asyncio", {"loop_factory": VirtualLoop})
"""Return this from an `anyio_backend` fixture to run a module's async tests in virtual time."""
