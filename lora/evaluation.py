"""An evaluation as a document: evaluation.json for programs, evaluation.md for people. Pure.

`summary` and `rows` are those of the adapter's own words, before any rule: `lora diagnose` and `lora rules suggest`
read them. `sides` holds every side, `decision` the verdict on the side that will be served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from lora.evaluate import REFUSAL, Graded
from lora.figures import Decision, Figures, RuleFigures, Share, figures, per_rule

BASE, BASE_RULES, ADAPTER, ADAPTER_RULES = "base", "base, after rules", "adapter", "adapter, after rules"
"""Names of the sides, in the order in which they are shown."""
SIDES = (BASE, BASE_RULES, ADAPTER, ADAPTER_RULES)
WORST_SHOWN, RULES_SHOWN, TEXT_SHOWN = 10, 20, 160
VERSION = 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured. sides: name to answers; `ADAPTER` is always there.

    about: where it comes from (set, model, generation, rules, who, when); JSON values.
    kept: score on other sets before and after (`old_before`, ... of `lora.runlog.Outcome`).
    """

    sides: Mapping[str, Sequence[Graded]]
    decision: Decision
    decided_on: str
    about: Mapping[str, object] = field(default_factory=dict)
    kept: Mapping[str, float] = field(default_factory=dict)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The object of evaluation.json, with its own hash."""
    adapter = evaluation.sides[ADAPTER]
    shown = {name: figures_json(figures(evaluation.sides[name])) for name in SIDES if name in evaluation.sides}
    content: dict[str, Any] = {
        "version": VERSION,
        "passed": evaluation.decision.passed,
        "decision": {**asdict(evaluation.decision), "decided_on": evaluation.decided_on},
        "summary": {**shown[ADAPTER], **evaluation.kept},
        "sides": shown,
        "rules_fired": {
            name: dict(Counter(g.how for g in several)) for name, several in evaluation.sides.items() if several[0].how
        },
        "per_rule": [_rule_json(one) for one in per_rule(adapter)],
        "rows": [_row(evaluation, number) for number in range(len(adapter))],
        **evaluation.about,
    }
    return {**content, "sha256": content_sha256(content)}


def content_sha256(content: Mapping[str, Any]) -> str:
    """Hash over everything but the hash itself: what the registry keeps of an evaluation can be told from another."""
    kept = {name: value for name, value in content.items() if name != "sha256"}
    return sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()


def figures_json(found: Figures) -> dict[str, Any]:
    """Figures under the names that `lora diagnose` and the registry know; ratios 0..1, null where unknown."""
    shares = {
        "accuracy": found.accuracy, "high_quality": found.high_quality, "poor": found.poor,
        "refusal_accuracy": found.refused, "answered": found.answered, "hallucinated": found.hallucinated,
        "confusion": found.confusion, "repetition": found.repetition, "echo": found.echo,
    }  # fmt: skip
    return {
        "count": found.count,
        "similarity": _rounded(found.similarity),
        "similarity_interval": [_rounded(b) for b in found.similarity_interval] if found.similarity_interval else None,
        "characters": _rounded(found.characters),
        **{name: _rounded(share.ratio) for name, share in shares.items()},
        "length": _rounded(found.length),
        "counts": {name: [share.hits, share.count] for name, share in shares.items()},
    }


def _row(evaluation: Evaluation, number: int) -> dict[str, Any]:
    one = evaluation.sides[ADAPTER][number]
    row: dict[str, Any] = {
        "question": one.row.question, "wanted": one.row.rule,
        "given": "" if one.given == REFUSAL else one.given, "refused": one.given == REFUSAL,
        "answer": one.answer, "reference": one.row.answer,
        "similarity": _rounded(one.similarity), "characters": _rounded(one.characters),
        "hallucinated": one.hallucinated, "repeats": one.repeats, "echoes": one.echoes,
        "style": one.row.style, "lang": one.row.lang,
    }  # fmt: skip
    for name, several in evaluation.sides.items():
        other = several[number]
        if name == ADAPTER_RULES:
            row |= {"how": other.how, "detail": other.detail, "given_out": other.answer,
                    "similarity_after": _rounded(other.similarity)}  # fmt: skip
        elif name == BASE:
            row |= {"base_answer": other.answer, "base_similarity": _rounded(other.similarity)}
    return row


def _rule_json(one: RuleFigures) -> dict[str, Any]:
    return {"rule": one.rule, "count": one.count, "similarity": _rounded(one.similarity), "right": one.right,
            "mixed_with": [list(pair) for pair in one.mixed_with]}  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def markdown(evaluation: Evaluation) -> str:
    """The report for people; words of questions and answers are escaped."""
    decision = evaluation.decision
    lines = [
        f"# Evaluation: {'passed' if decision.passed else 'NOT passed'}",
        "",
        f"{decision.scenario}: average similarity of at least {decision.minimum:.0%}, "
        f"decided on {evaluation.decided_on}.",
        *(f"- **{reason}**" for reason in decision.reasons),
        *(f"- {note}" for note in decision.notes),
        "",
        *_sides(evaluation),
    ]
    if fired := as_fired(evaluation):
        lines += ["", fired]
    if evaluation.kept:
        lines += ["", "Kept of before: " + ", ".join(f"{k} {v:.1%}" for k, v in evaluation.kept.items())]
    lines += ["", "## Rules, the worst first", "", "| rule | questions | right | similarity | answered instead with |",
              "|---|---|---|---|---|"]  # fmt: skip
    adapter = evaluation.sides[ADAPTER]
    for rule in per_rule(adapter)[:RULES_SHOWN]:
        mixed = ", ".join(f"{name} {count}x" for name, count in rule.mixed_with[:3])
        lines.append(
            f"| {_cell(rule.rule)} | {rule.count} | {rule.right} | {_percent(rule.similarity)} | {_cell(mixed)} |"
        )
    served = evaluation.sides[evaluation.decided_on]
    worst = sorted((g for g in served if g.similarity is not None), key=lambda g: g.similarity or 0.0)[:WORST_SHOWN]
    lines += [
        "",
        f"## The worst answers ({evaluation.decided_on})",
        "",
        "| similarity | question | answer |",
        "|---|---|---|",
    ]
    lines += [f"| {_percent(g.similarity)} | {_cell(g.row.question)} | {_cell(g.answer)} |" for g in worst]
    lines += ["", "## Where it comes from", ""]
    lines += [f"- {name}: `{_code(value)}`" for name, value in evaluation.about.items()]
    return "\n".join(lines) + "\n"


def as_fired(evaluation: Evaluation) -> str:
    """How many answers each rule stage gave, in one line; "" without rules."""
    if ADAPTER_RULES not in evaluation.sides:
        return ""
    counts = Counter(g.how for g in evaluation.sides[ADAPTER_RULES])
    return "Rules: " + ", ".join(f"{how} {count}" for how, count in counts.most_common())


def table(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Head and rows of the comparison of the sides, as text."""
    names = [name for name in SIDES if name in evaluation.sides]
    sides = [figures(evaluation.sides[name]) for name in names]
    rows: list[tuple[str, ...]] = [("", *names)]
    rows.append(("similarity", *(_percent(s.similarity) for s in sides)))
    rows.append(("characters", *(_percent(s.characters) for s in sides)))
    for label, name in (
        ("accuracy (>= 90 %)", "accuracy"), ("high quality (>= 85 %)", "high_quality"), ("poor (< 50 %)", "poor"),
        ("refused of what must be", "refused"), ("answered of what must be", "answered"),
        ("hallucinated", "hallucinated"), ("another rule", "confusion"), ("repeats itself", "repetition"),
        ("repeats the question", "echo"),
    ):  # fmt: skip
        rows.append((label, *(_share(getattr(side, name)) for side in sides)))
    rows.append(("length", *("-" if s.length is None else f"{s.length:.2f} x" for s in sides)))
    return rows


def _sides(evaluation: Evaluation) -> list[str]:
    head, *rows = table(evaluation)
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _share(share: Share) -> str:
    return "-" if share.ratio is None else f"{share.ratio:.1%} of {share.count}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _cell(text: str) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= TEXT_SHOWN else shown[: TEXT_SHOWN - 3] + "..."
    return shown.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _code(value: object) -> str:
    return msgspec.json.encode(value).decode().replace("`", "'")
