"""Which way a question is answered: a fixed answer, the knowledge base, the cloud fine-tune, the local adapter. Pure.

    rule matched               -> RULE
    retrieval is confident     -> model with contexts (cheap first, one escalation), or sentences of the documents
    it is not                  -> cloud fine-tune; local adapter when offline or when the data may not leave
    no model may answer        -> refusal

The executor (`rag.router`) tries the steps of a plan in order; nothing here knows a connection or a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

BEST_DEFAULT: Final = 0.55
MEAN_DEFAULT: Final = 0.35
DOCUMENTS_DEFAULT: Final = 1
"""Line of the practice: best >= 0.55 or mean >= 0.35, and at least one document."""

CONFIDENCE_DEFAULT: Final = 0.5
"""Line of `rag.retrieval.confidence_of`, for languages in which the embedder's cosines mean nothing."""


class Source(StrEnum):
    """Values of `answer_source`. Closed set: the guard counts answers by it."""

    RULE = "RULE"
    KB = "KB"  # sentences of the documents, word for word
    MODEL = "MODEL"  # a model that read the documents
    CLOUD_FT = "CLOUD_FT"
    LOCAL_LORA = "LOCAL_LORA"
    REFUSAL = "REFUSAL"


class Slot(StrEnum):
    """The models a route file can name."""

    RAG = "rag"  # reads the documents; the cheap one
    STRONG = "strong"  # reads the documents when the answer of `rag` does not pass the quick checks
    CLOUD = "cloud"  # fine-tuned, in the cloud
    LOCAL = "local"  # fine-tuned, on premises


SOURCE_OF: Mapping[Slot, Source] = {
    Slot.RAG: Source.MODEL,
    Slot.STRONG: Source.MODEL,
    Slot.CLOUD: Source.CLOUD_FT,
    Slot.LOCAL: Source.LOCAL_LORA,
}


@dataclass(frozen=True, slots=True)
class Signals:
    """What retrieval says about one question.

    best, mean: similarity of the best document and of all found (top k), -1..1; 0.0 when nothing was found.
    margin: lead of the best over the second best similarity; `best` when it is alone. trusted: the similarities are
    cosines of an embedder that covers the question; MiniLM does not cover Chinese. confidence: 0..1, always meaningful.
    """

    best: float
    mean: float
    count: int
    margin: float
    confidence: float
    trusted: bool
    lang: str = "en"


