"""cost: what inference costs, what a change would cost, whether it pays, and what was spent."""

from __future__ import annotations

import argparse
from pathlib import Path

from guard.commands.admin_call import add_admin_options
from guard.commands.common import Groups, add_command, add_group, emit, progress
from slo.economics.scenario import Scenario, load_scenario
from slo.economics.spending import Share
from slo.errors import DataError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    cost = add_group(groups, "cost", "what inference costs, and what a change would cost")
    estimate = add_command(cost, "estimate", run_estimate, "every item of a scenario with its formula",
                           "sft-guard cost estimate --scenario practice")  # fmt: skip
    breakeven = add_command(cost, "breakeven", run_breakeven, "when a fixed cost beats one per token",
                            "sft-guard cost breakeven --scenario practice --plot breakeven.png")  # fmt: skip
    breakeven.add_argument("--tokens-per-month", type=_amount, help="volume to compare at; default: the scenario's")
    breakeven.add_argument("--data-may-not-leave", action="store_true", help="own hardware, whatever the volume")
    breakeven.add_argument("--plot", type=Path, metavar="PNG", help="cost against volume as a picture")
    for parser in (estimate, breakeven):
        parser.add_argument("--scenario", default="practice", help="a YAML file, or a shipped one (default practice)")

    advise = add_command(cost, "advise", run_advise, "fine-tune or not, and what must be in place first",
                         "sft-guard cost advise -c guard.yaml --recall 78% --quality 80%")  # fmt: skip
    advise.add_argument("--recall", type=_ratio, help="recall@3 after chunking and embedding were mended")
    advise.add_argument("--quality", type=_ratio, help="key-intent quality")
    advise.add_argument("--evaluation-set", type=Path, help="labelled questions, JSON lines; counted")
    advise.add_argument("--fte", type=_amount, help="people for it, 1 is a whole one")
    for flag, about in (
        ("--privacy-reviewed", "whoever answers for privacy and compliance has agreed"),
        ("--red-team", "it was attacked on purpose, and mended"),
        ("--pipeline-as-code", "training and release run from a repository"),
    ):
        advise.add_argument(flag, action="store_true", default=None, help=about)
    add_admin_options(advise)

    report = add_command(cost, "report", run_report, "what the measured traffic cost, and where the month is going",
                         "sft-guard cost report --log state/exchanges --budget 3000")  # fmt: skip
    report.add_argument("--log", type=Path, nargs="+", required=True, metavar="PATH", help="segments or directories")
    report.add_argument("--days", type=_days, help="only the last so many days; default: all there is")
    report.add_argument("--budget", type=_amount, metavar="USD", help="of a month; exit 1 when it may be exceeded")


def run_estimate(args: argparse.Namespace) -> int:
    """The table of a scenario."""
    from slo.economics.estimate import estimate

    scenario = _scenario(args)
    lines = estimate(scenario)
    width = max(len(line.item) for line in lines)
    text = "\n".join(f"{line.item:{width}}  {_usd(line.usd):>12}  {'/' + line.per:7} {line.formula}" for line in lines)
    monthly = sum(line.monthly_usd or 0.0 for line in lines if _is_paid(line.item, scenario))
    text += f"\n\nrunning cost about {_usd(monthly)} a month"
    result = {"scenario": scenario.name, "lines": lines, "monthly_usd": monthly, "warnings": scenario.warnings()}
    emit(args, result, text)
    return 0


def run_breakeven(args: argparse.Namespace) -> int:
    """Cost of ownership, break-even points and a recommendation by volume."""
    from slo.economics.breakeven import compare

    scenario = _scenario(args)
    found = compare(scenario, tokens_per_month=args.tokens_per_month, data_may_leave=not args.data_may_not_leave)
    if args.plot:
        from guard.commands.cost_plot import plot_breakeven

        plot_breakeven(scenario, found, args.plot)
    lines = [f"at {found.tokens_per_month / 1e6:,.0f}M tokens a month:"]
    for tco in found.tco:
        people = f"; with people {_span(tco.with_people_usd)}" if tco.with_people_usd else ""
        lines.append(f"  {tco.option:12} {_span(tco.usd)} USD{people}")
    lines += ["", "cheaper per token up to:"]
    for point in found.break_evens:
        low, high = (tokens / 1e6 for tokens in point.tokens_per_month)
        span = f"{high:,.0f}M" if round(low) == round(high) else f"{low:,.0f}M to {high:,.0f}M"
        lines.append(
            f"  {point.against} against {point.option:10} {point.basis.replace('_', ' '):15} {span} tokens a month"
        )
    lines += ["", f"recommended: {found.recommendation} ({found.reason})"]
    if args.plot:
        lines.append(f"wrote {args.plot}")
    emit(args, {"scenario": scenario.name, **_fields(found), "warnings": scenario.warnings()}, "\n".join(lines))
    return 0


