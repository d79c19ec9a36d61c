"""Whether to fine-tune at all, and what must be in place before: the practice's decision and its checklist. Pure.

What the system knows about itself is filled in by whoever calls; everything else is asked of a person. `None` is "not
known", never "no".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RECALL_ENOUGH, QUALITY_ENOUGH = 0.85, 0.85
MIN_EVALUATION_ROWS = 100
MAX_MTTR_S = 300.0
MIN_STAGES, MAX_STAGES = 2, 5
MIN_FTE = 0.3


class Level(StrEnum):
    """How much an item of the checklist weighs."""

    MUST = "must"
    SHOULD = "should"
    BONUS = "bonus"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. None: ask. Ratios 0..1, seconds.

    recall_ratio: recall@3 after chunking and embedding were mended. quality_ratio: key-intent quality.
    watched: which of hallucination, latency and cost have an objective.
    """

    recall_ratio: float | None = None
    quality_ratio: float | None = None
    evaluation_rows: int | None = None
    drill_mttr_s: float | None = None
    lineage: bool | None = None
    privacy_reviewed: bool | None = None
    stage_count: int | None = None
    watched: tuple[str, ...] | None = None
    cost_per_tenant: bool | None = None
    fte: float | None = None
    pii_masked: bool | None = None
    red_team: bool | None = None
    pipeline_as_code: bool | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist. met None: not known; `then` says how to find out or what to do."""

    level: Level
    what: str
    met: bool | None
    evidence: str
    then: str


@dataclass(frozen=True, slots=True)
class Advice:
    """fine_tune: no | ready | not_ready | unknown. open_musts: musts that are not met or not known."""

    fine_tune: str
    reason: str
    checklist: tuple[Item, ...]

    @property
    def open_musts(self) -> tuple[Item, ...]:
        return tuple(item for item in self.checklist if item.level is Level.MUST and not item.met)


def advise(facts: Facts) -> Advice:
    """Walk the decision: mend retrieval first, then the checklist's musts.

    >>> advise(Facts(recall_ratio=0.9)).fine_tune
    'no'
    """
    checklist = _checklist(facts)
    if facts.recall_ratio is not None and facts.recall_ratio >= RECALL_ENOUGH:
        return Advice(
            "no", f"recall is {facts.recall_ratio:.0%}, {RECALL_ENOUGH:.0%} is enough: retrieval answers", checklist
        )
    if facts.quality_ratio is not None and facts.quality_ratio >= QUALITY_ENOUGH:
        return Advice("no", f"quality is {facts.quality_ratio:.0%}, {QUALITY_ENOUGH:.0%} is enough", checklist)
    if facts.recall_ratio is None or facts.quality_ratio is None:
        missing = [n for n, v in (("--recall", facts.recall_ratio), ("--quality", facts.quality_ratio)) if v is None]
        why = f"measure recall and quality after chunking and embedding were mended, and give {' and '.join(missing)}"
        return Advice("unknown", why, checklist)
    weak = f"recall {facts.recall_ratio:.0%} and quality {facts.quality_ratio:.0%} are both below {RECALL_ENOUGH:.0%}"
    advice = Advice("ready", f"{weak}, and every must of the checklist is met", checklist)
    if advice.open_musts:
        first = "; ".join(item.what for item in advice.open_musts)
        return Advice("not_ready", f"{weak}, but first: {first}", checklist)
    return advice


def _checklist(f: Facts) -> tuple[Item, ...]:
    rows, mttr, stages = f.evaluation_rows, f.drill_mttr_s, f.stage_count
    watched = None if f.watched is None else {"hallucination", "latency", "cost"} <= set(f.watched)
    return (
        Item(Level.MUST, f"evaluation set of at least {MIN_EVALUATION_ROWS} samples with automatic metrics",
             None if rows is None else rows >= MIN_EVALUATION_ROWS, "" if rows is None else f"{rows} samples",
             "give --evaluation-set FILE (JSON lines)"),
        Item(Level.MUST, "rollback within 5 minutes, rehearsed",
             None if mttr is None else mttr <= MAX_MTTR_S, "" if mttr is None else f"last drill took {mttr:.1f} s",
             "run `sft-guard release drill` against the running guard"),
        Item(Level.MUST, "registry with traceability of every version", f.lineage, "",
             "describe every version in guard.yaml (model, kb, prompt, details) and keep the registry"),
        Item(Level.MUST, "privacy and compliance reviewed", f.privacy_reviewed, "",
             "ask whoever answers for it, then give --privacy-reviewed"),
        Item(Level.SHOULD, f"canary or blue-green in {MIN_STAGES}-{MAX_STAGES} stages",
             None if stages is None else MIN_STAGES <= stages <= MAX_STAGES,
             "" if stages is None else f"{stages} stages in the plan", "set release.plan in guard.yaml"),
        Item(Level.SHOULD, "hallucination, latency and cost are watched", watched,
             "" if f.watched is None else f"objectives for {', '.join(f.watched) or 'none of them'}",
             "add the missing objectives to slo.yaml"),
        Item(Level.SHOULD, "cost per request, model and tenant", f.cost_per_tenant, "",
             "keep the exchange log on, and send x-guard-tenant"),
        Item(Level.SHOULD, f"at least {MIN_FTE:g} of a person, with a runbook",
             None if f.fte is None else f.fte >= MIN_FTE, "" if f.fte is None else f"{f.fte:g} FTE", "give --fte"),
        Item(Level.BONUS, "PII masked, and deletion possible", f.pii_masked, "",
             "checks.pii: true and exchange_log.text: redacted or none in guard.yaml"),
        Item(Level.BONUS, "red team", f.red_team, "", "give --red-team when it was done"),
        Item(Level.BONUS, "pipeline as code", f.pipeline_as_code, "", "give --pipeline-as-code when it is"),
    )  # fmt: skip
