"""kill -9 in the middle of a rollback, at each numbered point, once and twice: exactly one effect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash_points import ALL_POINTS


def killed(directory: Path, *words: str) -> dict[str, object]:
    # Memory-backed where there is such a place: the kills are real, power cuts are not what is tested here.
    root = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else directory
    place = root / f"sft-crash-{os.getpid()}-{words[0]}"
    command = [sys.executable, "-m", "tests.crash_points", str(place), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    subprocess.run(["rm", "-rf", str(place)], check=False)
    assert done.stdout, done.stderr[-2000:]
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("variant", ["canary"])
def test_one_kill_at_every_point_leaves_one_effect(tmp_path: Path, variant: str) -> None:
    result = killed(tmp_path, variant)
    assert result["violations"] == []
    assert result["kills"] == result["runs"] == len(ALL_POINTS)


@pytest.mark.slow
def test_one_and_two_kills_after_a_promotion_leave_one_effect(tmp_path: Path) -> None:
    result = killed(tmp_path, "promoted", "--two")
    assert result["violations"] == []
    assert result["runs"] == len(ALL_POINTS) * (len(ALL_POINTS) + 1)
    assert isinstance(result["kills"], int)
    assert result["kills"] > 150