def signals(similarities: Sequence[float], *, confidence: float, trusted: bool, lang: str = "en") -> Signals:
    """Signals of the similarities of the documents found, in any order.

    >>> signals([0.62, 0.61, 0.57], confidence=0.9, trusted=True).mean
    0.6
    """
    ranked = sorted(similarities, reverse=True)
    if not ranked:
        return Signals(0.0, 0.0, 0, 0.0, confidence, trusted, lang)
    margin = ranked[0] - ranked[1] if len(ranked) > 1 else ranked[0]
    # Rounded: 0.1 + 0.2 must not decide a route.
    mean = round(sum(ranked) / len(ranked), 9)
    return Signals(ranked[0], mean, len(ranked), round(margin, 9), confidence, trusted, lang)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The line between knowledge base and model, for one language.

    by: "similarity" (best or mean, at least `documents`, at least `margin` ahead) or "confidence". Where similarities
    are not to be trusted the confidence decides, whatever `by` says.
    """

    best: float = BEST_DEFAULT
    mean: float = MEAN_DEFAULT
    documents: int = DOCUMENTS_DEFAULT
    margin: float = 0.0
    confidence: float = CONFIDENCE_DEFAULT
    by: str = "similarity"


@dataclass(frozen=True, slots=True)
class LineSet:
    """Thresholds by language; `default` for the others.

    embedder: whose cosines they were calibrated on, "" for any. Thresholds of cosines do not transfer between
    embedders, so with another one the confidence decides.
    """

    default: Thresholds = Thresholds()
    by_language: Mapping[str, Thresholds] = field(default_factory=dict)
    embedder: str = ""

    def of(self, lang: str) -> Thresholds:
        """The line for a language."""
        return self.by_language.get(lang, self.default)


PRACTICE: Final = LineSet(embedder="sentence-transformers/all-MiniLM-L6-v2")
"""The line of the practice holds for the embedder of the practice; with another one the confidence decides."""


def is_confident(found: Signals, line: Thresholds) -> tuple[bool, str]:
    """Whether the knowledge base should answer, and why in one line.

    >>> is_confident(signals([0.2, 0.1], confidence=0.9, trusted=True), Thresholds())
    (False, 'best 0.20 < 0.55 and mean 0.15 < 0.35')
    """
    if found.count < line.documents:
        return False, f"{found.count} documents < {line.documents}"
    if not found.trusted or line.by == "confidence":
        sure = found.confidence >= line.confidence
        return sure, f"confidence {found.confidence:.2f} {'>=' if sure else '<'} {line.confidence:.2f}"
    if found.margin < line.margin:
        return False, f"margin {found.margin:.2f} < {line.margin:.2f}"
    if found.best >= line.best:
        return True, f"best {found.best:.2f} >= {line.best:.2f}"
    if found.mean >= line.mean:
        return True, f"mean {found.mean:.2f} >= {line.mean:.2f}"
    return False, f"best {found.best:.2f} < {line.best:.2f} and mean {found.mean:.2f} < {line.mean:.2f}"


@dataclass(frozen=True, slots=True)
class Models:
    """The models that are configured. on_premises: those whose questions leave the house nowhere."""

    configured: frozenset[Slot] = frozenset()
    on_premises: frozenset[Slot] = frozenset({Slot.LOCAL})

    def allowed(self, *, sensitive: bool) -> frozenset[Slot]:
        """Those that may see the question."""
        return self.configured & self.on_premises if sensitive else self.configured


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order they are tried until one answers.

    steps: a model, or None for the answer without one: sentences of the documents when `from_documents`, else a
    refusal. Only the last can be None. escalate: whether the answer of `rag` goes through the quick checks and, once,
    to `strong`. with_contexts: the models of this plan read the documents.
    """

    steps: tuple[Slot | None, ...]
    reason: str
    from_documents: bool
    escalate: bool = False
    sensitive: bool = False

    @property
    def with_contexts(self) -> bool:
        """Whether models are given the documents."""
        return self.from_documents


def plan(
    found: Signals,
    line: Thresholds,
    models: Models,
    *,
    sensitive: bool = False,
    reachable: Collection[Slot] = tuple(Slot),
) -> Plan:
    """The way for one question that no fixed answer matched.

    reachable: models whose circuit is closed. A model that cannot be reached is left out, unless nothing else could
    answer: then it is tried all the same.
    """
    sure, reason = is_confident(found, line)
    allowed = models.allowed(sensitive=sensitive)
    wanted = [slot for slot in ((Slot.RAG, Slot.STRONG) if sure else (Slot.CLOUD, Slot.LOCAL)) if slot in allowed]
    if sensitive:
        reason += "; sensitive: stays on premises"
    up = [slot for slot in wanted if slot in reachable]
    if down := [slot for slot in wanted if slot not in reachable]:
        reason += f"; not reachable: {', '.join(down)}"
    if sure:
        # The documents can answer by themselves, so nobody waits for a model that is known to be away.
        steps: tuple[Slot | None, ...] = (*up, None)
        return Plan(steps, reason, True, escalate=Slot.RAG in up and Slot.STRONG in up, sensitive=sensitive)
    if not wanted:
        reason += "; no model may answer" if models.configured else "; no model"
        return Plan((None,), reason, False, sensitive=sensitive)
    return Plan(tuple(up or wanted), reason, False, sensitive=sensitive)
