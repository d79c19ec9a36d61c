"""What the checks are asked to do: plain values that travel to the worker process. Imports nothing heavy. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from guard.checks.detector_spec import DetectorSpec
from guard.checks.endpoint_spec import EndpointSpec
from guard.checks.judge_spec import JudgeSpec
from guard.safety.modes import SafetySpec
from slo.metric_names import CHECKS

TEXT_MODES = ("none", "redacted", "full")


HASHED_DIM = 256
HASHED_FINGERPRINT = f"hashed-terms-{HASHED_DIM}"
"""What the drift check reads questions with; here, so that the process that serves can ask for it."""

DRIFT_COMPONENT = "query"


@dataclass(frozen=True, slots=True)
class FollowSpec:
    """What is followed over many exchanges.

    intents_path: intents.yaml, "" for none. state_dir: where a learnt drift model is kept, "" for nowhere. reopen_s: a
    like question within this is one asked again. drift_embedder: reads questions for drift, "" for the one of the
    checks. drift_learn: questions of stable that are learnt from at most. examples: redacted questions may be
    kept and shown; off where the log may hold no words.
    """

    intents_path: str = ""
    state_dir: str = ""
    reopen_s: float = 86_400.0
    drift: bool = True
    drift_embedder: str = ""
    drift_learn: int = 12_000
    drift_window: int = 200
    examples: bool = True


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """Settings of one worker.

    embedder: name or path for `rag.embedding.load_embedder`; scripts it does not cover are served by hashed character
        n-grams. "none" checks by words alone, "endpoint" asks `endpoint`.
    rules_path: rules.yaml; "" for the built-in rules only.
    grounding_threshold: hallucination score in [0, 1] from which an answer fails; None for the calibrated one.
    transformer: name or path of an embedder that is asked about claims in doubt (`guard.checks.in_doubt`), "none" for
        nobody; the calibration must have been made with it.
    calibration: which calibrated threshold: "balanced" (best F1 on the labelled sets) or "fpr_05" (5 % of supported
        answers flagged).
    calibration_path: file of calibrated numbers made by `sft-guard combiner train`; "" for the shipped one.
    drift_reference: file with the centroid of the baseline's questions; "" learns it from the first
        `drift_window` questions of the stable release.
    drift_window: questions per comparison.
    safety: modes of the safety signals. follow: what is told by many exchanges.
    detector, judge: the optional slower tiers, see docs/detectors.md.
    text_mode: what of an exchange's words comes back from the worker: none | redacted | full.
    """

    embedder: str = "static"
    rules_path: str = ""
    grounding_threshold: float | None = None
    transformer: str = "none"
    calibration: str = "balanced"
    calibration_path: str = ""
    pii: bool = True
    drift: bool = True
    drift_reference: str = ""
    drift_window: int = 200
    text_mode: str = "redacted"
    endpoint: EndpointSpec | None = None
    safety: SafetySpec = field(default_factory=SafetySpec)
    detector: DetectorSpec | None = None
    judge: JudgeSpec | None = None
    follow: FollowSpec = field(default_factory=FollowSpec)

    @property
    def names(self) -> tuple[str, ...]:
        """Checks that are on, in the order of `slo.metric_names.CHECKS`."""
        off = set() if self.drift else {"query_drift"}
        off |= {"intent", "reopen"}  # these speak of some questions only
        off |= set() if self.pii and self.safety.pii_answer != "off" else {"pii"}
        modes = {
            "injection": self.safety.injection_question,
            "context_injection": self.safety.injection_contexts,
            "question_pii": self.safety.pii_question,
            "prompt_leak": self.safety.leak_answer,
            "toxicity": self.safety.toxicity_answer,
            "question_toxicity": self.safety.toxicity_question,
            "acl": self.safety.acl_contexts,
        }
        return tuple(name for name in CHECKS if name not in off and modes.get(name) != "off")
