"""What the register's gate asks of an evaluation beside its figures. Pure.

Enough questions, none of them trained, and the rules that it was judged with.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from lora.evaluation import ADAPTER_RULES

MIN_ROWS = 30
"""Questions under which a share says nothing: of 30, 90 % may as well be 74 % (Wilson, 95 %)."""
SEEN_MAX_RATIO = 0.05
"""Of the questions; a set whose splits were kept apart has none, one from elsewhere a few by chance."""


def rules_of(evaluation: Mapping[str, Any]) -> str:
    """SHA-256 of the rule file that an adapter was judged with; "" when its own words were judged."""
    if _object(evaluation, "decision").get("decided_on") != ADAPTER_RULES:
        return ""
    return str(_object(evaluation, "rules").get("sha256") or "")


def doubts(
    evaluation: Mapping[str, Any],
    card: Mapping[str, Any],
    *,
    min_rows: int = MIN_ROWS,
    rules_sha256: str = "",
    trained: Set[str] = frozenset(),
) -> tuple[str, ...]:
    """Why an evaluation that says `passed` opens nothing, one line each; () when it may.

    card: of the run. rules_sha256: of the rules that will be served, as they were named. trained: the questions of the
    training, as far as they can be read.
    """
    decision = _object(evaluation, "decision")
    side = _object(_object(evaluation, "sides"), str(decision.get("decided_on"))) or _object(evaluation, "summary")
    count = side.get("count")
    found: list[str] = []
    if not isinstance(count, int) or count < min_rows:
        found.append(f"{count} questions were asked, at least {min_rows}; evaluate without --limit, or on a larger set")
    found += _seen(evaluation, card, trained)
    wanted = rules_of(evaluation)
    if wanted and not rules_sha256:
        found.append(f"it was judged with the rules {wanted[:12]}; name the file with --rules, as it will be served")
    elif wanted != rules_sha256:
        judged = f"with the rules {wanted[:12]}" if wanted else "without rules"
        found.append(f"it was judged {judged}, not with {rules_sha256[:12]}; evaluate with the rules that are served")
    return tuple(found)


def _seen(evaluation: Mapping[str, Any], card: Mapping[str, Any], trained: Set[str]) -> list[str]:
    asked = str(_object(evaluation, "set").get("sha256") or "")
    files = _object(_object(card, "data"), "files")
    name = next((str(name) for name, digest in files.items() if asked and digest == asked), None)
    if name is not None:
        return [f"it was asked {name} of its own training; evaluate on rows that it has not seen"]
    rows = evaluation.get("rows")
    questions = [str(row.get("question")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    seen_count = sum(question in trained for question in questions)
    if seen_count > SEEN_MAX_RATIO * len(questions):
        return [f"{seen_count} of its {len(questions)} questions were trained; evaluate on rows that it has not seen"]
    return []


def _object(place: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = place.get(name)
    return found if isinstance(found, dict) else {}
