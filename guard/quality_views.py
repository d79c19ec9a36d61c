"""Drift, key intents, reopens, thumbs and probes for the admin listener and the metrics page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from guard.admin.shapes import DriftRow, QualityReport

if TYPE_CHECKING:
    from guard.parts import Parts

COMPONENTS = ("query", "retrieval", "answer", "kb", "language")
_STATE = {"steady": 0.0, "learning": 0.0, "signal": 1.0, "alarm": 2.0}


def drift_rows(guard: Parts) -> tuple[DriftRow, ...]:
    """The last of each release and component. Until questions are learnt, the centroid of a window speaks for them."""
    news = guard.pipeline.drift_news if guard.pipeline is not None else {}
    rows = []
    for (release, component), said in sorted(news.items(), key=lambda item: (item[0][0], COMPONENTS.index(item[0][1]))):
        rows.append(DriftRow(release, component, said.effect, said.state, said.reason, said.clusters))
    measured = {row.release for row in rows if row.component == "query" and row.score is not None}
    for release, finding in guard.recent.drift().items():
        if release not in measured:
            state = "signal" if finding.result.value == "fail" else "steady"
            rows.append(DriftRow(release, "query", finding.score, state, f"centroid alone: {finding.reason}"))
    return tuple(rows)


def quality_report(guard: Parts) -> QualityReport:
    """Everything since the start, and the last round of probes."""
    probes = guard.probes
    return QualityReport(
        guard.quality.intent_rows(), guard.quality.user_rows(), tuple(probes.rows.values()) if probes else (),
        probes.note if probes else "no probes (checks.probes)",
    )  # fmt: skip


def quality_gauges(guard: Parts) -> Iterable[tuple[str, Mapping[str, str], float | None]]:
    """Asked for at scrape time."""
    for row in drift_rows(guard):
        labels = {"release": row.release, "component": row.component}
        yield "sft_quality_drift_score", labels, row.score
        yield "sft_quality_drift_state", labels, _STATE.get(row.state)
    for name, minimum in guard.quality.minimums.items():
        yield "sft_quality_intent_minimum_ratio", {"intent": name}, minimum
    for probe in guard.probes.rows.values() if guard.probes else ():
        labels = {"release": probe.release}
        yield "sft_quality_probe_recall_ratio", labels, probe.recall_ratio
        yield "sft_quality_probe_zero_hit_ratio", labels, probe.zero_hit_ratio
        yield "sft_quality_probe_similarity", labels, probe.similarity
