"""A real Prometheus of the test's own, on blocks that promtool made of given samples."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "Debian package prometheus is not installed (apt-get install prometheus)"


def installed() -> bool:
    """Both programs are there."""
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


@contextmanager
def backfilled(home: Path, openmetrics: str) -> Iterator[str]:
    """Address of a Prometheus that holds these samples (OpenMetrics with times, `# EOF` at the end)."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "series.om").write_text(openmetrics)
    block = ["create-blocks-from", "--max-block-duration=300h", "openmetrics", "--quiet", "series.om", "data"]
    subprocess.run(["promtool", "tsdb", *block], cwd=home, check=True, capture_output=True, timeout=120)
    with serving(home, "scrape_configs: []\n") as url:
        yield url


@contextmanager
def serving(home: Path, config: str, port: int = 0) -> Iterator[str]:
    """Address of a Prometheus with this configuration; what is in `home`/data is served. port 0: any."""
    (home / "prometheus.yml").write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}",
         "--storage.tsdb.retention.time=100y", "--log.level=error"], cwd=home,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise RuntimeError("prometheus ended") from None
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)
