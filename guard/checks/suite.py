"""All checks of one exchange: rules, zero-hit, grounding, similarity, personal data, safety signals, drift.

A check that breaks says `unavailable` with the reason; it never stops the others. Under load the worker passes `busy`
and nothing is embedded: grounding goes by words, similarity is sampled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from guard.checks import drift, grounding, pii, rules, similarity
from guard.checks.calibration import PATH as CALIBRATION_PATH
from guard.checks.calibration import Calibration, load_calibration
from guard.checks.file_watch import FileWatch
from guard.checks.in_doubt import InDoubt
from guard.checks.selftest import selftest
from guard.checks.semantic import Semantic
from guard.checks.spec import CheckSpec
from guard.checks.tiers import Tier
from guard.ports import ExchangeText
from guard.safety.checks import SafetyChecks
from slo.errors import DataError, GuardError
from slo.quoting import unquoted
from slo.types import CheckResult, Finding

log = logging.getLogger("guard.checks")

QUESTION_CHARS = 32_000
CACHED_CHARS = 8_000


class CheckSuite:
    """Everything one worker needs, loaded once.

    Raises:
        ConfigError: rules.yaml is wrong. DataError: the calibration file is damaged.
    """

    def __init__(self, spec: CheckSpec) -> None:
        self.spec = spec
        calibration_path = Path(spec.calibration_path) if spec.calibration_path else CALIBRATION_PATH
        self.calibration: Calibration = load_calibration(calibration_path)
        self._watched = FileWatch([calibration_path])
        self._embedder_watched = FileWatch()
        self.embedder_problem = ""
        self.rules = rules.load_rules(spec.rules_path) if spec.rules_path else rules.Rules()
        self.semantic: Semantic | None = None
        self.transformer: InDoubt | None = None
        self._transformer_watched = FileWatch()
        self.embedder_pending = False
        self.embedder_line = "embedder off: by words alone" if spec.embedder == "none" else "embedder not loaded yet"
        self._drift_problem = ""
        reference = None
        if spec.drift_reference:
            try:
                reference = drift.load_reference(Path(spec.drift_reference))
            except GuardError as error:
                self._drift_problem = str(error)
        self._drift = drift.DriftCheck(spec.drift_window, reference)
        self._safety = SafetyChecks(spec.safety)
        self._golden_problem = selftest(self.calibration)
        self.grounding_problem = self._golden_problem

    @property
    def problem(self) -> str:
        """Why a detector may not be believed now, "" when all may."""
        return self.grounding_problem or self.embedder_problem

    @property
    def blind(self) -> dict[str, str]:
        """Check -> why nobody may believe it now."""
        said = {grounding.CHECK: self.grounding_problem, similarity.CHECK: self.embedder_problem}
        return {check: why for check, why in said.items() if why}

    def embed_with(self, semantic: Semantic | None) -> None:
        """The embedder is loaded, or there is none. Hashes its files, so that a swap is noticed."""
        self._embedder_watched = FileWatch(_files_of(semantic))
        self.semantic = semantic

    def doubt_with(self, transformer: InDoubt) -> None:
        """Claims in doubt are shown to a transformer from now on, when it tells the golden pairs apart.

        Raises:
            DataError: it does not, or the calibration was made with another one.
        """
        usable = [name for name, language in self.calibration.languages.items() if language.cosine]
        if not usable or self.calibration.embedder != transformer.name:
            made = f"with {self.calibration.embedder}" if usable else "without any"
            raise DataError(
                f"{transformer.name}: the calibration was made {made}; run `sft-guard combiner train --transformer "
                f"{self.spec.transformer} --data FILE --out FILE` and name its file in checks.calibration"
            )
        patient = InDoubt(transformer.semantic, transformer.clock, share_ratio=1.0)
        if problem := selftest(self.calibration, patient):
            raise DataError(f"{transformer.name}: {problem}")
        self._transformer_watched = FileWatch(_files_of(transformer.semantic))
        self.transformer = transformer

    def retest(self) -> None:
        """Run the golden pairs again; from now on grounding says `unavailable` when they no longer separate."""
        self._golden_problem = selftest(self.calibration)
        self.look()

    def look(self) -> None:
        """Every heartbeat: are the files of each detector still those that were loaded? A few microseconds."""
        self.embedder_problem = self._embedder_watched.changed()
        swapped = self._watched.changed() or self._transformer_watched.changed()
        self.grounding_problem = swapped or self._golden_problem

    def check(
        self, text: ExchangeText, *, release: str, arm: str, busy: bool = False, roles: frozenset[str] = frozenset()
    ) -> tuple[Finding, ...]:
        """Findings of one exchange, one per check. roles: of the reader, for `acl`. Never raises on any text."""
        question, answer, contexts = text.question[:QUESTION_CHARS], text.answer, text.contexts
        semantic, waiting_for = self.semantic, "embedder loading" if self.embedder_pending else ""
        if busy and semantic is not None:
            waiting_for = "embedder busy: sampled"
        allowed = (question, *(contexts or ()))
        findings = [
            _run("rules", lambda: self.rules.check(question, answer)),
            _run("zero_hit", lambda: similarity.check_zero_hit(contexts)),
            _run("grounding", lambda: self._grounding(question, text)),
            _run("similarity", lambda: self._similarity(answer, text, semantic, waiting_for)),
        ]
        if self.spec.pii and self.spec.safety.pii_answer != "off":
            findings.append(_run("pii", lambda: pii.check_pii(answer, allowed)))
        findings += [_run(name, work) for name, work in self._safety.checks(text, roles)]
        if self.spec.drift:
            findings.append(_run("query_drift", lambda: self._check_drift(question, release, arm)))
        return tuple(findings)

    def ground(self, text: ExchangeText, tiers: tuple[Tier, ...]) -> Finding:
        """The grounding check alone, with slower tiers; a thousandth of a second. Never raises."""
        question = text.question[:QUESTION_CHARS]
        return _run(grounding.CHECK, lambda: self._grounding(question, text, tiers))

    def _grounding(self, question: str, text: ExchangeText, tiers: tuple[Tier, ...] = ()) -> Finding:
        if self.grounding_problem:
            return Finding(grounding.CHECK, CheckResult.UNAVAILABLE, None, self.grounding_problem)
        return grounding.check_grounding(
            question, text.answer, text.contexts, self.calibration, threshold=self.spec.grounding_threshold,
            named_threshold=self.spec.calibration,
            transformer=self.transformer, tiers=tiers,
        )  # fmt: skip

    def _similarity(self, answer: str, text: ExchangeText, semantic: Semantic | None, waiting_for: str) -> Finding:
        if self.embedder_problem:
            return Finding(similarity.CHECK, CheckResult.UNAVAILABLE, None, self.embedder_problem)
        return similarity.check_similarity(answer, text.contexts, text.reference, semantic, waiting_for)

    def _check_drift(self, question: str, release: str, arm: str) -> Finding:
        if self._drift_problem:
            return Finding(drift.CHECK, CheckResult.UNAVAILABLE, None, self._drift_problem)
        return self._drift.check(drift.hashed_vector(question), release, stable=arm == "stable")


def _files_of(semantic: Semantic | None) -> list[Path]:
    """Files that an embedder was read from."""
    loaded = (semantic.embedder, *getattr(semantic.embedder, "members", ())) if semantic is not None else ()
    return [path for embedder in loaded for path in getattr(embedder, "files", ()) if path.is_file()]


def _run(check: str, work: Callable[[], Finding]) -> Finding:
    try:
        return work()
    except GuardError as error:  # known and said in words: a model that is not the right one
        return Finding(check, CheckResult.UNAVAILABLE, None, str(error))
    except Exception as error:  # A defect in one check must not cost the others, nor the worker.
        log.warning("check %s failed: %s", check, type(error).__name__)
        return Finding(check, CheckResult.UNAVAILABLE, None, f"the check broke ({type(error).__name__})")


def redacted(findings: tuple[Finding, ...], mode: str = "redacted") -> tuple[Finding, ...]:
    """Findings with personal data taken out of reason and evidence; these travel to logs and webhooks.

    mode: of the text that is stored; with "none" nothing of the words is left in the findings either.
    """
    if mode == "none":
        findings = tuple(map(unquoted, findings))
    return tuple(
        replace(f, reason=pii.redact(f.reason)[0], evidence=tuple(pii.redact(e)[0] for e in f.evidence))
        if f.reason or f.evidence
        else f
        for f in findings
    )  # fmt: skip


_redact_cached = lru_cache(maxsize=512)(pii.redact)  # the same contexts come back in RAG traffic


def stored_text(text: ExchangeText, mode: str) -> tuple[ExchangeText | None, int]:
    """What may be stored of the words, and how many values were redacted."""
    if mode == "none":
        return replace(text, question="", answer="", contexts=None, reference="", system="", context_tags=()), 0
    text = replace(text, system="", context_tags=())  # never part of what is stored
    if mode == "full":
        return text, 0
    counts = 0

    def clean(value: str) -> str:
        nonlocal counts
        cleaned, count = pii.redact(value)
        counts += count
        return cleaned

    def clean_context(value: str) -> str:
        nonlocal counts
        cleaned, count = _redact_cached(value) if len(value) <= CACHED_CHARS else pii.redact(value)
        counts += count
        return cleaned

    contexts = None if text.contexts is None else tuple(map(clean_context, text.contexts))
    question, answer, reference = clean(text.question), clean(text.answer), clean(text.reference)
    return replace(text, question=question, answer=answer, contexts=contexts, reference=reference), counts
