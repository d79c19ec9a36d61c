"""The dashboard *Service*: the four classes, the objectives, the guard itself."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.model import (
    HALF,
    QUARTER,
    RELEASE,
    SERVICE,
    THIRD,
    Board,
    Panel,
    Query,
    Row,
    Step,
    Text,
    increase,
    quantile,
    rate,
    series,
    share,
)
from dashboards.objectives import budget_panel, burn_panel, objective_panel, state_panel, steps_of, unit_of
from slo.metric_names import INDICATORS
from slo.types import Slo

NO_TRAFFIC = Text(
    "No traffic in the window: send a question to the data listener.",
    "視窗內沒有流量\uff1a請先送一個問題到資料端口\u3002",
)
NO_RETRIEVAL = Text(
    "Nothing was retrieved, or the contexts of the answers are not known.",
    "沒有檢索\uff0c或不知道回答的依據\u3002",
)
QUIET = Text("None since the start: that is good.", "啟動後沒有發生\uff0c這是好事\u3002")

_NOW = (
    ("sft_availability_success_rate", Text("Success rate", "成功率"), "percentunit"),
    ("sft_perf_latency_p95_ms", Text("P95 latency", "P95 延遲"), "ms"),
    ("sft_quality_hallucination_rate", Text("Hallucination rate", "幻覺率"), "percentunit"),
    ("sft_cost_inference_per_request_usd", Text("Cost per request", "每次請求成本"), "currencyUSD"),
)
FEW = Text(
    "Unknown until 20 events are in the window: absent, never zero.",
    "視窗內滿 20 筆之前為未知\uff1a不顯示\uff0c絕不以零代替\u3002",
)


def service_board(slos: tuple[Slo, ...], runbooks: Mapping[str, str]) -> Board:
    """Build it. runbooks: objective name -> page of its alert."""
    burn = burn_panel(slos)
    panels = [objective_panel(slo, runbooks.get(slo.name, "")) for slo in slos]
    return Board(
        "service",
        Text("sft-guard: Service", "sft-guard\uff1a服務"),
        (
            Row(Text("Now", "現況"), (*(_now(name, title, unit, slos) for name, title, unit in _NOW), _rate())),
            Row(Text("Objectives", "目標"), (state_panel(), budget_panel(), *((burn,) if burn else ()), *panels)),
            Row(Text("Availability", "可用性"), _availability()),
            Row(Text("Performance", "效能"), _performance()),
            Row(Text("The guard itself", "守衛本身"), _guard()),
        ),
    )


def _now(name: str, title: Text, unit: str, slos: tuple[Slo, ...]) -> Panel:
    rule = next((s for s in slos if s.indicator == name and not s.routes), None)
    worst = "min" if INDICATORS[name].worse == "down" else "max"
    return Panel(
        title=title, kind="stat", queries=(Query(f"{worst}({series(name)})"),),
        unit=unit_of(rule) if rule else unit, empty=FEW, steps=steps_of(rule) if rule else (), width=5, height=5,
    )  # fmt: skip


def _rate() -> Panel:
    return Panel(
        Text("Requests per second", "每秒請求數"), "stat",
        (Query(f"sum({rate('sft_availability_requests_total')})"),), unit="reqps", empty=NO_TRAFFIC, width=4, height=5,
    )  # fmt: skip


def _availability() -> tuple[Panel, ...]:
    name = "sft_availability_requests_total"
    bad = f'{RELEASE},outcome=~"server_error|timeout|incomplete"'
    counted = f'{RELEASE},outcome=~"ok|server_error|timeout|incomplete"'
    return (
        Panel(
            Text("Requests by outcome", "依結果分的請求"), "timeseries",
            (Query(f"sum by (outcome) ({rate(name)})", "{{outcome}}"),), unit="reqps", empty=NO_TRAFFIC, stacked=True,
        ),
        Panel(
            Text("Failed share by release", "各版本失敗比例"), "timeseries",
            (Query(share(rate(name, bad), rate(name, counted), "release"), "{{release}}"),),
            unit="percentunit",
            about=Text("5xx, timeouts and broken streams of all that succeeded or failed. 4xx and 429 are not held "
                       "against a release.", "5xx\u3001逾時與中斷的串流\u3002呼叫端的 4xx 與 429 不計入版本\u3002"),
            empty=QUIET,
        ),
        Panel(
            Text("Throttled by the upstream (429)", "上游限流 (429)"), "timeseries",
            (Query(f"sum by (release) ({rate('sft_availability_throttled_total')})", "{{release}}"),), unit="reqps",
            empty=QUIET,
        ),
    )  # fmt: skip


def _performance() -> tuple[Panel, ...]:
    duration = "sft_perf_request_duration_seconds"
    generated = f'{RELEASE},cache!="hit"'
    return (
        Panel(
            Text("Latency of generated answers", "生成回答的延遲"), "timeseries",
            tuple(Query(quantile(q, duration, "release", generated), f"p{q * 100:g} {{{{release}}}}", exemplars=True)
                  for q in (0.5, 0.95, 0.99)),
            unit="s",
            about=Text("Interpolated between bounds; the rules count requests over the limit instead. Dots are traces.",
                       "由直方圖內插\uff1b規則以超過門檻的請求數判定\u3002圓點為追蹤\u3002"),
            empty=NO_TRAFFIC,
        ),
        Panel(
            Text("Time to first token", "首個 token 時間"), "timeseries",
            (Query(quantile(0.95, "sft_perf_time_to_first_token_seconds", "release"), "p95 {{release}}"),), unit="s",
            empty=Text("Only streams have it; none in the window.", "僅串流有此值\uff0c視窗內沒有串流\u3002"),
        ),
        Panel(
            Text("Retrieval time", "檢索時間"), "timeseries",
            (Query(quantile(0.95, "sft_perf_retrieval_duration_seconds", "release"), "p95 {{release}}"),), unit="s",
            empty=Text("The answer path does not report it: see `contexts.retrieval_s` in guard.yaml.",
                       "回答路徑未回報\uff1a見 guard.yaml 的 `contexts.retrieval_s`\u3002"),
        ),
        Panel(
            Text("The guard's own share", "守衛自身的耗時"), "timeseries",
            (Query(quantile(0.99, "sft_perf_overhead_seconds", "phase", SERVICE), "p99 {{phase}}"),), unit="s",
            empty=NO_TRAFFIC,
        ),
    )  # fmt: skip


def _guard() -> tuple[Panel, ...]:
    low = (Step(None, "red"), Step(0.5, "yellow"), Step(0.9, "green"))
    return (
        Panel(Text("Check coverage", "檢查涵蓋率"), "stat",
              (Query(f"min({series('sft_guard_check_coverage_ratio', SERVICE)})"),), unit="percentunit",
              steps=low, width=QUARTER, height=5,
              empty=Text("Checks are off (`checks.enabled`).", "檢查已關閉 (`checks.enabled`)\u3002")),
        Panel(Text("Answers waiting for the checks", "等待檢查的回答"), "stat",
              (Query(f"sum({series('sft_guard_check_queue_length', SERVICE)})"),), width=QUARTER, height=5,
              empty=Text("Checks are off (`checks.enabled`).", "檢查已關閉 (`checks.enabled`)\u3002")),
        Panel(Text("Worst delay of the event loop", "事件迴圈最大延遲"), "stat",
              (Query(f"max({series('sft_guard_loop_lag_seconds', SERVICE)})"),), unit="s", width=QUARTER, height=5,
              steps=(Step(None, "green"), Step(0.1, "red")),
              about=Text("Above 100 ms nothing is judged: we are sick, not the release.",
                         "超過 100 ms 時不做判定\uff1a是守衛生病\uff0c不是版本\u3002")),
        Panel(Text("Last reload", "最近一次重新載入"), "stat",
              (Query(f"min({series('sft_guard_config_last_reload_success', SERVICE)})"),), width=QUARTER, height=5,
              names=((1.0, Text("accepted", "已接受"), "green"), (0.0, Text("refused", "已拒絕"), "red"))),
        Panel(Text("Answers past a broken dependency", "繞過故障相依的回答"), "timeseries",
              (Query(f"sum by (dep, reason) ({increase('sft_guard_failopen_total', SERVICE)}) > 0",
                     "{{dep}} {{reason}}"),),
              empty=QUIET, width=THIRD),
        Panel(Text("Dropped", "丟棄"), "timeseries",
              (Query(f"sum by (reason) ({increase('sft_guard_checks_dropped_total', SERVICE)}) > 0",
                     "checks {{reason}}"),
               Query(f"sum by (reason) ({increase('sft_guard_log_dropped_total', SERVICE)})", "log {{reason}}"),
               Query(f"sum by (reason) ({increase('sft_guard_spans_dropped_total', SERVICE)})", "spans {{reason}}"),
               Query(f"sum({increase('sft_guard_series_dropped_total', SERVICE)})", "series")),
              empty=QUIET, width=THIRD),
        Panel(Text("Webhooks", "Webhook 送達"), "timeseries",
              (Query(f"sum by (result) ({increase('sft_guard_webhook_deliveries_total', SERVICE)}) > 0",
                     "{{result}}"),),
              empty=Text("No webhook was due.", "沒有需要送出的 webhook\u3002"), width=THIRD),
        Panel(Text("Connections", "連線數"), "timeseries",
              (Query(f"sum by (side) ({series('sft_guard_connections', SERVICE)})", "{{side}}"),), width=HALF),
        Panel(Text("Running configuration", "執行中的設定"), "table",
              (Query(f"max by (hash) ({series('sft_guard_config_info', SERVICE)})"),), width=HALF),
    )  # fmt: skip
