"""What `incident show` prints: facts first, nothing that moves the cursor."""

from __future__ import annotations

from typing import Any

import pytest

from guard.commands.incident_text import incident_text


def incident(**changed: Any) -> dict[str, Any]:
    version = {"name": "v1.2.1", "release": "abc123"}
    return {
        "id": "inc-1", "kind": "rollback", "reason": "breach: hallucination 12 %", "opened_wall_s": 1_750_000_000.0,
        "closed_wall_s": None, "automatic": True, "actor": "guard", "rule": "hallucination", "bad": version,
        "target": {"name": "v1.2.0", "release": "def456"}, "pointer": "at_target",
        "timeline": [{"wall_s": 1_750_000_001.0, "what": "weight 0"}],
        "evidence": [{"rule": "hallucination", "state": "breach", "reason": "48 bad of 400"}],
        "differences": [{"part": "chunking", "before": "400", "after": ""}],
        "exemplars": [{"exchange_id": f"e{n}"} for n in range(7)], "notes": [],
        "aftermath": {"since_s": 1_749_999_940.0, "words": "the rate is back at 3 %"},
    } | changed  # fmt: skip


def test_it_says_what_happened_since_when_on_what_evidence_and_whether_it_helped() -> None:
    lines = incident_text(incident()).splitlines()
    assert lines[0] == "inc-1  rollback, still open"
    assert "release    v1.2.1 [abc123]" in lines
    assert "bad since  2025-06-15 15:05:40Z, 60 s before" in lines
    assert "since then the rate is back at 3 %" in lines
    assert "  2025-06-15 15:06:41Z  weight 0" in lines
    assert "  hallucination: breach, 48 bad of 400" in lines
    assert "  chunking: 400 -> -" in lines
    assert "  and 2 more" in lines
    assert "notes:" not in lines
    assert lines[-2] == "next: sft-guard incident postmortem inc-1 --out DIR"
    assert lines[-1].startswith("dealt with? sft-guard incident close inc-1 --reason TEXT")


def test_a_closed_incident_without_aftermath_says_how_long_it_lasted() -> None:
    text = incident_text(incident(closed_wall_s=1_750_000_090.0, aftermath=None))
    assert text.startswith("inc-1  rollback, closed after 90 s\n")
    assert "bad since" not in text


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\rb", "a\nb", "a\u2028b"], ids=["escape", "return", "line", "u2028"])
def test_text_from_outside_cannot_move_the_cursor_or_add_a_line(hostile: str) -> None:
    plain, changed = incident_text(incident(reason="x")), incident_text(incident(reason=hostile))
    assert len(plain.splitlines()) == len(changed.splitlines())
    assert "\x1b" not in changed
