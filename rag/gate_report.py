"""What a gate decided, as Markdown for people, as JSON for machines, and as facts for the registry. Pure."""

from __future__ import annotations

from rag.defects import EMPTY, MALFORMED, SPECIAL
from rag.gate import Decision, Side, depths, shown
from rag.profile import Profile
from rag.profile_limits import REFUSED, Check

ROWS_SHOWN = 50
RATIOS = ("empty_ratio", "malformed_ratio", "duplicate_ratio")


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
    figures = facts(profile)
    cells = {"rows": f"{profile.row_count}", "mean row": f"{profile.lengths.mean:.0f} tokens"}
    cells |= {name.replace("_ratio", " rows"): f"{figures[name]:.1%}" for name in RATIOS}
    cells["languages"] = ", ".join(f"{name} {ratio:.0%}" for name, ratio in profile.language_ratio) or "-"
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
