"""The recorded series that all objectives share: steps, sums of windows, shares and their bounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from alerts.model import Group, Options, Record
from alerts.promql import duration, number, one_of, selector, step, student_half_width, wilson_lower, window_sum
from slo import series
from slo.evaluation import BURN_PAIRS, allowed_share
from slo.metric_names import INDICATORS
from slo.statistics import Z_CATASTROPHE
from slo.thresholds import Limit
from slo.types import Slo

SLOW_FROM_S = 3600.0
"""Longer windows are summed once a minute: a day of 15 s steps is 5,760 samples a series."""
SLOW_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One objective with its limit at the time of the build, and the name of its alert."""

    slo: Slo
    limit: Limit
    name: str

    @property
    def kind(self) -> str:
        """ratio | mean | latency."""
        return INDICATORS[self.slo.indicator].kind

    @property
    def allowed(self) -> float | None:
        """Allowed share of bad events; None for means, and while there is no limit."""
        if self.limit.value is None or self.kind == "mean":
            return None
        return allowed_share(INDICATORS[self.slo.indicator], self.limit.value)

    @property
    def fast_share(self) -> float | None:
        """Share from which the fast path speaks; None when it has none. As `slo.evaluation` decides."""
        if self.slo.fast is None or self.kind == "mean" or (self.kind == "latency" and self.limit.value is None):
            return None
        return max(self.slo.fast.over_ratio, self.allowed or 0.0)

    @property
    def fast_s(self) -> float | None:
        """Window of the fast path, seconds; None when it has none."""
        return self.slo.fast.window.length_s if self.slo.fast and self.fast_share is not None else None

    def windows_s(self) -> Iterator[float]:
        """Every window that its verdict is read from, seconds."""
        if self.fast_s is not None:
            yield self.fast_s
        if self.limit.value is None:
            return
        if not self.slo.burn_rate:
            yield self.slo.window.length_s
            return
        for pair in BURN_PAIRS:
            yield from (pair.long_s, pair.short_s)


def shared_groups(service: str, rules: Iterable[Rule], options: Options) -> tuple[Group, ...]:
    """Return the groups that record what the alerts read."""
    every = tuple(rules)
    own = {"service": service}
    steps = [
        Record(f"sft:{what}:step", step(selector(counter, own), options.scrape_s, options.late_s))
        for what, counter in _counters(every)
    ]
    judged = f"max by (service, release, life) ({selector('sft_release_judged', own)})"
    lengths = sorted({length_s for rule in every for length_s in rule.windows_s()})
    quick = [s for s in lengths if s <= SLOW_FROM_S]
    slow = [s for s in lengths if s > SLOW_FROM_S]
    fast_rules = [*steps, Record("sft:release_judged", judged)]
    for length_s in quick:
        fast_rules += _window(own, every, length_s, options)
    groups = [
        Group(f"sft-{service}-windows", options.scrape_s, tuple(fast_rules),
              "steps, and windows up to an hour"),
    ]  # fmt: skip
    if slow:
        rows = tuple(record for length_s in slow for record in _window(own, every, length_s, options))
        about = "long windows, once a minute"
        groups.append(Group(f"sft-{service}-long-windows", max(SLOW_EVERY_S, options.scrape_s), rows, about))
    return tuple(groups)


def _counters(rules: tuple[Rule, ...]) -> Iterator[tuple[str, str]]:
    kinds = {rule.kind for rule in rules if any(rule.windows_s())}
    if not kinds:
        return
    yield "slo_events", series.EVENTS
    if kinds & {"ratio", "latency"}:
        yield "slo_bad", series.BAD
    if any(series.has_unjudged(rule.slo) for rule in rules):
        yield "slo_unjudged", series.UNJUDGED
    if "mean" in kinds:
        yield "slo_values", series.VALUES
        yield "slo_squares", series.SQUARES


def _window(own: dict[str, str], rules: tuple[Rule, ...], length_s: float, options: Options) -> list[Record]:
    """Sums of one window, then what is made of them."""
    using = [rule for rule in rules if length_s in rule.windows_s()]
    means = [rule.slo.name for rule in using if rule.kind == "mean"]
    shares = [rule.slo.name for rule in using if rule.kind != "mean"]
    unjudged = [rule.slo.name for rule in using if series.has_unjudged(rule.slo)]
    w = duration(length_s)
    records = []
    for what, names in (
        ("events", [rule.slo.name for rule in using]), ("bad", shares), ("unjudged", unjudged),
        ("values", means), ("squares", means),
    ):  # fmt: skip
        if names:
            steps = selector(f"sft:slo_{what}:step", own | {"slo": one_of(names)})
            records.append(Record(f"sft:slo_{what}:sum{w}", window_sum(steps, length_s, options.scrape_s)))
    events = selector(f"sft:slo_events:sum{w}", own)
    if shares:
        ratio = f"{selector(f'sft:slo_bad:sum{w}', own)}\n/ ({events} > 0)"
        known = selector(f"sft:slo_bad_ratio:ratio{w}", own)
        records.append(Record(f"sft:slo_bad_ratio:ratio{w}", ratio))
        records.append(Record(f"sft:slo_bad_ratio:wilson_lower{w}", wilson_lower(known, events)))
        if any(rule.fast_s == length_s for rule in using):
            records.append(Record(f"sft:slo_bad_ratio:surely{w}", wilson_lower(known, events, Z_CATASTROPHE)))
    if means:
        values, squares = selector(f"sft:slo_values:sum{w}", own), selector(f"sft:slo_squares:sum{w}", own)
        mean, half = selector(f"sft:slo_mean:mean{w}", own), selector(f"sft:slo_mean:half_width{w}", own)
        records.append(Record(f"sft:slo_mean:mean{w}", f"{values}\n/ ({events} > 0)"))
        # Fewer than four values convict nobody: see slo.statistics.t_quantile_95.
        records.append(Record(f"sft:slo_mean:half_width{w}", student_half_width(values, squares, f"({events} > 3)")))
        records.append(Record(f"sft:slo_mean:low{w}", f"{mean} - {half}"))
        records.append(Record(f"sft:slo_mean:high{w}", f"{mean} + {half}"))
    for rule in using:
        if rule.slo.burn_rate and rule.allowed and any(length_s in (p.long_s, p.short_s) for p in BURN_PAIRS):
            ratio = selector(f"sft:slo_bad_ratio:ratio{w}", own | {"slo": rule.slo.name})
            records.append(Record(f"sft:slo_burn_rate:{w}", f"{ratio} / {number(rule.allowed)}"))
    return records
