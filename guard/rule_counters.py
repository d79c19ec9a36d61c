"""What Prometheus needs to reach the sidecar's verdicts by itself: counters per objective, and the guard's own state.

Zeros are shown from the start: a series that begins at 30 hides its first 30 events from whoever subtracts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from guard.release.state import Condition, Phase, ReleaseState
from slo.metric_names import INDICATORS
from slo.series import has_unjudged
from slo.sources.memory import MemorySource
from slo.types import Slo

GaugeRow = tuple[str, Mapping[str, str], float | None]


def objective_rows(slos: Iterable[Slo], releases: Iterable[str], memory: MemorySource) -> Iterator[GaugeRow]:
    """Counters of every objective and release, those of the first releases first: a full scrape drops the last."""
    every = tuple(slos)
    for release in dict.fromkeys(releases):
        life = life_of(release, memory)
        for slo in every:
            labels = {"release": release, "slo": slo.name, "life": life}
            tally = memory.tally(slo, release)
            yield "sft_slo_events_total", labels, tally.count
            if INDICATORS[slo.indicator].kind == "mean":
                yield "sft_slo_values_total", labels, tally.value_sum
                yield "sft_slo_value_squares_total", labels, tally.value_sq_sum
            else:
                yield "sft_slo_bad_events_total", labels, tally.bad
            if has_unjudged(slo):
                yield "sft_slo_unjudged_events_total", labels, tally.unjudged


def life_of(release: str, memory: MemorySource) -> str:
    """Label `life`: empty, and so absent, until a release is started again."""
    return str(memory.lives.numbers.get(release) or "")


def state_rows(state: ReleaseState, rollbacks: Mapping[str, float]) -> Iterator[GaugeRow]:
    """Phase and standing conditions; `rollbacks`: release -> Unix seconds of its last rollback."""
    for phase in Phase:
        yield "sft_release_phase", {"phase": phase.value}, float(phase is state.phase)
    for condition in Condition:
        yield "sft_release_condition", {"condition": condition.value}, float(condition in state.conditions)
    for release, wall_s in rollbacks.items():
        yield "sft_release_last_rollback_timestamp_seconds", {"release": release}, wall_s


def guard_rows(guard: Any) -> Iterator[GaugeRow]:
    """Whether the guard can do its work. guard: a `guard.parts.Parts`."""
    last = guard.judge.last
    for release in {judged.verdict.release for judged in last.judged} if last else ():
        yield "sft_release_judged", {"release": release, "life": life_of(release, guard.memory)}, 1.0
    yield "sft_guard_last_evaluation_timestamp_seconds", {}, last.wall_s if last else None
    baseline = guard.rules.baseline
    yield "sft_guard_baseline_expiry_timestamp_seconds", {}, baseline.expires_wall_s if baseline else None
    yield "sft_guard_outbox_waiting", {}, float(guard.outbox.waiting_count)
    yield "sft_guard_webhooks_disabled", {}, float(len(guard.outbox.disabled))
    if guard.pipeline is not None:
        stats = guard.pipeline.stats()
        yield "sft_guard_checks_available", {}, float(stats.worker_alive and not stats.problem)
