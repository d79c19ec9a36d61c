"""The demo as a user starts it: real processes, real HTTP, nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from guard.demo import run

START_S = 90.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask(port: int, text: str) -> tuple[dict, dict]:
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read()), dict(response.headers)


def test_the_playground_answers_in_both_languages_and_leaves_no_process_behind(tmp_path: Path):
    data, admin, answer = free_ports(3)
    command = [sys.executable, "-m", "guard.cli", "demo", "--keep", str(tmp_path / "ground")]
    command += ["--data-port", str(data), "--admin-port", str(admin), "--answer-port", str(answer)]
    with (tmp_path / "said").open("wb") as said, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=said, stderr=log, start_new_session=True)
    try:
        end_s = time.monotonic() + START_S
        while "Ctrl-C" not in (words := (tmp_path / "said").read_text()):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end_s, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert f"http://127.0.0.1:{data}/v1/chat/completions -H" in words  # a line to try, on standard output
        assert f"http://127.0.0.1:{admin}/metrics" in words
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        answered, headers = ask(data, "How many days of annual leave are there in the first year?")
        assert "16 days" in answered["choices"][0]["message"]["content"]
        assert answered["retrieval"]["contexts"]
        assert headers["x-guard-exchange-id"]
        answered, _ = ask(data, "第一年特休有幾天？")
        assert "16 天" in answered["choices"][0]["message"]["content"]
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=20) as response:
            metrics = response.read().decode()
        assert "sft_availability_requests_total" in metrics
        assert "sft_quality_hallucination_rate{" not in metrics  # two exchanges are no measurement
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert process.returncode == 0


@pytest.mark.slow
def test_a_bad_release_is_found_rolled_back_and_proved():
    """Shortened: a third of the healthy traffic of the real demo, so the baseline is rougher; the verdict is real."""
    result = run(seed=1, incident=True, rate=20.0, warm_up_s=22.0, max_s=200.0)
    assert result.rolled_back, result.summary()
    assert result.webhook_verified
    assert result.next_from_stable
    assert not result.stable_rolled_back
    assert result.detected_after_s is not None
    assert result.canary.truth.invented_ratio > result.stable.truth.invented_ratio
    assert result.as_expected
