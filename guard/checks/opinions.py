"""Answers that wait for slower detectors, and what becomes of the grounding check when these have spoken.

The first pass of an answer records which claims the tiers before are not sure about. Then the detector model is asked,
then the judge; each time the grounding check runs again with what was said, through the port of `guard.checks.tiers`.
The worker checks other answers meanwhile; at most `HELD_COUNT` wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from guard.checks.frames import Done
from guard.checks.opinion import Detector, Opinion, Question, finding_of
from guard.checks.tiers import UNCALIBRATED_BAND, Band, Tier
from slo.types import CheckResult, Finding

HELD_COUNT = 32
"""Answers that wait at most; the pipeline has 64 with the worker at once, and must not starve."""

Ground = Callable[[tuple[Tier, ...]], Finding]
"""The grounding check of one answer with these tiers."""


class Recorder:
    """A `DetectorTier` that only remembers which claims it would have been asked about."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.claims: tuple[str, ...] = ()

    def score(self, question: str, claims: Sequence[str], contexts: Sequence[str]) -> None:
        self.claims = tuple(claims)


class Answered:
    """A `DetectorTier` that says what was found earlier for the same claims."""

    def __init__(self, name: str, found: dict[str, float]) -> None:
        self.name, self._found = name, found

    def score(self, question: str, claims: Sequence[str], contexts: Sequence[str]) -> list[float] | None:
        return [self._found[c] for c in claims] if all(c in self._found for c in claims) else None


@dataclass(slots=True)
class _Held:
    done: Done
    question: Question
    ground: Ground
    said: dict[str, tuple[tuple[str, ...], Opinion]] = field(default_factory=dict)
    at: int = 0  # which detector is being asked
    claims: tuple[str, ...] = ()
    cost_usd: float = 0.0


class Opinions:
    """detectors: in the order in which they are asked.

    bands: of each, see `guard.checks.tiers`; None for the one that the calibration of the language has in `calibrated`.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        bands: Sequence[Band | None],
        calibrated: Mapping[str, Band] = MappingProxyType({}),
    ) -> None:
        self._detectors, self._bands, self._calibrated = tuple(detectors), tuple(bands), calibrated
        self._held: dict[int, _Held] = {}

    @property
    def problems(self) -> dict[str, str]:
        """Check -> why it may not be believed now."""
        return {d.check: d.problem for d in self._detectors if d.problem}

    def filenos(self) -> list[int]:
        """What the worker waits on beside its own socket."""
        return [n for d in self._detectors for n in d.filenos()]

    def begin(self, done: Done, question: Question, ground: Ground) -> Done | None:
        """Ask about one checked answer; None: it is held, `collect` will give it back."""
        held = _Held(done, question, ground)
        if len(self._held) >= HELD_COUNT:
            for detector in self._detectors:
                held.said[detector.check] = ((), Opinion(skipped="too many answers wait: sampled"))
            return self._finished(held)
        return self._go_on(held)

    def collect(self) -> list[Done]:
        """Answers about which everything is said that will be said."""
        finished: list[Done] = []
        for detector in self._detectors:
            for ticket, opinion in detector.collect():
                held = self._held.pop(ticket, None)
                if held is None:
                    continue
                held.said[detector.check] = (held.claims, opinion)
                held.cost_usd += opinion.cost_usd
                held.at += 1
                if (done := self._go_on(held)) is not None:
                    finished.append(done)
        return finished

    def look(self, *, retest: bool = False) -> None:
        """Heartbeat."""
        for detector in self._detectors:
            detector.look(retest=retest)

    def close(self) -> None:
        """Stop the processes and threads of the detectors."""
        for detector in self._detectors:
            detector.close()

    def _go_on(self, held: _Held) -> Done | None:
        while held.at < len(self._detectors):
            detector = self._detectors[held.at]
            recorder = Recorder(detector.name)
            held.ground((*self._answered(held), Tier(recorder, self._band(held, self._bands[held.at]))))
            unsure = recorder.claims
            held.claims = unsure or held.question.claims
            asked = replace(held.question, claims=held.claims, unsure=bool(unsure))
            opinion = detector.ask(held.done.job_id, asked)
            if opinion is None:
                self._held[held.done.job_id] = held
                return None
            held.said[detector.check] = (held.claims, opinion)
            held.cost_usd += opinion.cost_usd
            held.at += 1
        return self._finished(held)

    def _answered(self, held: _Held) -> tuple[Tier, ...]:
        tiers = []
        for detector, band in zip(self._detectors, self._bands, strict=True):
            claims, opinion = held.said.get(detector.check, ((), Opinion()))
            if opinion.probabilities:
                found = dict(zip(claims, opinion.probabilities, strict=True))
                tiers.append(Tier(Answered(detector.name, found), self._band(held, band)))
        return tuple(tiers)

    def _band(self, held: _Held, asked: Band | None) -> Band:
        return asked or self._calibrated.get(held.question.language, UNCALIBRATED_BAND)

    def _finished(self, held: _Held) -> Done:
        tiers = self._answered(held)
        findings = held.done.findings
        if tiers:
            grounded = held.ground(tiers)
            findings = tuple(grounded if f.check == "grounding" else f for f in findings)
        more = tuple(
            finding_of(d.check, opinion, claims, d.threshold, d.name)
            for d in self._detectors
            for claims, opinion in [held.said[d.check]]
        )
        return replace_done(held.done, (*findings, *more), held.cost_usd)


def replace_done(done: Done, findings: Iterable[Finding], cost_usd: float) -> Done:
    """The same answer with other findings."""
    return Done(done.job_id, tuple(findings), done.text, done.redacted_count, cost_usd)


def worth_asking(grounding: Finding | None) -> bool:
    """Whether the tiers before could look at all; what they could not read, a model is not asked about either."""
    return grounding is not None and grounding.result in (CheckResult.PASS, CheckResult.FAIL)
