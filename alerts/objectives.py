"""From an objective to its alerting rules: the same three conditions, on the same counts, as `slo.evaluation`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alerts import pages
from alerts.cases import fast_cases, mean_cases, not_covered_cases, share_cases
from alerts.model import INFO, PAGE, TICKET, Alert, Group, Options, Record
from alerts.names import FAST, NOT_COVERED, burn_suffix
from alerts.promql import BY, duration, number, selector
from alerts.windows import Rule
from slo.evaluation import BURN_PAIRS, BurnPair
from slo.metric_names import INDICATORS
from slo.series import has_unjudged
from slo.types import OnBreach
from slo.wording import show_duration, show_ratio, show_value

_SEVERITY = {
    OnBreach.TRACK: TICKET,
    OnBreach.PAGE: PAGE,
    OnBreach.SHED: PAGE,
    OnBreach.ROLLBACK: PAGE,
}


def objectives_group(service: str, rules: Iterable[Rule], options: Options) -> Group:
    """Return the breaches and alerts of every objective, and what is said of those that cannot be expressed."""
    made: list[Record | Alert] = []
    every = tuple(rules)
    for rule in every:
        made += _of_rule(service, rule, options)
    for rule in every:
        labels = {"service": service, "slo": rule.slo.name}
        covered = rule.limit.value is not None
        made.append(Record("sft:slo_covered", f"vector({int(covered)})", labels))
        if rule.limit.value is not None and rule.slo.threshold.form != "previous":
            shown = rule.limit.value * INDICATORS[rule.slo.indicator].scale
            made.append(Record("sft:slo_limit", f"vector({number(round(shown, 9))})", labels))
    made.append(_not_covered(service, every, options))
    return Group(f"sft-{service}-objectives", options.scrape_s, tuple(made), "one breach and its alerts per objective")


def harm(
    own: dict[str, str], rule: Rule, window_s: float, share: float, min_events: int, bound: str = "wilson_lower"
) -> str:
    """Return the expression that is present while the bad share of a window is past `share`: see `is_harmful`."""
    w, conditions = duration(window_s), []
    conditions.append(f"{selector(f'sft:slo_bad_ratio:ratio{w}', own)} > {number(share)}")
    conditions.append(f"{selector(f'sft:slo_bad_ratio:{bound}{w}', own)} > {number(share)}")
    conditions += _enough(own, rule, w, min_events)
    return "\nand ".join(conditions)


def _enough(own: dict[str, str], rule: Rule, w: str, min_events: int) -> Iterator[str]:
    events = selector(f"sft:slo_events:sum{w}", own)
    yield f"{events} >= {number(max(1, min_events))}"
    if has_unjudged(rule.slo):
        yield f"{events} >= {selector(f'sft:slo_unjudged:sum{w}', own)}"  # at least half could be judged
    yield f"on (service, release, life) {selector('sft:release_judged', {'service': own['service']})}"


def _of_rule(service: str, rule: Rule, options: Options) -> Iterator[Record | Alert]:
    """Breach, fast breach and alerts of one objective; nothing of it when it can never fire."""
    slo, own = rule.slo, {"service": service, "slo": rule.slo.name}
    breaches: list[str] = []
    paired: list[Alert] = []
    if rule.limit.value is not None and slo.burn_rate and rule.allowed is not None:
        for pair in BURN_PAIRS:
            share = pair.factor * rule.allowed
            if share < 1.0:
                short = selector(f"sft:slo_bad_ratio:ratio{duration(pair.short_s)}", own)
                expr = f"{harm(own, rule, pair.long_s, share, slo.min_events)}\nand {short} > {number(share)}"
                breaches.append(f"({expr})")
                paired.append(_burn_alert(service, rule, pair, expr, options))
    elif rule.limit.value is not None and rule.kind == "mean":
        breaches.append(f"({_mean(own, rule, rule.limit.value)})")
    elif rule.allowed is not None and rule.allowed < 1.0:
        breaches.append(f"({harm(own, rule, slo.window.length_s, rule.allowed, slo.min_events)})")
    slow = bool(breaches)
    fast_share = rule.fast_share
    if slo.fast is not None and fast_share is not None and fast_share < 1.0:
        expr = harm(own, rule, slo.fast.window.length_s, fast_share, slo.fast.min_events, "surely")
        yield Record("sft:slo_fast:value", expr, own)
        breaches.append(selector("sft:slo_fast:value", own))
    if breaches:
        yield Record("sft:slo_breach:value", "\nor ".join(breaches), own)
    if paired:
        yield from paired
    elif slow:
        yield _slow_alert(service, rule, options)
    if slo.fast is not None and fast_share is not None and fast_share < 1.0:
        yield _fast_alert(service, rule, fast_share, options)


def _mean(own: dict[str, str], rule: Rule, limit: float) -> str:
    w = duration(rule.slo.window.length_s)
    down = INDICATORS[rule.slo.indicator].worse == "down"
    sign, bound = ("<", "high") if down else (">", "low")
    conditions = [
        f"{selector(f'sft:slo_mean:mean{w}', own)} {sign} {number(limit)}",
        f"{selector(f'sft:slo_mean:{bound}{w}', own)} {sign} {number(limit)}",
        *_enough(own, rule, w, rule.slo.min_events),
    ]
    return "\nand ".join(conditions)


def _labels(service: str, rule: Rule, severity: str) -> dict[str, str]:
    return {
        "service": service,
        "slo": rule.slo.name,
        "action": rule.slo.action.value,
        "severity": severity,
        "kind": "symptom",
    }


def _slow_alert(service: str, rule: Rule, options: Options) -> Alert:
    slo, indicator = rule.slo, INDICATORS[rule.slo.indicator]
    assert rule.limit.value is not None
    span, limit = show_duration(slo.window.length_s), show_value(indicator, rule.limit.value)
    labels = _labels(service, rule, _SEVERITY[slo.action])
    if rule.kind == "mean":
        shown = f"mean of {slo.name} over {span}, limit {limit}"
        cases = mean_cases(service, rule, labels, options)
    else:
        assert rule.allowed is not None
        what = f"over {limit}" if rule.kind == "latency" else "bad"
        shown = f"{what} over {span} ({slo.name}), allowed {show_ratio(rule.allowed)}"
        cases = share_cases(
            service, rule, slo.window.length_s, rule.allowed, slo.min_events, labels, slo.for_s, options
        )
    return Alert(
        rule.name,
        selector("sft:slo_breach:value", {"service": service, "slo": slo.name}),
        labels,
        summary=f"{service} {{{{ $labels.release }}}}: {{{{value}}}} {shown}",
        description=f"{indicator.help}. {pages.action_sentence(slo.action)}",
        runbook=pages.of_objective(service, rule, rule.name),
        cases=cases,
        for_s=slo.for_s,
        keep_s=slo.keep_firing_for_s,
        show="number" if rule.kind == "mean" else "ratio",
    )


def _fast_alert(service: str, rule: Rule, share: float, options: Options) -> Alert:
    """Fires at once, and like the sidecar goes on while any breach of the objective is found."""
    slo = rule.slo
    assert slo.fast is not None
    name, own = f"{rule.name}{FAST}", {"service": service, "slo": slo.name}
    fast, any_breach = selector("sft:slo_fast:value", own), selector("sft:slo_breach:value", own)
    firing = selector("ALERTS", {"alertname": name, "alertstate": "firing", **own})
    labels = _labels(service, rule, _SEVERITY[slo.action])
    span = show_duration(slo.fast.window.length_s)
    return Alert(
        name,
        f"{fast}\nor ({any_breach} and on ({BY}) {firing})",
        labels,
        summary=f"{service} {{{{ $labels.release }}}}: {{{{value}}}} bad over {span} ({slo.name}), "
        f"catastrophe limit {show_ratio(share)}",
        description=f"{INDICATORS[slo.indicator].help}; fast path. {pages.action_sentence(slo.action)}",
        runbook=pages.of_fast(service, rule, share, name),
        cases=fast_cases(service, rule, share, labels, options),
        keep_s=slo.keep_firing_for_s,
        show="ratio",
    )


def _burn_alert(service: str, rule: Rule, pair: BurnPair, expr: str, options: Options) -> Alert:
    slo = rule.slo
    assert rule.allowed is not None
    share = pair.factor * rule.allowed
    severity = TICKET if pair.severity == TICKET else _SEVERITY[slo.action]
    labels = _labels(service, rule, severity) | {"burn": number(pair.factor)}
    name = f"{rule.name}{burn_suffix(pair.factor)}"
    spans = f"{show_duration(pair.long_s)} and {show_duration(pair.short_s)}"
    return Alert(
        name,
        expr,
        labels,
        summary=f"{service} {{{{ $labels.release }}}}: {{{{value}}}} bad, {slo.name} burns its error budget more than "
        f"{pair.factor:g} x too fast over {spans}",
        description=f"{INDICATORS[slo.indicator].help}; allowed {show_ratio(rule.allowed)} bad. "
        f"{pages.burn_sentence(slo.action, pair)}",
        runbook=pages.of_burn(service, rule, pair, name),
        cases=share_cases(
            service,
            rule,
            pair.long_s,
            share,
            slo.min_events,
            labels,
            slo.for_s,
            options,
            pair.short_s,
        ),
        for_s=slo.for_s,
        keep_s=slo.keep_firing_for_s,
        show="ratio",
    )


def _not_covered(service: str, rules: tuple[Rule, ...], options: Options) -> Alert:
    missing = [rule for rule in rules if rule.limit.value is None]
    return Alert(
        NOT_COVERED,
        f"{selector('sft:slo_covered', {'service': service})} == 0",
        {"severity": INFO, "kind": "guard"},
        summary=f"{service}: objective {{{{ $labels.slo }}}} has no limit, so Prometheus does not watch it",
        description="Its limit comes from a baseline that could not be used when these rules were built.",
        runbook=pages.of_not_covered(service, missing),
        cases=not_covered_cases(service, missing, options),
        for_s=600.0,
    )
