"""What the runbook page of each alert says. Pure; `alerts.runbooks` prints it."""

from __future__ import annotations

from alerts.model import Runbook
from alerts.promql import duration, number
from alerts.windows import Rule
from slo.evaluation import MIN_COVERAGE_RATIO, BurnPair
from slo.metric_names import INDICATORS
from slo.series import has_unjudged
from slo.statistics import Z_CATASTROPHE
from slo.types import OnBreach
from slo.wording import show_duration, show_ratio, show_value

STATUS = ("who answers, and what the guard thinks", "sft-guard release status")
RULES = ("what the rule means now, with its limit", "sft-guard slo explain --slo slo.yaml")
HEALTH = ("which part of the guard is not well", "curl -s http://127.0.0.1:8801/healthz")
INCIDENTS = ("evidence, and what differs between the two releases", "sft-guard incident list")
BACK = ("go back by hand when the guard does not", 'sft-guard release rollback --reason "..."')
COLLECT = ("collect a baseline", "sft-guard baseline collect --log state/exchanges --out baseline.json -c guard.yaml")
BUILD = ("build the rules again", "sft-guard alerts build --slo slo.yaml --baseline baseline.json --out DIR")
DOCTOR = ("configuration, stores, upstreams and clocks", "sft-guard doctor")

_DOES = {
    OnBreach.TRACK: "Nothing to the traffic: it records the breach and, if a webhook asks for it, opens a ticket.",
    OnBreach.PAGE: "It pages, opens an incident and lets no release advance. It moves no traffic.",
    OnBreach.SHED: "It takes traffic away: the canary goes one stage down; without a canary the lowest priority is "
    "refused with 503 and Retry-After. In mode `observe` or `recommend` it only says so.",
    OnBreach.ROLLBACK: "In mode `enforce` it sets the weight of a canary to 0 at once, moves the pointer back, changes "
    "the cache epoch, sends the signed webhook and opens an incident. In mode `observe` or `recommend` it only says "
    "so. Without a canary, and long after a promotion, there is nothing to go back to: it opens an incident.",
}


def action_sentence(action: OnBreach) -> str:
    """What the guard does, in one sentence."""
    return {
        OnBreach.TRACK: "The guard records it.",
        OnBreach.PAGE: "The guard holds the release; a person looks.",
        OnBreach.SHED: "The guard takes traffic away.",
        OnBreach.ROLLBACK: "The guard rolls a canary back.",
    }[action]


def burn_sentence(action: OnBreach, pair: BurnPair) -> str:
    """The same for a pair of burn windows: a slow one only asks for a person."""
    slow = "The guard holds the release; this is for office hours."
    return slow if pair.severity == "ticket" else action_sentence(action)


def of_objective(service: str, rule: Rule, name: str) -> Runbook:
    """The slow rule."""
    slo, indicator = rule.slo, INDICATORS[rule.slo.indicator]
    assert rule.limit.value is not None
    span, limit = show_duration(slo.window.length_s), show_value(indicator, rule.limit.value)
    w = duration(slo.window.length_s)
    side = "below" if indicator.worse == "down" else "above"
    if rule.kind == "mean":
        meaning = f"The mean of `{slo.indicator}` over {span} is {side} {limit}: {indicator.help.lower()}."
        bound = "high" if indicator.worse == "down" else "low"
        computed = [
            f"`sft:slo_mean:mean{w}` and its one-sided 95 % bound `sft:slo_mean:{bound}{w}` (Student's t) are both "
            f"{side} {number(rule.limit.value)}",
        ]
    else:
        assert rule.allowed is not None
        what = f"take longer than {limit}" if rule.kind == "latency" else "are bad"
        meaning = (
            f"More than {show_ratio(rule.allowed)} of the events over {span} {what} "
            f"(`{slo.indicator}`: {indicator.help})."
        )
        computed = [
            f"`sft:slo_bad_ratio:ratio{w}` is past {number(rule.allowed)}",
            f"its one-sided 95 % Wilson bound `sft:slo_bad_ratio:wilson_lower{w}` is past it too",
        ]
    computed += _enough(rule, w, slo.min_events)
    computed.append(f"the limit is {limit} = {rule.limit.source}")
    computed.append(_held(rule))
    if slo.fast is not None and rule.fast_share is not None:
        computed.append(f"a breach of the fast path (`{name}Fast`) counts as one of this rule, too")
    return Runbook(meaning, tuple(computed), _look(service, rule), _DOES[slo.action])


