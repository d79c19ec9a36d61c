"""Panels that come from the objectives of slo.yaml: value against threshold, state, budget. Pure."""

from __future__ import annotations

from dataclasses import replace

from dashboards.model import RELEASE, THIRD, Panel, Query, Step, Text, series
from slo.evaluation import BURN_PAIRS
from slo.metric_names import INDICATORS
from slo.thresholds import limit_for
from slo.types import Slo
from slo.wording import show_duration, show_value

STATES = (
    (0.0, Text("ok", "正常"), "green"),
    (1.0, Text("breach", "違反"), "red"),
    (2.0, Text("unknown", "未知"), "yellow"),
)
NO_OBJECTIVE = Text(
    "Nothing is judged yet: the guard has just started, or slo.yaml has no objectives (`sft-guard slo explain`).",
    "尚未判定\uff1a守衛剛啟動\uff0c或 slo.yaml 沒有目標\uff08`sft-guard slo explain`\uff09\u3002",
)
UNKNOWN = Text(
    "A gap means unknown: too few events, no baseline, or the checks were down. `sft-guard slo explain` says which.",
    "空白代表未知\uff1a事件太少\u3001沒有基準\uff0c或檢查器不可用\u3002`sft-guard slo explain` 會說明原因\u3002",
)


def unit_of(slo: Slo) -> str:
    """Grafana's unit of an objective's value, as the guard exports it."""
    indicator = INDICATORS[slo.indicator]
    if indicator.unit == "seconds":
        return "ms"
    if indicator.unit == "usd":
        return "currencyUSD"
    return "percentunit" if indicator.kind == "ratio" else "short"


def steps_of(slo: Slo) -> tuple[Step, ...]:
    """Green and red by the rule's own limit; none when the limit is known only at run time (a baseline, say).

    Values and limits are exported in the unit of the threshold: milliseconds for latencies.
    """
    limit = limit_for(slo).value
    if limit is None:
        return ()
    indicator = INDICATORS[slo.indicator]
    at = limit * indicator.scale
    if indicator.worse == "down":
        return (Step(None, "red"), Step(at, "green"))
    return (Step(None, "green"), Step(at, "red"))


def rule_words(slo: Slo) -> Text:
    """The rule in one line, under the panel's title."""
    limit = limit_for(slo)
    shown = show_value(INDICATORS[slo.indicator], limit.value) if limit.value is not None else slo.threshold.form
    en = (
        f"{INDICATORS[slo.indicator].help}. Limit {shown}, window {show_duration(slo.window.length_s)}, "
        f"at least {slo.min_events} events, action {slo.action.value}."
    )
    zh = (
        f"指標 {slo.indicator}\uff0c門檻 {shown}\uff0c視窗 {show_duration(slo.window.length_s)}\uff0c"
        f"至少 {slo.min_events} 筆\uff0c動作 {slo.action.value}\u3002"
    )
    return Text(en, zh)


def objective_panel(slo: Slo, runbook: str = "") -> Panel:
    """Value and threshold of one objective, by release."""
    mine = f'{RELEASE},slo="{slo.name}"'
    return Panel(
        title=Text(slo.name, slo.name),
        kind="timeseries",
        queries=(
            Query(series("sft_slo_value", mine), "{{release}}"),
            Query(f"max by (slo) ({series('sft_slo_threshold', mine)})", "limit"),
        ),
        unit=unit_of(slo),
        about=rule_words(slo),
        empty=UNKNOWN,
        steps=steps_of(slo),
        width=THIRD,
        runbook=runbook,
    )


def state_panel() -> Panel:
    """All objectives over time, one lane each."""
    return Panel(
        title=Text("Objectives: state", "目標狀態"),
        kind="statetimeline",
        queries=(Query(f"max by (slo, release) ({series('sft_slo_state')})", "{{slo}} {{release}}"),),
        empty=NO_OBJECTIVE,
        names=STATES,
        width=24,
        height=9,
    )


def budget_panel() -> Panel:
    """Error budget left, by objective."""
    return Panel(
        title=Text("Error budget left", "剩餘錯誤預算"),
        kind="timeseries",
        queries=(Query(f"min by (slo, release) ({series('sft_slo_budget_remaining_ratio')})", "{{slo}} {{release}}"),),
        unit="percentunit",
        about=Text(
            "Below zero the budget of the window is overspent.",
            "低於零代表視窗內預算已超支\u3002",
        ),
        empty=UNKNOWN,
        steps=(Step(None, "red"), Step(0.0, "yellow"), Step(0.25, "green")),
    )


def burn_panel(slos: tuple[Slo, ...]) -> Panel | None:
    """How fast the availability budget burns, with the four paging and ticket factors; None without such a rule."""
    slo = next((s for s in slos if s.burn_rate and s.indicator == "sft_availability_success_rate"), None)
    limit = limit_for(slo).value if slo else None
    if limit is None:
        return None
    allowed = round(1.0 - limit, 9)
    bad = 'outcome=~"server_error|timeout|incomplete"'
    counted = 'outcome=~"ok|server_error|timeout|incomplete"'
    queries = []
    for pair in BURN_PAIRS:
        span = show_duration(pair.long_s)
        name = "sft_availability_requests_total"
        some = f"sum(increase({series(name, f'{RELEASE},{bad}')}[{span}])) or vector(0)"
        whole = f"sum(increase({series(name, f'{RELEASE},{counted}')}[{span}]))"
        queries.append(Query(f"(({some}) / {whole}) / {allowed:g}", f"{span} ({pair.severity} at {pair.factor:g} x)"))
    return Panel(
        title=Text("Burn rate of the availability budget", "可用性預算燃燒率"),
        kind="timeseries",
        queries=tuple(queries),
        about=Text(
            "1 spends the budget exactly at the end of the period. An alert needs a short window to burn as well.",
            "1 代表恰好在期末用完預算\u3002警報還需要短視窗同時超標\u3002",
        ),
        empty=Text("No exchange in the span.", "該時段沒有請求\u3002"),
        steps=(Step(None, "green"), Step(1.0, "yellow"), Step(6.0, "red")),
    )


def with_runbook(panel: Panel, runbook: str) -> Panel:
    """The panel with a link to a runbook page."""
    return replace(panel, runbook=runbook)
