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
RULES = ("what the rule means, with its limit", "sft-guard slo explain --slo slo.yaml")
HEALTH = ("which part of the guard is not well", "curl -s http://127.0.0.1:8801/healthz")
INCIDENTS = ("what the guard recorded, newest first", "sft-guard incident list")
INCIDENT = (
    "its evidence: numbers, failed answers, what differs between the two releases",
    "sft-guard incident show INCIDENT_ID",
)
EXCHANGES = (
    "the last 200 answers, newest first, with what each check said",
    "curl -s 'http://127.0.0.1:8801/api/v1/exchanges?limit=200'",
)
VALUES = ("value, limit and reason of every rule, for each release", "curl -s http://127.0.0.1:8801/api/v1/slo")
CACHE = ("what the cache holds and saves", "sft-guard cache stats")
LOG = ("what the guard says", "journalctl -u sft-guard -n 50")
BACK = (
    "take the canary out by hand; after a promotion, return to the version before",
    'sft-guard release rollback --reason "..."',
)
COLLECT = ("collect a baseline", "sft-guard baseline collect --log state/exchanges --out baseline.json -c guard.yaml")
BUILD = ("build the rules again", "sft-guard alerts build --slo slo.yaml --baseline baseline.json --out DIR")
DOCTOR = ("configuration, stores, upstreams and clocks", "sft-guard doctor")

_CANARY = (
    "Only the canary is bad: the guard takes it out in mode `enforce`; in any other mode do so yourself with "
    "`sft-guard release rollback`. Mend it, give it a new version name, start that one.",
    "Stable is as bad as the canary: it is not the release, and going back will not help. Something that both share is "
    "at fault: model server, knowledge base, network. `sft-guard doctor` tries each of them.",
)
_THEN = {
    "sft_quality": (
        *_CANARY,
        "No canary: look at what changed outside the guard (documents, prompt, model behind the same name), and at "
        "`curl -s http://127.0.0.1:8801/api/v1/drift`: users may ask other questions than before.",
        "The failed answers look right to you: label some of them (docs/detectors.md), and see with "
        "`sft-guard slo replay` how often the rule fires on healthy traffic.",
    ),
    "sft_perf": (
        *_CANARY,
        "Time to the first token is most of it: the model server is overloaded or has lost a replica.",
        "Retrieval is most of it: the knowledge base, or the machine that it runs on.",
        "`sft_guard_loop_lag_seconds` is high: the guard itself has too little processor time. Give it a core, without "
        "a CPU limit.",
        "More requests than usual: add capacity, or lower `limits.concurrent_requests` and reload; what is over it is "
        "refused with 503 and Retry-After instead of waiting.",
    ),
    "sft_cost": (
        "One release is dearer: its prompt or its contexts grew, or its model is another. `sft-guard cost report --log "
        "state/exchanges` splits by release, tenant and model.",
        "All are dearer: fewer answers come from the cache (`sft-guard cache stats`), or a price in the table changed.",
    ),
    "sft_availability": (
        *_CANARY,
        "`server_error`: the model server answers 5xx or is not reached; its own log says why.",
        "`timeout`: it is too slow for `timeouts` in guard.yaml. `incomplete`: answers break off in the middle.",
        "`client_error`: the model server refuses the callers: a key that expired, a bot that sends something new, "
        "or a quota (429, counted in `sft_availability_throttled_total`).",
        "`blocked` is held against no release: the guard itself refused, for overload (503, type `shed`) or by a "
        "safety check (400, type `guard_blocked`).",
    ),
    "sft_cache": (
        "Right after a release or a change of documents: the cache fills again by itself.",
        "`sft_cache_bypassed_total` grows: requests are not looked up; its label `reason` says why.",
        "`sft_cache_not_stored_total` grows: answers are not kept, as when the checks cannot look.",
        "Neither: the bot sends something that differs each time (a header or field with an id of its own). Name it in "
        "`cache.routes` under `ignore_headers` or `ignore_fields`, and reload.",
    ),
}
"""By the beginning of an indicator: what may be seen, and what to do about it."""
SHARED_THEN = (
    "Do not roll back for it: it would not help. `sft-guard doctor` tries model server, stores and receivers; look "
    "there at what is `fault`, and at what changed for both releases (knowledge base, network, provider).",
    "It ends by itself when stable was seen to be well again.",
)
NO_TARGET_THEN = (
    "Go forward instead: add a version that is known to be good to guard.yaml, reload (`kill -HUP`), then `sft-guard "
    "release start VERSION` and `sft-guard release promote --now`: it answers everybody at once.",
    "No good version is left: give the bot its old base URL, without the guard (docs/operations.md), or switch the "
    "bot off.",
)
_SLOW_BURN = (
    "Nobody has to get up: find out in office hours which errors eat the budget.",
    "Until it ends no release advances. `sft-guard release promote` is a person's decision to go on all the same.",
)

