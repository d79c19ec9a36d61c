"""A detector whose file is swapped on disk says so within a heartbeat, and no rule acts on it."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.checks.calibration import PATH as CALIBRATION
from tests.e2e.test_serve import CONFIG, Model, Sidecar, until

pytestmark = pytest.mark.slow


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    stable, canary = (s.server_address[1] for s in servers)
    config = CONFIG.format(stable=stable, canary=canary)
    config = config.replace("checks: {embedder: none}", "checks: {embedder: none, calibration: numbers.json}")
    (tmp_path / "guard.yaml").write_text(config)
    (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
    shutil.copy(CALIBRATION, tmp_path / "numbers.json")
    made = Sidecar(tmp_path)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop(signal.SIGKILL)
    for server in servers:
        server.shutdown()
        server.server_close()


def count(sidecar: Sidecar, result: str) -> float:
    pattern = rf'^sft_quality_checks_total{{[^}}]*check="grounding"[^}}]*result="{result}"[^}}]*}} (\S+)$'
    found = re.search(pattern, sidecar.get("/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def hallucination(sidecar: Sidecar) -> dict[str, str]:
    rows = json.loads(sidecar.get("/api/v1/slo"))["objectives"]
    found: dict[str, str] = next(r for r in rows if r["indicator"] == "sft_quality_hallucination_rate")
    return found


def test_a_swapped_calibration_is_unavailable_at_once_and_back_when_it_is_put_back(sidecar: Sidecar) -> None:
    file = sidecar.directory / "numbers.json"
    for _ in range(25):
        sidecar.ask()
    until(lambda: count(sidecar, "pass") == 25)
    assert 'sft_quality_check_coverage_ratio{service="faq-bot",check="grounding"} 1' in sidecar.get("/metrics")
    good = file.read_bytes()
    file.write_bytes(good.replace(b'"made_on"', b'"made_on" ', 1))  # the same numbers: even that nobody has measured
    until(lambda: sidecar.metric("sft_guard_checks_available") == 0.0)
    for _ in range(3):
        sidecar.ask()
    until(lambda: count(sidecar, "unavailable") == 3)
    assert count(sidecar, "pass") == 25
    until(lambda: "numbers.json was changed on disk" in hallucination(sidecar)["reason"])
    assert hallucination(sidecar)["state"] == "unknown"
    assert "numbers.json was changed on disk" in sidecar.get("/healthz")
    file.write_bytes(good)
    until(lambda: sidecar.metric("sft_guard_checks_available") == 1.0)
    sidecar.ask()
    until(lambda: count(sidecar, "pass") == 26)
