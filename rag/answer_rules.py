"""The last stage of the answer path: what a model said may be replaced by what the knowledge base says. Ports only.

`lora.postprocess` implements it over a YAML file; anything that fits these protocols may stand in its place. It speaks
about generated answers alone: sentences of documents, fixed answers and refusals go out as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rag.types import Document


class How(StrEnum):
    """Where the text of an answer is from. Closed set; `answer_source` of a response says it."""

    RULE_OVERRIDE = "RULE_OVERRIDE"
    KB_MATCH = "KB_MATCH"
    MODEL_GENERATED = "MODEL_GENERATED"


@dataclass(frozen=True, slots=True)
class Processed:
    """An answer after the rules. detail: one line that explains it. kb_id: document of the text, or "".

    similarity: of the model's answer to the nearest document, 0..1.
    """

    text: str
    how: How
    detail: str
    kb_id: str = ""
    similarity: float = 0.0


class AnswerRules(Protocol):
    """Rules over the documents of one generation."""

    def process(
        self, question: str, answer: str, *, hidden: Collection[str] = (), near: Sequence[str] | None = None
    ) -> Processed:
        """What goes out. hidden: documents that the asker may not see. near: those that retrieval found."""
        ...


class RuleSource(Protocol):
    """Rules that may change while they are used. sha256: of those in force. note: why a newer file is not, or ""."""

    @property
    def sha256(self) -> str: ...

    @property
    def note(self) -> str: ...

    def look(self) -> None:
        """Take over a changed file, or say why not. Never raises."""
        ...

    def bind(self, documents: Iterable[Document]) -> AnswerRules:
        """The rules in force over these documents; a topic whose document is not among them is off."""
        ...
