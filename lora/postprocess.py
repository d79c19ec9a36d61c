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
form: {en: "According to company policy: {text}"}   # how a document's text is given, by language; else as it is
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from lora.phrasings import only_field
from rag.answer_rules import How, Processed
from rag.embedding import HashedNgramEmbedder
from rag.text import fold_width, language
from slo.errors import ConfigError
from slo.patterns import TEXT_CHARS, compile_safe
from slo.strict_yaml import load_yaml_file, validate_model

KB_MATCH_DEFAULT = 0.80
TOPICS_MAX = 500
DOCUMENTS_MAX = 2_000
"""An answer is held against every document up to so many; of more, against those that retrieval found."""
VECTORS_KEPT = 2_000


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
                matches_nothing = compile_safe(folded_pattern(pattern)).search("") is None
            except ValueError as error:
                raise ValueError(f"{pattern!r}: {error}") from error
            if not matches_nothing:
                raise ValueError(f"{pattern!r} matches an empty text, so it would always match")
        return patterns


class _File(_Strict):
    topics: Annotated[tuple[_Topic, ...], Field(max_length=TOPICS_MAX)] = ()
    kb_match: Annotated[float, Field(gt=0, le=1)] = KB_MATCH_DEFAULT
    form: dict[str, str] = {}

    @field_validator("form")
    @classmethod
    def _holds_text(cls, value: dict[str, str]) -> dict[str, str]:
        return {lang: only_field(form, "text") for lang, form in value.items()}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, its patterns compiled for text whose width and case are folded."""

    name: str
    question: tuple[re.Pattern[str], ...]
    answer: tuple[re.Pattern[str], ...]
    unless: tuple[re.Pattern[str], ...]
    kb_id: str


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A rule file, read and checked. form: language to how a document's text is given. place: for messages."""

    topics: tuple[Topic, ...] = ()
    kb_match: float = KB_MATCH_DEFAULT
    form: Mapping[str, str] = field(default_factory=dict)
    place: str = "rules"

    def unknown(self, documents: Container[str]) -> ConfigError | None:
        """The first topic whose document is not there."""
        for number, topic in enumerate(self.topics):
            if topic.kb_id not in documents:
                place = f"{self.place}: topics[{number}].kb_id"
                return ConfigError(place, topic.kb_id, "name a document of the knowledge base")
        return None

    def given(self, text: str) -> str:
        """A document's text as an answer."""
        return self.form.get(language(text), "{text}").replace("{text}", text)