def of_fast(service: str, rule: Rule, share: float, name: str) -> Runbook:
    """The fast path."""
    slo = rule.slo
    assert slo.fast is not None
    w = duration(slo.fast.window.length_s)
    span = show_duration(slo.fast.window.length_s)
    meaning = f"A catastrophe: over {show_ratio(share)} of the events of the last {span} are bad (`{slo.indicator}`)."
    computed = (
        f"`sft:slo_bad_ratio:ratio{w}` is past {number(share)}, and so is `sft:slo_bad_ratio:surely{w}`: its Wilson "
        f"bound at {number(round(Z_CATASTROPHE, 3))} standard deviations, one chance in a million",
        *_enough(rule, w, slo.fast.min_events),
        f"it fires at once, goes on while any breach of `{slo.name}` is found (that is what the series `ALERTS` of "
        f"`{name}` itself is asked for), and is kept {show_duration(slo.keep_firing_for_s or 0)} after",
    )
    return Runbook(meaning, computed, _look(service, rule), _DOES[slo.action])


def of_burn(service: str, rule: Rule, pair: BurnPair, name: str) -> Runbook:
    """One pair of burn windows."""
    slo = rule.slo
    assert rule.allowed is not None
    long, short = duration(pair.long_s), duration(pair.short_s)
    share = pair.factor * rule.allowed
    whole = slo.window.length_s / pair.factor
    meaning = (
        f"The error budget of `{slo.name}` ({show_ratio(rule.allowed)} bad over {show_duration(slo.window.length_s)}) "
        f"burns more than {pair.factor:g} times too fast: it would be spent in {whole / 86_400:.1f} days."
    )
    computed = (
        f"`sft:slo_bad_ratio:ratio{long}` and its Wilson bound are past {pair.factor:g} x {number(rule.allowed)} = "
        f"{number(round(share, 9))}",
        f"`sft:slo_bad_ratio:ratio{short}` is past it too, so that the alert ends soon after the trouble does",
        *_enough(rule, long, slo.min_events),
        _held(rule),
        "source of the pairs: Google, The Site Reliability Workbook, chapter 5",
    )
    does = _DOES[slo.action] if pair.severity != "ticket" else "It lets no release advance. It moves no traffic."
    return Runbook(meaning, computed, _look(service, rule), does)


def of_not_covered(service: str, missing: list[Rule]) -> Runbook:
    """Objectives without a limit."""
    why = [f"`{rule.slo.name}`: {rule.limit.reason}" for rule in missing]
    return Runbook(
        f"Prometheus does not watch an objective of {service}, because its limit could not be told when the rules were "
        "built. The guard itself may watch it: it reads its baseline anew.",
        ("`sft:slo_covered` is 0; it is a constant of the generated file", *(why or ["at the last build: none"])),
        (COLLECT, BUILD),
        "It judges the objective when it has a baseline, and says unknown while it has none. Unknown never rolls back.",
    )


def _enough(rule: Rule, w: str, min_events: int) -> list[str]:
    found = [f"`sft:slo_events:sum{w}` is at least {max(1, min_events)}: fewer events say nothing"]
    if has_unjudged(rule.slo):
        share = show_ratio(MIN_COVERAGE_RATIO)
        found.append(f"at least {share} of the answers could be judged (`sft:slo_unjudged:sum{w}` is not larger)")
    found.append("the release takes traffic, in its present life (`sft:release_judged`)")
    return found


def _held(rule: Rule) -> str:
    slo = rule.slo
    held = f"found at every evaluation for {show_duration(slo.for_s)}" if slo.for_s else "it fires at once"
    kept = f", kept {show_duration(slo.keep_firing_for_s)} after its end" if slo.keep_firing_for_s else ""
    return held + kept


def _look(service: str, rule: Rule) -> tuple[tuple[str, str], ...]:
    kind = {
        "sft_quality": ("the answers that failed, newest first", "curl -s http://127.0.0.1:8801/api/v1/exchanges"),
        "sft_perf": (
            "which phase is slow",
            f'sum by (release, le) (rate(sft_perf_request_duration_seconds_bucket{{service="{service}"}}[5m]))',
        ),
        "sft_cost": (
            "tokens by type",
            f'sum by (release, type) (rate(sft_cost_tokens_total{{service="{service}"}}[1h]))',
        ),
        "sft_availability": (
            "how the exchanges end",
            f'sum by (release, outcome) (rate(sft_availability_requests_total{{service="{service}"}}[5m]))',
        ),
    }
    first = next((look for prefix, look in kind.items() if rule.slo.indicator.startswith(prefix)), HEALTH)
    return STATUS, first, RULES, INCIDENTS, BACK
