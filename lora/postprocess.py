"""Rules behind the model: what it got wrong about a known topic is replaced by the knowledge base, without retraining.

    the question is about a topic, the answer misses it  ->  RULE_OVERRIDE   (text of the topic's document)
    the answer is nearly the text of a document          ->  KB_MATCH        (text of that document)
    else                                                 ->  MODEL_GENERATED (the answer as it is)

Patterns are of the bounded subset of `slo.patterns`, run over at most 20,000 characters, so that no pattern runs long.

topics:
  - name: vpn
    question: ["vpn", "remote access"]          # one of them in the question
    unless: ["vpn for guests"]                  # none of these
    answer: ["vpn", "lakegate"]                 # one of them in the answer, or it missed the topic
    kb_id: it-vpn-en
kb_match: 0.8
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rag.embedding import HashedNgramEmbedder
from rag.text import fold_width
from slo.errors import ConfigError
from slo.patterns import TEXT_CHARS, compile_safe
from slo.strict_yaml import load_yaml_file, validate_model

KB_MATCH_DEFAULT = 0.80
TOPICS_MAX = 500


class How(StrEnum):
    """Where the text of an answer is from. Closed set."""

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


class TextEmbedder(Protocol):
    """Unit vectors of texts; `rag.embedding` has several."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Patterns = Annotated[tuple[str, ...], Field(max_length=50)]


class _Topic(_Strict):
    name: Annotated[str, Field(min_length=1, max_length=80)]
    question: Annotated[Patterns, Field(min_length=1)]
    answer: Annotated[Patterns, Field(min_length=1)]
    unless: Patterns = ()
    kb_id: Annotated[str, Field(min_length=1, max_length=200)]

    @field_validator("question", "answer", "unless")
    @classmethod
    def _safe(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                matches_nothing = compile_safe(fold_width(pattern)).search("") is None
            except ValueError as error:
                raise ValueError(f"{pattern!r}: {error}") from error
            if not matches_nothing:
                raise ValueError(f"{pattern!r} matches an empty text, so it would always match")
        return patterns


class _File(_Strict):
    topics: Annotated[tuple[_Topic, ...], Field(max_length=TOPICS_MAX)] = ()
    kb_match: Annotated[float, Field(gt=0, le=1)] = KB_MATCH_DEFAULT


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, its patterns compiled for text whose width and case are folded."""

    name: str
    question: tuple[re.Pattern[str], ...]
    answer: tuple[re.Pattern[str], ...]
    unless: tuple[re.Pattern[str], ...]
    kb_id: str


class PostProcessor:
    """Topics and the texts they stand for; built once, asked for every answer.

    Raises:
        ConfigError: a topic names a document that is not there.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        documents: Mapping[str, str],
        *,
        kb_match: float = KB_MATCH_DEFAULT,
        embedder: TextEmbedder | None = None,
        place: str = "rules",
    ) -> None:
        for number, topic in enumerate(topics):
            if topic.kb_id not in documents:
                raise ConfigError(
                    f"{place}: topics[{number}].kb_id", topic.kb_id, "name a document of the knowledge base"
                )
        self._topics, self._documents, self._kb_match = tuple(topics), dict(documents), kb_match
        self._embedder = embedder or HashedNgramEmbedder(1024)
        self._ids = list(documents)
        self._vectors = self._embedder.embed([documents[i] for i in self._ids]) if documents else None

    def process(self, question: str, answer: str) -> Processed:
        """What is given out for this answer. Never raises on any text."""
        asked, said = fold_width(question[:TEXT_CHARS]), fold_width(answer[:TEXT_CHARS])
        nearest, similarity = self.nearest(answer)
        for topic in self._topics:
            hit = _first(topic.question, asked)
            if hit is None or _first(topic.unless, asked) is not None:
                continue
            if _first(topic.answer, said) is None:
                detail = f"topic {topic.name}: {hit!r} in the question, the answer misses it"
                return Processed(self._documents[topic.kb_id], How.RULE_OVERRIDE, detail, topic.kb_id, similarity)
        if nearest and similarity >= self._kb_match:
            detail = f"similarity {similarity:.0%} to {nearest}, from {self._kb_match:.0%} its text is given"
            return Processed(self._documents[nearest], How.KB_MATCH, detail, nearest, similarity)
        detail = f"no topic was missed; nearest is {nearest or 'nothing'} with {similarity:.0%}"
        return Processed(answer, How.MODEL_GENERATED, detail, "", similarity)

    def nearest(self, answer: str) -> tuple[str, float]:
        """Document whose text is most similar to an answer, and the cosine; ("", 0.0) without documents or words."""
        if self._vectors is None or not answer.strip():
            return "", 0.0
        cosines = self._vectors @ self._embedder.embed([answer[:TEXT_CHARS]])[0]
        best = int(np.argmax(cosines))
        return self._ids[best], float(np.clip(cosines[best], 0.0, 1.0))


def load_rules(path: Path, documents: Mapping[str, str], *, embedder: TextEmbedder | None = None) -> PostProcessor:
    """Read a rule file.

    Raises:
        ConfigError: place, value and cure.
    """
    document, _ = load_yaml_file(path)
    file = validate_model(_File, document, path.name)
    topics = tuple(
        Topic(t.name, _compiled(t.question), _compiled(t.answer), _compiled(t.unless), t.kb_id) for t in file.topics
    )
    return PostProcessor(topics, documents, kb_match=file.kb_match, embedder=embedder, place=path.name)


def _compiled(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(compile_safe(fold_width(pattern)) for pattern in patterns)


def _first(patterns: Sequence[re.Pattern[str]], text: str) -> str | None:
    for pattern in patterns:
        if found := pattern.search(text):
            return found.group()
    return None
