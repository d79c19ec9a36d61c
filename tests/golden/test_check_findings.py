"""What the checks say of made-up exchanges stays what it was: made faster, or moved, they are the same checks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.same_findings import records

GOLDEN = Path(__file__).resolve().parent / "check_findings.json"
COUNT, SEED, DIGITS = 50, 7, 9


def said() -> list[dict[str, Any]]:
    """Numbers to nine digits, so that another machine's logarithm changes nothing."""
    rows = []
    for row in records(COUNT, SEED, digits=DIGITS):
        shown = {f["check"]: [f["result"], f["score"], f["reason"]] for f in row["findings"]}
        rows.append({"name": row["name"], "stored": row["stored"], "features": row["features"], **shown})
    return rows


def test_the_checks_say_what_they_said() -> None:
    found = json.loads(json.dumps(said()))
    if os.environ.get("UPDATE_GOLDEN"):  # noqa: TID251 - test switch
        lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in found)
        GOLDEN.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    before = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for was, now in zip(before, found, strict=True):
        assert now == was, "meant so? then UPDATE_GOLDEN=1 pytest tests/golden"
    grounding = [row["grounding"][0] for row in found]
    assert 5 <= grounding.count("fail") <= COUNT - 5, "the corpus no longer holds both kinds"
