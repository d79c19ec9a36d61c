"""Any one dependency dead in any way, JSON and streams: not one answer is lost. The long form: `make faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.dead_dependencies import DISK, WORKER, built_shim, disk_cells, network_cells
from tests.faults.tcp_proxy import STATES

pytest.importorskip("opentelemetry.sdk", reason="needs the `otel` extra")

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
COUNT = 6


async def test_no_dead_dependency_costs_an_answer(tmp_path: Path):
    """All of them at once in each state, which is worse than one; one by one in `make faults`."""
    cells = await network_cells(tmp_path, COUNT, at_once=3, together=True, limit_s=0.8)
    assert len(cells) == 2 * (len(STATES) + len(WORKER) + 2)
    assert [(c.dependency, c.state, c.stream, c.failures) for c in cells if c.failed_count] == []


async def test_no_broken_disk_costs_an_answer(tmp_path: Path):
    shim = built_shim(tmp_path)
    if shim is None:
        pytest.skip("needs a C compiler for the broken disk (Debian package gcc)")
    cells = await disk_cells(tmp_path, shim, COUNT, at_once=3)
    assert len(cells) == 2 * len(DISK)
    assert [(c.dependency, c.state, c.stream, c.failures) for c in cells if c.failed_count] == []
