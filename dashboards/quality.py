"""The dashboard *Quality*: what the checks say, drift by component, what users say."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.model import HALF, RELEASE, THIRD, Board, Panel, Query, Row, Step, Text, increase, rate, series, share
from dashboards.objectives import steps_of
from dashboards.service import FEW, NO_RETRIEVAL
from slo.types import Slo

OF_SERVICE = 'service="$service"'
NO_CHECKS = Text(
    "Nothing was checked: checks are off, or the contexts of the answers are not known (`routes.contexts`).",
    "沒有可檢查的回答\uff1a檢查已關閉\uff0c或不知道回答的依據 (`routes.contexts`)\u3002",
)


def quality_board(slos: tuple[Slo, ...], runbooks: Mapping[str, str]) -> Board:
    """Build it."""
    return Board(
        "quality",
        Text("sft-guard: Quality", "sft-guard\uff1a品質"),
        (
            Row(Text("Answers", "回答"), _answers(slos, runbooks)),
            Row(Text("Checks", "檢查"), _checks()),
            Row(Text("Drift and retrieval", "漂移與檢索"), _drift()),
            Row(Text("Key intents and probes", "關鍵意圖與探測"), _intents()),
            Row(Text("What users say", "使用者回饋"), _users()),
        ),
    )


def _answers(slos: tuple[Slo, ...], runbooks: Mapping[str, str]) -> tuple[Panel, ...]:
    def steps(indicator: str) -> tuple[Step, ...]:
        rule = next((s for s in slos if s.indicator == indicator and not s.routes), None)
        return steps_of(rule) if rule else ()

    def page(indicator: str) -> str:
        return next((runbooks.get(s.name, "") for s in slos if s.indicator == indicator), "")

    hallucination, similarity = "sft_quality_hallucination_rate", "sft_quality_similarity_score"
    return (
        Panel(Text("Hallucination rate", "幻覺率"), "timeseries", (Query(series(hallucination), "{{release}}"),),
              unit="percentunit", empty=FEW, steps=steps(hallucination), runbook=page(hallucination)),
        Panel(Text("Answer similarity", "回答相似度"), "timeseries", (Query(series(similarity), "{{release}}"),),
              empty=FEW, steps=steps(similarity), runbook=page(similarity)),
    )  # fmt: skip


def _checks() -> tuple[Panel, ...]:
    name = "sft_quality_checks_total"
    failed = f'{RELEASE},result="fail"'
    judged = f'{RELEASE},result=~"pass|fail"'
    blind = f'{RELEASE},result=~"unavailable|skipped"'
    grounding = f'{RELEASE},check="grounding"'
    return (
        Panel(Text("Failed share by check", "各檢查的失敗比例"), "timeseries",
              (Query(share(rate(name, failed), rate(name, judged), "check"), "{{check}}"),),
              unit="percentunit", empty=NO_CHECKS),
        Panel(Text("Could not look", "無法檢查"), "timeseries",
              (Query(f"sum by (check, result) ({rate(name, blind)})",
                     "{{check}} {{result}}"),),
              unit="reqps", stacked=True,
              about=Text("Unavailable: the detector is down. Skipped: there was nothing to look at. Neither is a pass.",
                         "unavailable 代表偵測器故障\uff0cskipped 代表沒有可檢查的內容\uff0c兩者都不算通過\u3002"),
              empty=Text("Every answer could be checked.", "每個回答都能檢查\u3002")),
        Panel(Text("Refused questions", "被拒絕的問題"), "timeseries",
              (Query(f"sum by (check) ({increase('sft_guard_blocked_total', OF_SERVICE)})", "{{check}}"),),
              empty=Text("No question was refused (`checks.safety`, mode `enforce`).",
                         "沒有問題被拒絕 (`checks.safety`\uff0c模式 `enforce`)\u3002")),
        Panel(Text("Grounding score", "依據分數分布"), "heatmap",
              (Query(f"sum by (le) ({increase('sft_quality_score', grounding, '_bucket', '5m')})"),),
              empty=NO_CHECKS, width=HALF),
        Panel(Text("Mean score by check", "各檢查的平均分數"), "timeseries",
              (Query(f"sum by (check) ({rate('sft_quality_score', suffix='_sum')}) / "
                     f"sum by (check) ({rate('sft_quality_score', suffix='_count')})", "{{check}}"),),
              empty=NO_CHECKS, width=HALF),
    )  # fmt: skip


def _drift() -> tuple[Panel, ...]:
    retrievals = "sft_quality_retrievals_total"
    found = f'{RELEASE},result=~"hit|zero_hit"'
    nothing = f'{RELEASE},result="zero_hit"'
    return (
        Panel(Text("Drift by component", "各元件漂移"), "timeseries",
              (Query(series("sft_quality_drift_score"), "{{component}} {{release}}"),),
              empty=Text("Needs a window of questions (200 by default) and an embedder (`checks.embedder`).",
                         "需要一個視窗的問題 (預設 200) 與嵌入模型 (`checks.embedder`)\u3002")),
        Panel(Text("Retrievals", "檢索結果"), "timeseries",
              (Query(f"sum by (result) ({rate(retrievals)})", "{{result}}"),), unit="reqps", stacked=True,
              empty=NO_CHECKS, width=THIRD - 2),
        Panel(Text("Nothing found", "檢索落空比例"), "timeseries",
              (Query(share(rate(retrievals, nothing), rate(retrievals, found), "release"), "{{release}}"),),
              unit="percentunit", empty=NO_RETRIEVAL, width=THIRD - 2),
    )  # fmt: skip


def _intents() -> tuple[Panel, ...]:
    name = "sft_quality_intent_answers_total"
    good, judged = f'{RELEASE},result="good"', f'{RELEASE},result=~"good|bad"'
    none = Text(
        "No key intent was asked, or none is configured (`checks.intents`).",
        "沒有人問到關鍵意圖\uff0c或尚未設定 (`checks.intents`)\u3002",
    )
    probes = Text(
        "No probes (`checks.probes`), or their contexts are not known.",
        "沒有探測問題 (`checks.probes`)\uff0c或不知道回答的依據\u3002",
    )
    return (
        Panel(Text("Good answers by key intent", "各關鍵意圖的良好比例"), "timeseries",
              (Query(share(rate(name, good), rate(name, judged), "intent"), "{{intent}}"),),
              unit="percentunit", steps=(Step(None, "red"), Step(0.85, "green")), empty=none, width=HALF),
        Panel(Text("Answers to key intents", "關鍵意圖的回答"), "timeseries",
              (Query(f"sum by (intent, result) ({increase(name)})", "{{intent}} {{result}}"),), stacked=True,
              empty=none, width=HALF),
        Panel(Text("Recall of probes", "探測問題的召回率"), "timeseries",
              (Query(series("sft_quality_probe_recall_ratio"), "{{release}}"),), unit="percentunit", empty=probes,
              width=HALF),
        Panel(Text("Similarity of probes", "探測問題的相似度"), "timeseries",
              (Query(series("sft_quality_probe_similarity"), "{{release}}"),), unit="percentunit", empty=probes,
              width=HALF),
    )  # fmt: skip


def _users() -> tuple[Panel, ...]:
    thumbs = "sft_quality_feedback_total"
    up = f'{RELEASE},thumb="up"'
    return (
        Panel(Text("Thumbs up in 24 h", "24 小時好評比例"), "stat",
              (Query(f"sum({increase(thumbs, up, span='1d')}) / (sum({increase(thumbs, span='1d')}) > 0)"),),
              unit="percentunit", steps=(Step(None, "red"), Step(0.8, "green")), width=6, height=8,
              empty=Text("No thumb yet: `POST /guard/v1/feedback` on the data listener.",
                         "尚無回饋\uff1a`POST /guard/v1/feedback`\u3002")),
        Panel(Text("Thumbs", "回饋"), "timeseries",
              (Query(f"sum by (release, thumb) ({increase(thumbs)}) > 0", "{{thumb}} {{release}}"),), width=10,
              empty=Text("No thumb yet: `POST /guard/v1/feedback` on the data listener.",
                         "尚無回饋\uff1a`POST /guard/v1/feedback`\u3002")),
        Panel(Text("Asked again within 24 h", "24 小時內重問"), "timeseries",
              (Query(f"sum by (release) ({increase('sft_quality_reopens_total')})", "{{release}}"),), width=THIRD,
              empty=Text("No question was asked again, or it is not measured.", "沒有重問\uff0c或尚未量測\u3002")),
    )  # fmt: skip