def run_advise(args: argparse.Namespace) -> int:
    """The decision and the checklist; exit 1 when a must is open and fine-tuning is what the numbers ask for."""
    from guard.commands.cost_facts import gather
    from slo.economics.advice import advise

    advice = advise(gather(args))
    mark = {True: "yes", False: "NO ", None: "?  "}
    lines = [f"fine-tune: {advice.fine_tune} - {advice.reason}", ""]
    for item in advice.checklist:
        shown = f" ({item.evidence})" if item.evidence else ""
        then = "" if item.met else f"; {item.then}"
        lines.append(f"  {mark[item.met]} {item.level.value:6} {item.what}{shown}{then}")
    emit(args, {**_fields(advice), "open_musts": [item.what for item in advice.open_musts]}, "\n".join(lines))
    return 1 if advice.fine_tune == "not_ready" else 0


def run_report(args: argparse.Namespace) -> int:
    """Tables by release, tenant and model, and the forecast; exit 1 when the budget may be exceeded."""
    from slo.economics.spending import summarise
    from slo.sources.spending import spent

    rows, table = spent(args.log, args.days)
    for problem in table.problems:
        progress(f"sft-guard: {problem}")
    if not rows:
        raise DataError("exchange log: no usable exchange; name the segments of a guard that has served")
    found = summarise(rows, budget_usd=args.budget)
    lines = [f"{found.request_count} exchanges in {found.day_count} days: {_usd(found.usd)}"]
    if found.unpriced_count:
        lines.append(f"{found.unpriced_count} of them have no known price and count as nothing: see `prices:`")
    for title, shares in (("release", found.by_release), ("tenant", found.by_tenant), ("model", found.by_model)):
        lines += [
            "",
            f"{title:24} {'USD':>12} {'share':>7} {'exchanges':>10} {'hits':>6} {'each':>12} {'a good one':>12}",
        ]
        lines += [_share_line(share) for share in shares]
    if (forecast := found.forecast) is not None:
        span = (
            f"{_usd(forecast.low_usd)} to {_usd(forecast.high_usd)}" if forecast.high_usd < float("inf") else "unknown"
        )
        lines += ["", f"a month at this pace: {_usd(forecast.expected_usd)} (90 %: {span})"]
        if forecast.budget_usd is not None:
            lines.append(f"budget {_usd(forecast.budget_usd)}: {forecast.state.replace('_', ' ')}")
    lines += [f"ALERT {alert}" for alert in found.alerts]
    emit(args, {**_fields(found), "lines_left_out": table.bad_count}, "\n".join(lines))
    return 1 if found.alerts else 0


def _share_line(share: Share) -> str:
    good = f"{share.usd_per_good_answer:12.6f}" if share.usd_per_good_answer is not None else f"{'-':>12}"
    return (
        f"{share.name[:24]:24} {share.usd:12.4f} {share.share_ratio:7.1%} {share.request_count:10} "
        f"{share.hit_ratio:6.1%} {share.usd_per_request:12.6f} {good}"
    )


def _scenario(args: argparse.Namespace) -> Scenario:
    scenario = load_scenario(args.scenario)
    for warning in scenario.warnings():
        progress(f"sft-guard: {scenario.name}: {warning}")
    return scenario


def _is_paid(item: str, scenario: Scenario) -> bool:
    """With a cache, the line without it and the savings are no cost."""
    cached = scenario.traffic.cache_hit_ratio > 0
    return item != "saved by the cache" and not (cached and item == "inference, no cache")


def _usd(usd: float) -> str:
    return f"{usd:,.2f} USD" if usd >= 0.01 or usd == 0 else f"{usd:.4f} USD"


def _span(usd: tuple[float, float]) -> str:
    return f"{usd[0]:,.0f}" if usd[0] == usd[1] else f"{usd[0]:,.0f} to {usd[1]:,.0f}"


def _fields(value: object) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}  # type: ignore[attr-defined]


def _amount(text: str) -> float:
    """A number of 0 or more for argparse, with a suffix M or k if wanted."""
    scale = {"M": 1e6, "k": 1e3}.get(text[-1:], 1.0)
    try:
        value = float(text[:-1] if scale != 1.0 else text) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; write a number of 0 or more, such as 30M or 30000000")
    return value


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; write a number of days above 0, such as 7")
    return value


def _ratio(text: str) -> float:
    """`78%` or `0.78` for argparse."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; write a share such as 78% or 0.78")
    return round(value, 9)
