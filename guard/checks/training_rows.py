"""Labelled answers from files, for training the combiner. Pure but for reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from guard.checks.context import read_context
from guard.checks.facts import statement
from guard.checks.grade import read_row
from guard.checks.grounding import must_fail, read_claims
from guard.checks.lexicon import is_cjk
from guard.checks.passages import Passages
from guard.checks.support import assess
from slo.errors import DataError


@dataclass(slots=True)
class Row:
    """One labelled answer. name: of its set. group: its source; rows of one source are never on both sides of a fold.

    features: of each claim. contradicted: claims that fail by rule. cosines, max_cosine, score: what a
    benchmark fills in.
    """

    name: str
    group: str
    lang: str
    question: str
    contexts: list[str]
    answer: str
    unsupported: bool
    features: list[tuple[float, ...]] = field(default_factory=list)
    contradicted: list[bool] = field(default_factory=list)
    must_fail: bool = False
    term_count: int = 0
    claims: list[str] = field(default_factory=list)
    fold: int = 0
    cosines: list[float] = field(default_factory=list)
    max_cosine: float = 0.0
    score: float = 0.0


def read_features(rows: Iterable[Row]) -> None:
    """Fill in features; about 1 ms per answer."""
    for row in rows:
        passages = Passages([read_context(c) for c in row.contexts if c.strip()])
        asked = statement(row.question)
        claims, _ = read_claims(row.answer)
        row.claims = [c.text for c in claims]
        supports = [assess(c, passages, asked) for c in claims]
        row.features = [s.features for s in supports]
        row.term_count = sum(s.term_count for s in supports)
        row.contradicted = [must_fail(s, row.term_count) for s in supports]
        row.must_fail = any(row.contradicted)


def read_labelled(path: Path) -> Iterator[Row]:
    """Rows of a JSON lines file: {"question", "contexts", "answer", "hallucinated": bool}, "group" and "id" optional.

    Raises:
        DataError: file and line, what is wrong and what to write.
    """
    with path.open("rb") as source:
        for number, line in enumerate(source, start=1):
            if not line.strip():
                continue
            try:
                raw: Any = msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                raise DataError(f"{path}: line {number}: not JSON ({error}); write one object per line") from error
            if isinstance(raw, dict):
                raw.setdefault("id", number)
            try:
                _, text = read_row(raw, number)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            label = raw.get("hallucinated")
            if not isinstance(label, bool):
                raise DataError(f"{path}: line {number}: `hallucinated` must be true or false")
            if text.contexts is None:
                raise DataError(
                    f"{path}: line {number}: `contexts` is null; a label needs the contexts it was given on"
                )
            group = str(raw.get("group", "")) or "\n".join(text.contexts)
            lang = "zh" if is_cjk(text.answer) else "en"
            yield Row(path.stem, group, lang, text.question, list(text.contexts), text.answer, label)
