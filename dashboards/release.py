"""The dashboard *Release*: canary beside stable, verdict, evidence, what the releases are made of."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.model import (
    FULL,
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
from dashboards.objectives import NO_OBJECTIVE, STATES, UNKNOWN
from dashboards.service import FEW, NO_RETRIEVAL, NO_TRAFFIC
from slo.metric_names import METRICS
from slo.types import Slo

NO_CANARY = Text(
    "No canary is in traffic: `sft-guard release start VERSION`.",
    "目前沒有金絲雀版本\uff1a`sft-guard release start VERSION`\u3002",
)


def release_board(slos: tuple[Slo, ...], runbooks: Mapping[str, str]) -> Board:
    """Build it."""
    return Board(
        "release",
        Text("sft-guard: Release", "sft-guard\uff1a版本發布"),
        (
            Row(Text("Who answers", "誰在回答"), _traffic()),
            Row(Text("Verdict", "判定"), _verdict(slos)),
            Row(Text("Canary beside stable", "金絲雀與穩定版對照"), _beside()),
        ),
    )


def _traffic() -> tuple[Panel, ...]:
    return (
        Panel(Text("Share of the sessions", "工作階段占比"), "timeseries",
              (Query(f"max by (release, arm) ({series('sft_release_weight')})", "{{arm}} {{release}}"),),
              unit="percentunit", stacked=True, lowest=0.0, highest=1.0, empty=NO_CANARY),
        Panel(Text("Rollbacks", "回滾次數"), "stat",
              (Query(f"sum by (reason) ({series('sft_release_rollbacks_total', SERVICE)}) > 0", "{{reason}}"),),
              steps=(Step(None, "green"), Step(1.0, "red")),
              empty=Text("None since the guard started.", "啟動後沒有回滾\u3002"), width=6, height=8),
        Panel(Text("Rollbacks in 24 h", "24 小時內回滾"), "stat",
              (Query(f"sum({increase('sft_release_rollbacks_total', SERVICE, span='1d')})"),),
              steps=(Step(None, "green"), Step(1.0, "yellow"), Step(3.0, "red")),
              about=Text("After three automatic ones in a day the guard holds and pages.",
                         "一天內三次自動回滾後\uff0c守衛只會暫停並呼叫人員\u3002"),
              empty=Text("None.", "沒有\u3002"), width=6, height=8),
        Panel(Text("What each release is made of", "各版本的組成"), "table",
              (Query(f"max by (release, name, model, adapter, kb, prompt, policy) ({series('sft_release_info')})"),),
              width=FULL, height=6),
    )  # fmt: skip


def _verdict(slos: tuple[Slo, ...]) -> tuple[Panel, ...]:
    acting = "|".join(slo.name for slo in slos if slo.action.value in ("rollback", "shed", "page"))
    mine = f'{RELEASE},slo=~"{acting}"'
    panels = [
        Panel(Text("Objectives that may act", "會觸發動作的目標"), "statetimeline",
              (Query(f"max by (slo, release) ({series('sft_slo_state', mine)})",
                     "{{slo}} {{release}}"),),
              names=STATES, empty=NO_OBJECTIVE, width=FULL, height=9),
    ]  # fmt: skip
    if "sft_release_comparison_state" in METRICS:
        panels += _comparison()
    return tuple(panels)


def _comparison() -> list[Panel]:
    names = (
        (0.0, Text("pass", "通過"), "green"), (1.0, Text("fail", "失敗"), "red"),
        (2.0, Text("inconclusive", "尚無定論"), "yellow"), (3.0, Text("unknown", "未知"), "text"),
    )  # fmt: skip
    return [
        Panel(Text("Canary beside the concurrent stable", "金絲雀與同時段穩定版"), "statetimeline",
              (Query(f"max by (slo) ({series('sft_release_comparison_state')})", "{{slo}}"),), names=names,
              empty=NO_CANARY),
        Panel(Text("Evidence against the canary", "對金絲雀不利的證據"), "timeseries",
              (Query(f"max by (slo) ({series('sft_release_evidence_ratio')})", "{{slo}}"),),
              about=Text("log e-value over the log of the value at which the canary fails: 1 is a fail.",
                         "e 值的對數除以失敗門檻的對數\uff1a達到 1 即失敗\u3002"),
              steps=(Step(None, "green"), Step(0.5, "yellow"), Step(1.0, "red")), empty=NO_CANARY),
    ]  # fmt: skip


def _beside() -> tuple[Panel, ...]:
    duration, requests = "sft_perf_request_duration_seconds", "sft_availability_requests_total"
    bad = f'{RELEASE},outcome=~"server_error|timeout|incomplete"'
    found = f'{RELEASE},result=~"hit|zero_hit"'
    generated = f'{RELEASE},cache!="hit"'
    retrievals = "sft_quality_retrievals_total"
    nothing = f'{RELEASE},result="zero_hit"'
    return (
        Panel(Text("Hallucination rate", "幻覺率"), "timeseries",
              (Query(series("sft_quality_hallucination_rate"), "{{release}}"),), unit="percentunit", empty=FEW,
              width=THIRD),
        Panel(Text("Similarity", "相似度"), "timeseries",
              (Query(series("sft_quality_similarity_score"), "{{release}}"),), empty=FEW, width=THIRD),
        Panel(Text("Nothing found", "檢索落空比例"), "timeseries",
              (Query(share(rate(retrievals, nothing), rate(retrievals, found), "release"), "{{release}}"),),
              unit="percentunit", empty=NO_RETRIEVAL, width=THIRD),
        Panel(Text("P95 latency", "P95 延遲"), "timeseries",
              (Query(quantile(0.95, duration, "release", generated), "{{release}}", exemplars=True),),
              unit="s", empty=NO_TRAFFIC, width=THIRD),
        Panel(Text("Failed share", "失敗比例"), "timeseries",
              (Query(share(rate(requests, bad), rate(requests), "release"), "{{release}}"),),
              unit="percentunit", empty=NO_TRAFFIC, width=THIRD),
        Panel(Text("Cost per request", "每次請求成本"), "timeseries",
              (Query(series("sft_cost_inference_per_request_usd"), "{{release}}"),), unit="currencyUSD", empty=FEW,
              width=THIRD),
        Panel(Text("Budget left of each objective", "各目標剩餘預算"), "timeseries",
              (Query(series("sft_slo_budget_remaining_ratio"), "{{slo}} {{release}}"),), unit="percentunit",
              empty=UNKNOWN, width=FULL),
    )  # fmt: skip