class PostProcessor:
    """Topics and the texts they stand for; built once, asked for every answer.

    Raises:
        ConfigError: a topic names a document that is not there.
    """

    def __init__(self, rules: RuleSet, documents: Mapping[str, str], *, embedder: TextEmbedder | None = None) -> None:
        if missing := rules.unknown(documents):
            raise missing
        self._rules = rules
        self._documents = {doc_id: rules.given(text) for doc_id, text in documents.items()}
        self._embedder = embedder or HashedNgramEmbedder(1024)
        self._ids = list(documents)
        self._places = {doc_id: place for place, doc_id in enumerate(self._ids)}
        self._vectors: npt.NDArray[np.float32] | None = None
        self._some: dict[str, npt.NDArray[np.float32]] = {}
        if 0 < len(documents) <= DOCUMENTS_MAX:
            self._vectors = self._embedder.embed(list(self._documents.values()))

    def process(
        self, question: str, answer: str, *, hidden: Collection[str] = (), near: Sequence[str] | None = None
    ) -> Processed:
        """What is given out for this answer. Never raises on any text.

        hidden: documents that are not given and not compared with. near: documents that retrieval found, for a
        knowledge base of more than `DOCUMENTS_MAX`.
        """
        asked, said = fold_width(question[:TEXT_CHARS]), fold_width(answer[:TEXT_CHARS])
        nearest, similarity = self.nearest(answer, hidden=hidden, near=near)
        for topic in self._rules.topics:
            if topic.kb_id in hidden:
                continue
            hit = _first(topic.question, asked)
            if hit is None or _first(topic.unless, asked) is not None:
                continue
            if nearest == topic.kb_id and similarity >= self._rules.kb_match:
                continue  # it says the document in other words than the patterns know
            if _first(topic.answer, said) is None:
                detail = f"topic {topic.name}: {hit!r} in the question, the answer misses it"
                detail += f" (nearest to {nearest}, {similarity:.0%})" if nearest else ""
                return Processed(self._documents[topic.kb_id], How.RULE_OVERRIDE, detail, topic.kb_id, similarity)
        if nearest and similarity >= self._rules.kb_match:
            detail = f"similarity {similarity:.0%} to {nearest}, from {self._rules.kb_match:.0%} its text is given"
            return Processed(self._documents[nearest], How.KB_MATCH, detail, nearest, similarity)
        detail = f"no topic was missed; nearest is {nearest or 'nothing'} with {similarity:.0%}"
        return Processed(answer, How.MODEL_GENERATED, detail, "", similarity)

    def nearest(
        self, answer: str, *, hidden: Collection[str] = (), near: Sequence[str] | None = None
    ) -> tuple[str, float]:
        """Document whose text is most similar to an answer, and the cosine; ("", 0.0) without documents or words."""
        if not answer.strip():
            return "", 0.0
        ids, vectors = self._compared(near)
        if vectors is None:
            return "", 0.0
        cosines = vectors @ self._embedder.embed([answer[:TEXT_CHARS]])[0]
        if hidden:
            cosines[[place for place, doc_id in enumerate(ids) if doc_id in hidden]] = -1.0
        best = int(np.argmax(cosines))
        return ("", 0.0) if ids[best] in hidden else (ids[best], float(np.clip(cosines[best], 0.0, 1.0)))

    def _compared(self, near: Sequence[str] | None) -> tuple[Sequence[str], npt.NDArray[np.float32] | None]:
        if self._vectors is not None:
            return self._ids, self._vectors
        ids = [doc_id for doc_id in near or () if doc_id in self._places]
        for doc_id in ids:
            if doc_id not in self._some:
                if len(self._some) >= VECTORS_KEPT:
                    self._some.clear()
                self._some[doc_id] = self._embedder.embed([self._documents[doc_id]])[0]
        return ids, np.stack([self._some[doc_id] for doc_id in ids]) if ids else None


def read_rules(path: Path) -> RuleSet:
    """Read a rule file.

    Raises:
        ConfigError: place, value and cure.
    """
    document, _ = load_yaml_file(path, "sft-guard lora rules suggest")
    file = validate_model(_File, document, path.name)
    topics = tuple(
        Topic(t.name, _compiled(t.question), _compiled(t.answer), _compiled(t.unless), t.kb_id) for t in file.topics
    )
    return RuleSet(topics, file.kb_match, file.form, path.name)


def load_rules(path: Path, documents: Mapping[str, str], *, embedder: TextEmbedder | None = None) -> PostProcessor:
    """The rules of a file over documents. Raises ConfigError."""
    return PostProcessor(read_rules(path), documents, embedder=embedder)


def _compiled(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(compile_safe(folded_pattern(pattern)) for pattern in patterns)


def folded_pattern(pattern: str) -> str:
    r"""The pattern that finds in folded text what this one says: `rag.text.fold_width` of its letters alone.

    Folded as a text, `\D` would become `\d`, the opposite, and a full-width question mark the sign for "or not".

    >>> folded_pattern("VPN\\W{1,3}\uff11\uff1f")
    'vpn\\W{1,3}1\\?'
    """
    parts: list[str] = []
    escaped = False
    for char in unicodedata.normalize("NFC", pattern):
        if escaped and char.isascii():
            parts.append(f"\\{char}")
        elif char == "\\" and not escaped:
            escaped = True
            continue
        else:
            parts.append(fold_width(char) if char.isascii() else re.escape(fold_width(char)))
        escaped = False
    # Half-width kana with their marks are one letter in folded text. A last backslash is for `compile_safe` to refuse.
    return unicodedata.normalize("NFC", "".join(parts)) + ("\\" if escaped else "")


def _first(patterns: Sequence[re.Pattern[str]], text: str) -> str | None:
    for pattern in patterns:
        if found := pattern.search(text):
            return found.group()
    return None
