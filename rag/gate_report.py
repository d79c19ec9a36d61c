"""What a gate decided, as Markdown for people, as JSON for machines, and as facts for the registry. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rag.defects import EMPTY, MALFORMED, SPECIAL
from rag.gate import Decision, Side, depths, shown
from rag.profile import Profile
from rag.profile_limits import REFUSED, Check

ROWS_SHOWN = 50


def markdown(decision: Decision) -> str:
    """The report; text of rows and questions is escaped."""
    verdict = "accepted" if decision.accepted else "refused"
    names = f"{decision.current.name} -> " if decision.current else ""
    lines = [f"# Knowledge base gate: {verdict}", "", f"{names}{decision.candidate.name}", ""]
    lines += ["| check | state | what was found |", "|---|---|---|"]
    lines += [f"| {_md(c.name)} | {c.state} | {_md(c.reason)} |" for c in decision.checks]
    lines += ["", "## Profile", "", *_table(decision)]
    for check in decision.checks:
        if check.rows and (check.state == REFUSED or check.name.startswith("new rows")):
            lines += ["", f"## {_md(check.name)}: rows", ""]
            lines += [f"- `{_code(row.place)}` {row.kind.replace('_', ' ')}: {_md(row.reason)}"
                      for row in check.rows[:ROWS_SHOWN]]  # fmt: skip
            if len(check.rows) > ROWS_SHOWN:
                lines.append(f"- and {len(check.rows) - ROWS_SHOWN} more")
    return "\n".join(lines) + "\n"


def as_json(decision: Decision) -> dict[str, object]:
    """The object of `--json`."""
    sides = {"candidate": decision.candidate} | ({"current": decision.current} if decision.current else {})
    return {
        "accepted": decision.accepted,
        "checks": [_check(check) for check in decision.checks],
        **{name: {"name": side.name, **facts(side.profile), **_recall(side)} for name, side in sides.items()},
        **({"incoming": facts(decision.incoming)} if decision.incoming else {}),
    }


def evaluation(decision: Decision) -> dict[str, object]:
    """What the registry keeps of it: the verdict, figures, and the reasons of a refusal."""
    return {
        "accepted": decision.accepted,
        "checks": {check.name: check.state for check in decision.checks},
        "refused": [f"{check.name}: {check.reason}"[:300] for check in decision.checks if check.state == REFUSED],
        **_recall(decision.candidate),
    }


def facts(profile: Profile) -> dict[str, object]:
    """Figures of a profile under names that stay: what a release is compared by when it goes wrong."""
    rows = max(1, profile.row_count)
    return {
        "row_count": profile.row_count,
        "mean_tokens": round(profile.lengths.mean, 1),
        "p95_tokens": dict(profile.lengths.quantiles).get(0.95, 0),
        "empty_ratio": round(profile.count_of(EMPTY) / rows, 4),
        "malformed_ratio": round(profile.count_of(MALFORMED, SPECIAL) / rows, 4),
        "duplicate_ratio": round(profile.duplicate_count / rows, 4),
        "languages": {name: round(ratio, 4) for name, ratio in profile.language_ratio},
    }


def words(values: Mapping[str, object]) -> dict[str, str]:
    """`facts` as short words for a table of differences; unknown ones are left out.

    >>> words({"mean_tokens": 280.4, "empty_ratio": 0.15, "languages": {"cjk": 1.0}})
    {'KB mean row': '280 tokens', 'KB empty rows': '15.0%', 'KB languages': 'cjk 100%'}
    """
    found: dict[str, str] = {}
    for name, label in (("row_count", "KB rows"), ("mean_tokens", "KB mean row")):
        value = values.get(name)
        if isinstance(value, int | float):
            found[label] = f"{value:.0f} tokens" if name == "mean_tokens" else f"{value:.0f}"
    for name in ("empty", "malformed", "duplicate"):
        value = values.get(f"{name}_ratio")
        if isinstance(value, int | float):
            found[f"KB {name} rows"] = f"{value:.1%}"
    languages = values.get("languages")
    if isinstance(languages, Mapping):
        parts = (f"{k} {v:.0%}" for k, v in sorted(languages.items()) if isinstance(v, int | float))
        found["KB languages"] = ", ".join(parts)
    return found


def _check(check: Check) -> dict[str, object]:
    rows = [{"place": row.place, "kind": row.kind, "reason": row.reason} for row in check.rows]
    return {"name": check.name, "state": check.state, "reason": check.reason, "value": check.value,
            "limit": check.limit, "rows": rows}  # fmt: skip


def _recall(side: Side) -> dict[str, object]:
    if side.outcome is None or side.outcome.zero_hits is None:
        return {}
    shares = depths(side.outcome) | {"zero_hit": side.outcome.zero_hits}
    return {
        "questions": len(side.outcome.asked),
        "golden": {
            name: {"low": round(s.low, 4), "estimate": round(s.estimate, 4), "high": round(s.high, 4)}
            for name, s in shares.items()
        },
    }


def _table(decision: Decision) -> list[str]:
    columns: list[tuple[str, dict[str, str]]] = []
    for title, side in (("current", decision.current), ("candidate", decision.candidate)):
        if side is not None:
            columns.append((title, _cells(side.profile, side)))
    if decision.incoming is not None:
        columns.append(("new rows", _cells(decision.incoming, None)))
    labels = list(dict.fromkeys(label for _, cells in columns for label in cells))
    head = "| | " + " | ".join(title for title, _ in columns) + " |"
    body = ["| " + " | ".join([label, *(cells.get(label, "-") for _, cells in columns)]) + " |" for label in labels]
    return [head, "|---" * (len(columns) + 1) + "|", *body]


def _cells(profile: Profile, side: Side | None) -> dict[str, str]:
    cells = {label.removeprefix("KB "): value for label, value in words(facts(profile)).items()}
    if side is not None and side.outcome is not None and side.outcome.zero_hits is not None:
        cells |= {name: shown(share) for name, share in depths(side.outcome).items()}
        cells["zero-hit"] = shown(side.outcome.zero_hits)
    return cells


def _md(text: str) -> str:
    line = " ".join(text.split())
    for char in "\\`*_[]<>|#!":
        line = line.replace(char, "\\" + char)
    return line[:400]


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())[:200]
