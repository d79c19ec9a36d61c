"""The dashboard *Cost*: what is spent, what a good answer costs, what the cache saves, where the month is going."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.model import FULL, RELEASE, THIRD, Board, Panel, Query, Row, Step, Text, increase, rate, series, share
from dashboards.service import FEW
from slo.types import Slo

HOURS_PER_MONTH = 730.5
NO_PRICE = Text(
    "No cost is known: the model is not in the price table (`prices:` in guard.yaml), or nothing was asked.",
    "成本未知\uff1a模型不在價目表 (guard.yaml 的 `prices:`)\uff0c或沒有請求\u3002",
)
NO_CACHE = Text("The cache is off, or nothing was asked twice.", "快取已關閉\uff0c或沒有重複的問題\u3002")
SHARE = Text(
    "Tenants and models are no metric labels (they would be unbounded): `sft-guard cost report` splits by them.",
    "租戶與模型不作為指標標籤 (數量無上限)\uff1a請用 `sft-guard cost report` 拆分\u3002",
)


def cost_board(slos: tuple[Slo, ...], runbooks: Mapping[str, str]) -> Board:
    """Build it. The budget is the one that a rule of slo.yaml names (`budget_usd`)."""
    return Board(
        "cost",
        Text("sft-guard: Cost", "sft-guard\uff1a成本"),
        (
            Row(Text("Spending", "支出"), _spending(slos)),
            Row(Text("Per answer", "每個回答"), _per_answer()),
            Row(Text("Cache", "快取"), _cache()),
        ),
    )


def budget_of(slos: tuple[Slo, ...]) -> float | None:
    """USD a month that slo.yaml names, None without such a rule."""
    rule = next((s for s in slos if "budget_usd" in s.threshold.params), None)
    return float(rule.threshold.params["budget_usd"]) if rule else None


def _spending(slos: tuple[Slo, ...]) -> tuple[Panel, ...]:
    budget = budget_of(slos)
    month = f"sum({rate('sft_cost_usd_total', span='1d')}) * {HOURS_PER_MONTH * 3600:g}"
    queries = [Query(month, "at this pace")]
    steps: tuple[Step, ...] = ()
    if budget is not None:
        queries.append(Query(f"vector({budget:g})", "budget"))
        steps = (Step(None, "green"), Step(0.8 * budget, "yellow"), Step(budget, "red"))
    return (
        Panel(Text("Spent in 24 h", "24 小時支出"), "stat",
              (Query(f"sum({increase('sft_cost_usd_total', span='1d')})"),), unit="currencyUSD",
              empty=NO_PRICE, width=6, height=8),
        Panel(Text("The month at the pace of the last day", "以最近一天推估全月"), "timeseries", tuple(queries),
              unit="currencyUSD", steps=steps, empty=NO_PRICE, width=10,
              about=Text("`sft-guard cost report --budget USD` gives the interval.",
                         "`sft-guard cost report --budget USD` 提供信賴區間\u3002")),
        Panel(Text("USD per hour by release", "各版本每小時支出"), "timeseries",
              (Query(f"sum by (release) ({rate('sft_cost_usd_total')}) * 3600", "{{release}}"),), unit="currencyUSD",
              stacked=True, empty=NO_PRICE, width=8, about=SHARE),
        Panel(Text("Tokens per second", "每秒 token 數"), "timeseries",
              (Query(f"sum by (type) ({rate('sft_cost_tokens_total')})", "{{type}}"),), stacked=True, empty=NO_PRICE,
              width=FULL),
    )  # fmt: skip


def _per_answer() -> tuple[Panel, ...]:
    ok = f'{RELEASE},outcome="ok"'
    failed = f'{RELEASE},check="grounding",result="fail"'
    good = (
        f"sum by (release) ({increase('sft_availability_requests_total', ok)}) - "
        f"(sum by (release) ({increase('sft_quality_checks_total', failed)}) or "
        f"sum by (release) ({increase('sft_availability_requests_total', ok)}) * 0)"
    )
    return (
        Panel(Text("Cost per request", "每次請求成本"), "timeseries",
              (Query(series("sft_cost_inference_per_request_usd"), "{{release}}"),), unit="currencyUSD", empty=FEW),
        Panel(Text("Cost per good answer", "每個好回答的成本"), "timeseries",
              (Query(f"sum by (release) ({increase('sft_cost_usd_total')}) / ({good})", "{{release}}"),),
              unit="currencyUSD", empty=NO_PRICE,
              about=Text("Good: ended ok and was not found to lack support. A cheap model that invents is dear here.",
                         "好回答\uff1a成功結束且未被判定缺乏依據\u3002會捏造的便宜模型在此會變貴\u3002")),
    )  # fmt: skip


def _cache() -> tuple[Panel, ...]:
    lookups, requests = "sft_cache_lookups_total", "sft_availability_requests_total"
    hits = f'{RELEASE},result="hit"'
    served, paid = f'{RELEASE},cache="hit"', f'{RELEASE},cache!="hit"'
    each = f"sum by (release) ({increase('sft_cost_usd_total')}) / sum by (release) ({increase(requests, paid)})"
    return (
        Panel(Text("Hit ratio by release", "各版本命中率"), "timeseries",
              (Query(share(rate(lookups, hits), rate(lookups), "release"), "{{release}}"),),
              unit="percentunit", empty=NO_CACHE, steps=(Step(None, "yellow"), Step(0.6, "green")), width=THIRD),
        Panel(Text("Lookups", "快取查詢"), "timeseries",
              (Query(f"sum by (result) ({rate(lookups)})", "{{result}}"),), unit="reqps", stacked=True, empty=NO_CACHE,
              width=THIRD),
        Panel(Text("Saved by the cache per hour", "快取每小時節省"), "timeseries",
              (Query(f"({each}) * sum by (release) ({increase(requests, served)})", "{{release}}"),),
              unit="currencyUSD", empty=NO_CACHE, width=THIRD,
              about=Text("Hits times the cost of an answer that was generated.", "命中次數乘以生成回答的成本\u3002")),
    )  # fmt: skip
