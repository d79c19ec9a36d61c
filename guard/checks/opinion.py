"""What the slower detectors have in common: they are asked without waiting and answer later, or not at all.

    worker -- ask(ticket, ...) --> detector process | judge threads
           <-- collect() -- (ticket, Opinion) --

A detector that is busy, loading, over its budget or broken says so at once; the findings of the tiers before it stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from guard.checks.pii import excerpt
from slo.types import CheckResult, Finding

EVIDENCE_COUNT = 5
EVIDENCE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. language: en | zh. unsure: the tiers before are not sure, so it is worth an expensive answer."""

    language: str
    question: str
    answer: str
    claims: tuple[str, ...]
    contexts: tuple[str, ...]
    unsure: bool = True


@dataclass(frozen=True, slots=True)
class Opinion:
    """probabilities: of being unsupported, one per claim; empty when it did not look: `skipped` says it did not have
    to, `problem` that it could not. cost_usd: what asking cost, also when the answer was useless."""

    probabilities: tuple[float, ...] = ()
    skipped: str = ""
    problem: str = ""
    cost_usd: float = 0.0


class Detector(Protocol):
    """One slower detector of the worker."""

    check: str
    threshold: float

    @property
    def name(self) -> str:
        """Name and fingerprint, for `Finding.detector`."""

    @property
    def problem(self) -> str:
        """Why it may not be believed now, "" when it may."""

    def filenos(self) -> Sequence[int]:
        """What to wait on for `collect`."""

    def ask(self, ticket: int, asked: Question) -> Opinion | None:
        """None: under way, `collect` will have it. Never blocks, never raises."""

    def collect(self) -> list[tuple[int, Opinion]]:
        """What was answered or given up since. Never blocks, never raises."""

    def look(self, *, retest: bool = False) -> None:
        """Heartbeat: files, timeouts, restarts; retest: run the golden pairs again."""

    def close(self) -> None:
        """Stop what was started."""


@dataclass(slots=True)
class Asked:
    """One answer that waits for opinions. waiting: checks that have not said anything yet."""

    asked: Question
    waiting: set[str] = field(default_factory=set)
    said: dict[str, Opinion] = field(default_factory=dict)


def finding_of(check: str, opinion: Opinion, claims: Sequence[str], threshold: float, name: str) -> Finding:
    """An opinion as a finding; `score` is the support of the worst claim.

    >>> finding_of("detector", Opinion((0.1, 0.75)), ("a", "b"), 0.5, "nli:m").evidence
    ('b [75% unsupported]',)
    """
    if opinion.problem:
        return Finding(check, CheckResult.UNAVAILABLE, None, opinion.problem, (), name)
    if opinion.skipped or not opinion.probabilities:
        return Finding(check, CheckResult.SKIPPED, None, opinion.skipped or "no claim to judge", (), name)
    worst = max(opinion.probabilities)
    bad = sorted(
        ((p, c) for p, c in zip(opinion.probabilities, claims, strict=True) if p >= threshold),
        key=lambda pair: -pair[0],
    )
    evidence = tuple(f"{excerpt(c, EVIDENCE_CHARS)} [{p:.0%} unsupported]" for p, c in bad[:EVIDENCE_COUNT])
    reason = f"{len(bad)} of {len(claims)} claims not supported" if bad else ""
    return Finding(check, CheckResult.FAIL if bad else CheckResult.PASS, 1.0 - worst, reason, evidence, name)
