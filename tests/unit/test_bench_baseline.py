"""The benchmark counts what it made, so that its figures are about something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="needs the `analysis` extra: pip install 'sft-guard[analysis]'")

from bench.baseline import main


def test_a_small_run_collects_every_exchange_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "20000", "--lines", "2000", "--dir", str(tmp_path), "--json"]) == 0
    told = capsys.readouterr().out
    result = json.loads(told.splitlines()[-1])
    assert [run["rows"] for run in result["parquet"]] == [20_000]
    assert result["parquet"][0]["peak_mb"] > 0
    assert result["json_lines"]["rows"] == 2_000
    assert list(tmp_path.iterdir()) == []
