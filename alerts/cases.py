"""Samples on which each alert fires, and samples on which it stays silent: the promtool unit tests. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor

from alerts.model import Case, Options, Series
from alerts.promql import number, selector
from alerts.windows import Rule
from slo import series
from slo.metric_names import INDICATORS

RELEASE = "r1"
SHORT_S = 300.0
"""A case waits no longer than this for a short window to be clean, and as long for the alert to be kept."""
SETTLE_STEPS = 8
"""Steps until the first samples are in every window."""


def share_cases(
    service: str, rule: Rule, window_s: float, share: float, min_events: int, labels: Mapping[str, str], for_s: float,
    options: Options, short_s: float = 0.0,
) -> tuple[Case, ...]:  # fmt: skip
    """Fires when three times the share is bad; silent at a third of it, and with one event too few."""
    per_step = max(400, min_events)
    bad = ceil(per_step * _past(share))
    steps = SETTLE_STEPS + ceil(for_s / options.scrape_s) + 2
    expected = ({**labels, "release": RELEASE},)
    cases = [
        Case(
            "fires", steps * options.scrape_s, _traffic(service, rule, per_step, bad, steps), expected, bad / per_step,
        ),
        Case(
            "a third of the limit", steps * options.scrape_s,
            _traffic(service, rule, per_step, floor(per_step * share / 3), steps),
        ),
        Case(
            "takes no traffic", steps * options.scrape_s,
            _traffic(service, rule, per_step, bad, steps, judged=False),
        ),
    ]  # fmt: skip
    if min_events > 1 and rule.slo.fast is None:
        few = _burst(service, rule, min_events - 1, steps)
        cases.append(Case("one event too few", steps * options.scrape_s, few))
    if series.has_unjudged(rule.slo):
        blind = _traffic(service, rule, per_step, bad, steps, unjudged=per_step + 1)
        cases.append(Case("less than half could be judged", steps * options.scrape_s, blind))
    if 0 < short_s <= SHORT_S >= rule.slo.keep_firing_for_s:
        quiet = ceil((short_s + rule.slo.keep_firing_for_s) / options.scrape_s) + SETTLE_STEPS
        over = _recovered(service, rule, per_step, bad, steps, quiet)
        name = "over in the short window"
        cases.append(Case(name, steps * options.scrape_s, over, expected, bad / per_step))
        cases.append(Case(name, (steps + quiet) * options.scrape_s, over))
    return tuple(cases)


def fast_cases(service: str, rule: Rule, share: float, labels: Mapping[str, str], options: Options) -> tuple[Case, ...]:
    """Fires within a few steps; silent at half the share."""
    fast = rule.slo.fast
    assert fast is not None
    per_step = max(100, fast.min_events)
    bad = ceil(per_step * (1.0 + share) / 2.0)
    at_s = SETTLE_STEPS * options.scrape_s
    few = _burst(service, rule, fast.min_events - 1, SETTLE_STEPS)
    return (
        Case("fires", at_s, _traffic(service, rule, per_step, bad, SETTLE_STEPS), ({**labels, "release": RELEASE},),
             bad / per_step),
        Case("half the limit", at_s, _traffic(service, rule, per_step, floor(per_step * share / 2), SETTLE_STEPS)),
        Case("one event too few", at_s, few),
    )  # fmt: skip


def mean_cases(service: str, rule: Rule, labels: Mapping[str, str], options: Options) -> tuple[Case, ...]:
    """Fires when the mean is far on the wrong side; silent when it is far on the right one."""
    slo, limit = rule.slo, rule.limit.value
    assert limit is not None
    down = INDICATORS[slo.indicator].worse == "down"
    per_step, steps = max(400, slo.min_events), SETTLE_STEPS + ceil(slo.for_s / options.scrape_s) + 2
    wrong, right = (limit / 2, limit * 1.2) if down else (limit * 2 or 1.0, limit / 2)
    at_s = steps * options.scrape_s
    return (
        Case("fires", at_s, _values(service, rule, per_step, wrong, steps), ({**labels, "release": RELEASE},), wrong),
        Case("on the right side", at_s, _values(service, rule, per_step, right, steps)),
        Case("less than half has a value", at_s, _values(service, rule, per_step, wrong, steps, per_step + 1)),
    )


def not_covered_cases(service: str, missing: list[Rule], options: Options) -> tuple[Case, ...]:
    """It says so after ten minutes, and not before. Needs no samples: what is missing was known at the build."""
    nothing: tuple[Series, ...] = ()
    expected = tuple(
        {"service": service, "slo": rule.slo.name, "severity": "info", "kind": "guard"} for rule in missing
    )
    late = 660.0 + 2 * options.scrape_s
    if not missing:
        return (Case("every objective has a limit", late, nothing),)
    return (Case("fires", late, nothing, expected), Case("not at once", 300.0, nothing))


def flat(series_name: str, value: float, steps: int = 3000) -> Series:
    """A gauge that stands still."""
    return Series(series_name, f"{number(value)}+0x{steps}")


def _past(share: float) -> float:
    """A share far enough past the limit for every bound, and at most 1."""
    return 0.05 if share <= 0 else min(3 * share, (1.0 + share) / 2.0)


def _judged(service: str, judged: bool = True) -> tuple[Series, ...]:
    """The release takes traffic, or it does not."""
    series_name = selector("sft_release_judged", {"service": service, "release": RELEASE})
    return (flat(series_name, 1),) if judged else ()


def _counter(name: str, service: str, rule: Rule, per_step: float, steps: int) -> Series:
    labels = {"service": service, "release": RELEASE, "slo": rule.slo.name}
    return Series(selector(name, labels), f"0+{per_step!r}x{steps + 4}")


def _traffic(
    service: str, rule: Rule, per_step: int, bad: int, steps: int, *, unjudged: int = 0, judged: bool = True,
) -> tuple[Series, ...]:  # fmt: skip
    found = [
        *_judged(service, judged),
        _counter(series.EVENTS, service, rule, per_step, steps),
        _counter(series.BAD, service, rule, bad, steps),
    ]
    if series.has_unjudged(rule.slo):
        found.append(_counter(series.UNJUDGED, service, rule, unjudged, steps))
    return tuple(found)


def _burst(service: str, rule: Rule, count: int, steps: int) -> tuple[Series, ...]:
    """All of them bad, all at once, and then silence."""
    labels = {"service": service, "release": RELEASE, "slo": rule.slo.name}
    values = f"0 {count}+0x{steps + 4}"
    found = [*_judged(service)]
    found += [Series(selector(name, labels), values) for name in (series.EVENTS, series.BAD)]
    if series.has_unjudged(rule.slo):
        found.append(_counter(series.UNJUDGED, service, rule, 0, steps))
    return tuple(found)


def _recovered(service: str, rule: Rule, per_step: int, bad: int, steps: int, quiet: int) -> tuple[Series, ...]:
    """Bad for some steps, then a little traffic without a fault: the long window is still full of what was bad."""
    labels = {"service": service, "release": RELEASE, "slo": rule.slo.name}
    return (
        *_judged(service),
        Series(selector(series.EVENTS, labels), f"0+{per_step}x{steps} {per_step * steps + 1}+1x{quiet + 4}"),
        Series(selector(series.BAD, labels), f"0+{bad}x{steps} {bad * steps}+0x{quiet + 4}"),
    )


def _values(service: str, rule: Rule, per_step: int, mean: float, steps: int, unjudged: int = 0) -> tuple[Series, ...]:
    """Values with a spread of a tenth of their mean."""
    found = [
        *_judged(service),
        _counter(series.EVENTS, service, rule, per_step, steps),
        _counter(series.VALUES, service, rule, per_step * mean, steps),
        _counter(series.SQUARES, service, rule, per_step * mean * mean * 1.01, steps),
    ]
    if series.has_unjudged(rule.slo):
        found.append(_counter(series.UNJUDGED, service, rule, unjudged, steps))
    return tuple(found)