_DOES = {
    OnBreach.TRACK: "Nothing to the traffic: it records the breach and, if a webhook asks for it, opens a ticket.",
    OnBreach.PAGE: "It pages, opens an incident and lets no release advance. It moves no traffic.",
    OnBreach.SHED: "In mode `enforce` it takes traffic away: the canary goes one stage down and stays there until a "
    "person raises it (`release promote`, or `release resume` where it was at the first stage); without a canary the "
    "lowest priority is refused with 503 and Retry-After. In mode `observe` or `recommend` it only says so.",
    OnBreach.ROLLBACK: "In mode `enforce` it sets the weight of a canary to 0 at once, moves the pointer back, changes "
    "the cache epoch, sends the signed webhook and opens an incident. In mode `observe` or `recommend` it only says "
    "so. Without a canary, and long after a promotion, there is nothing to go back to: it opens an incident.",
}


def is_query(command: str) -> bool:
    """PromQL, for Prometheus; everything else is for a shell."""
    return command.startswith(("sum by", "histogram_quantile"))


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
    return Runbook(meaning, tuple(computed), _look(service, rule), _DOES[slo.action], _then(rule))


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
    return Runbook(meaning, computed, _look(service, rule), _DOES[slo.action], _then(rule))


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
    if pair.severity == "ticket":
        does = "It lets no release advance. It moves no traffic."
        return Runbook(meaning, computed, _look(service, rule, back=False), does, (*_SLOW_BURN, *_then(rule)))
    return Runbook(meaning, computed, _look(service, rule), _DOES[slo.action], _then(rule))


def of_not_covered(service: str, missing: list[Rule]) -> Runbook:
    """Objectives without a limit."""
    why = [f"`{rule.slo.name}`: {rule.limit.reason}" for rule in missing]
    return Runbook(
        f"Prometheus does not watch an objective of {service}, because its limit could not be told when the rules were "
        "built. The guard itself may watch it: it reads its baseline anew.",
        ("`sft:slo_covered` is 0; it is a constant of the generated file", *(why or ["at the last build: none"])),
        (COLLECT, BUILD),
        "It judges the objective when it has a baseline, and says unknown while it has none. Unknown never rolls back.",
        ("Load the new rules into Prometheus. Until then nobody but the guard watches this objective.",),
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


def _then(rule: Rule) -> tuple[str, ...]:
    return next((then for prefix, then in _THEN.items() if rule.slo.indicator.startswith(prefix)), ())


def _look(service: str, rule: Rule, *, back: bool = True) -> tuple[tuple[str, str], ...]:
    """back: whether to go back is what the page asks for; never for what is only recorded."""
    own = f'{{service="{service}"}}'

    def p95(histogram: str) -> str:
        return f"histogram_quantile(0.95, sum by (release, le) (rate({histogram}_bucket{own}[5m])))"

    kind = {
        "sft_quality": (EXCHANGES,),
        "sft_perf": (
            ("seconds of the whole request, P95 of each release", p95("sft_perf_request_duration_seconds")),
            ("of them to the first token of a stream", p95("sft_perf_time_to_first_token_seconds")),
            ("of them for retrieval", p95("sft_perf_retrieval_duration_seconds")),
        ),
        "sft_cost": (
            ("tokens a second by type", f"sum by (release, type) (rate(sft_cost_tokens_total{own}[1h]))"),
            ("what was spent, and on whom", "sft-guard cost report --log state/exchanges"),
        ),
        "sft_availability": (
            ("how the exchanges end", f"sum by (release, outcome) (rate(sft_availability_requests_total{own}[5m]))"),
            EXCHANGES,
        ),
        "sft_cache": (CACHE,),
    }
    first = next((look for prefix, look in kind.items() if rule.slo.indicator.startswith(prefix)), (HEALTH,))
    last = (BACK,) if back and rule.slo.action is not OnBreach.TRACK else ()
    return (STATUS, *first, INCIDENTS, INCIDENT, RULES, *last)
