"""cache: what it holds and saves, one entry, and taking answers back; the operator's side of the admin API."""

from __future__ import annotations

import argparse
from typing import Any

from guard.commands.admin_call import add_admin_options, call_admin, which_guard
from guard.commands.common import Groups, add_command, add_group, emit, login
from slo.errors import RefusedError

KINDS = ("release", "document", "tenant", "key")


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    cache = add_group(groups, "cache", "the answer cache")
    stats = add_command(cache, "stats", run_stats, "sizes, hit ratios and savings", "sft-guard cache stats --days 7")
    stats.add_argument("--days", type=_days, default=7, help="days of savings to list (1 to 400)")
    inspect = add_command(cache, "inspect", run_inspect, "one entry; its words only with the token",
                          "sft-guard cache inspect 3fa1c09b")  # fmt: skip
    inspect.add_argument("key", help="hex digits of the key, eight or more")
    purge = add_command(cache, "purge", run_purge, "take answers back", "sft-guard cache purge --document leave-1")
    what = purge.add_mutually_exclusive_group(required=True)
    what.add_argument("--release", help="all answers of a release (name or id)")
    what.add_argument("--document", help="all answers that cite it, and those whose sources are unknown")
    what.add_argument("--tenant", help="all answers of a tenant (as in x-guard-tenant)")
    what.add_argument("--key", help="one entry")
    what.add_argument("--all", action="store_true", help="everything")
    purge.add_argument("--reason", default="", help="a word for the audit log")
    for parser in (stats, inspect, purge):
        add_admin_options(parser)


def _days(value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= 400:
        raise argparse.ArgumentTypeError(f"{value!r}: give a number of days from 1 to 400")
    return int(value)


def run_stats(args: argparse.Namespace) -> int:
    """Print the report; exit 1 when the cache is off."""
    report = call_admin(args, "GET", f"/api/v1/cache?days={args.days}")
    emit(args, report, _report_text(report))
    return 0 if report["enabled"] else 1


def run_inspect(args: argparse.Namespace) -> int:
    """Print one entry; exit 1 when there is none."""
    with_words = which_guard(args).token() is not None
    try:
        if with_words:
            entry = call_admin(args, "POST", "/api/v1/cache/inspect", {"key": args.key.lower()})
        else:
            entry = call_admin(args, "GET", f"/api/v1/cache/entries/{args.key.lower()}")
    except RefusedError as error:
        if error.reason != "not_found":
            raise
        emit(args, {"key": args.key, "found": False, "message": str(error)}, str(error))
        return 1
    emit(args, entry, "\n".join(f"{name:14} {value}" for name, value in entry.items() if value is not None))
    return 0


def run_purge(args: argparse.Namespace) -> int:
    """Take answers back."""
    kind, value = "all", ""
    for name in KINDS:
        if getattr(args, name) is not None:
            kind, value = name, getattr(args, name)
    body = {"kind": kind, "value": value, "reason": args.reason, "actor": login()[:64]}
    result = call_admin(args, "POST", "/api/v1/cache/purge", body)
    emit(args, result, result["message"])
    return 0


def _report_text(report: dict[str, Any]) -> str:
    if not report["enabled"]:
        return "the cache is off: guard.yaml has no section `cache`"
    size = (
        f"{report['bytes'] / 2**20:.1f} of {report['max_bytes'] / 2**20:.0f} MiB" if report["bytes"] is not None else ""
    )
    entries = f"{report['entries']} entries, " if report["entries"] is not None else ""
    lines = [
        f"store        {report['store']} ({report['state']}), {entries}{size}".rstrip(", "),
        f"hit ratio    {_share(report['hit_ratio'])} of {report['hits'] + report['misses']} lookups since the start",
    ]
    for row in report["releases"]:
        word = f", collapsed (before: {_share(row['before'])})" if row["collapsed"] else ""
        lines.append(f"release      {row['release']}: {_share(row['hit_ratio'])} in the last 5 minutes{word}")
    for row in report["warming"]:
        if row["waits_for"] != "steady":
            state = row["waits_for"] or "sending"
            lines.append(f"warming      {row['release']} ({row['arm']}): {row['sent_count']} sent, {state}")
    if report["semantic"] is not None:
        lines += _semantic_text(report["semantic"])
    total = report["total"]
    tokens = total["saved_input_tokens"] + total["saved_output_tokens"]
    lines += [
        f"saved        {total['saved_usd']:.2f} USD, {tokens} tokens, "
        f"{total['saved_s']:.0f} s of waiting in {total['hits']} hits",
        f"cost         {total['usd_with_warming']:.2f} USD; without the cache {total['usd_without_cache']:.2f}, "
        f"without warming {total['usd_without_warming']:.2f}",
    ]
    lines += [f"condition    {condition}" for condition in report["conditions"]]
    if report["savings"]:
        lines += ["", "day         release       hits   misses  ratio     saved USD    warm USD  waiting saved"]
    for row in report["savings"]:
        lines.append(
            f"{row['day']}  {row['release']:12} {row['hits']:6} {row['misses']:8}  {_share(row['hit_ratio']):>5} "
            f"{row['saved_usd']:13.4f} {row['warm_usd']:11.4f} {row['saved_s']:12.0f} s"
        )
    return "\n".join(lines)


def _semantic_text(semantic: dict[str, Any]) -> list[str]:
    languages = [name for name, word in (("English", semantic["latin"]), ("Chinese", semantic["han"])) if word]
    lines = [
        f"semantic     {semantic['hits']} hits of {semantic['lookups']} lookups, {semantic['late']} too late; "
        f"{' and '.join(languages) or 'no language'} served, worker {semantic['worker']}"
    ]
    for row in semantic["routes"]:
        state = "off" if row["off"] else f"from {row['threshold']:.2f}"
        wrong = "none re-checked yet"
        if row["false_hit_ratio"] is not None:
            wrong = (
                f"wrong {_share(row['false_hit_ratio'])} "
                f"({_share(row['false_hit_lower'])} to {_share(row['false_hit_upper'])})"
            )
        lines.append(f"  {row['route']:10} {state}; {row['rechecked_count']} re-checked, {wrong}")
    return lines


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"
