"""The dashboards of every preset, byte for byte; `make golden` rewrites them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="needs the `dashboards` extra")

from dashboards.build import files
from slo.spec import PRESETS, load_slo_file

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "dashboards" / "generated"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_dashboards_of_a_preset(preset: str) -> None:
    slos = load_slo_file(ROOT / "slo" / "presets" / f"{preset}.yaml").objectives
    made = files(slos)
    directory = GENERATED / preset
    if os.environ.get("UPDATE_GOLDEN"):  # noqa: TID251 - a switch of the test run
        for name, text in made.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    there = {str(p.relative_to(directory)): p.read_text(encoding="utf-8") for p in directory.rglob("*") if p.is_file()}
    assert there == made, "dashboards changed: review, then `make golden`"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_what_grafana_needs_is_there(preset: str) -> None:
    slos = load_slo_file(ROOT / "slo" / "presets" / f"{preset}.yaml").objectives
    seen = set()
    for name, text in files(slos, runbooks={"hallucination": "H.md"}, runbook_url="https://wiki/").items():
        if not name.endswith(".json"):
            continue
        board = json.loads(text)
        assert board["uid"] not in seen
        seen.add(board["uid"])
        assert [v["name"] for v in board["templating"]["list"]] == ["datasource", "service", "release"]
        places = [(p["gridPos"]["x"], p["gridPos"]["y"], p["gridPos"]["w"], p["gridPos"]["h"]) for p in board["panels"]]
        assert all(x + w <= 24 for x, _, w, _ in places)
        cells = [(cx, cy) for x, y, w, h in places for cx in range(x, x + w) for cy in range(y, y + h)]
        assert len(cells) == len(set(cells)), "panels overlap"
        links = [link["url"] for p in board["panels"] for link in p.get("links") or []]
        if board["uid"].startswith(("sft-guard-service", "sft-guard-quality")):
            assert links == ["https://wiki/H.md"]
        english = not name.startswith("zh-TW")
        assert board["title"].isascii() is english
