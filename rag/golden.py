"""Golden questions: what a knowledge base must find, asked of two of its generations. Pure.

    {"question": "How many days of annual leave?", "doc_id": "rule-02"}
    {"question": "...", "doc_ids": ["faq-7", "faq-9"]}            any of them will do
    {"question": "...", "contains": "seven days"}                 a hit that holds these words

A row that was cut into chunks (`faq-7#2`) answers for `faq-7`, and `contains` outlives any rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.text import fold_width, normalise_space
from slo.statistics import Interval, wilson_lower, wilson_upper

DEPTHS = (1, 3, 10)
Z_TWO_SIDED = 1.959963984540054
"""Both ends of a 95 % interval: this is shown to people, not tested against a limit."""


@dataclass(frozen=True, slots=True)
class GoldenQuestion:
    """place: `file:line`. One of `doc_ids` or `contains` is given."""

    place: str
    question: str
    doc_ids: tuple[str, ...] = ()
    contains: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What one generation found for one question. hits: (doc_id, text), best first."""

    hits: tuple[tuple[str, str], ...]
    zero_hit: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and where the right document came, 1 is first; None: not among those looked at."""

    golden: GoldenQuestion
    rank: int | None
    zero_hit: bool
    first: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All questions asked of one generation."""

    asked: tuple[Asked, ...]

    def recall(self, depth: int) -> Interval | None:
        """Share of questions whose document is among the first `depth`, with its 95 % interval; None of none."""
        return _share(sum(a.rank is not None and a.rank <= depth for a in self.asked), len(self.asked))

    @property
    def zero_hits(self) -> Interval | None:
        """Share of questions that found nothing."""
        return _share(sum(a.zero_hit for a in self.asked), len(self.asked))


def ask_all(questions: Sequence[GoldenQuestion], search: Callable[[str], Found]) -> Outcome:
    """Ask every question."""
    return Outcome(tuple(_asked(golden, search(golden.question)) for golden in questions))


def lost(before: Outcome, after: Outcome, depth: int) -> tuple[tuple[Asked, Asked], ...]:
    """Questions answered before within `depth` and not any more, with both answers."""
    pairs = zip(before.asked, after.asked, strict=True)
    return tuple(
        (old, new)
        for old, new in pairs
        if old.rank is not None and old.rank <= depth and (new.rank is None or new.rank > depth)
    )


def _asked(golden: GoldenQuestion, found: Found) -> Asked:
    rank = next((n for n, (doc_id, text) in enumerate(found.hits, 1) if _right(golden, doc_id, text)), None)
    return Asked(golden, rank, found.zero_hit or not found.hits, found.hits[0][0] if found.hits else "")


def _right(golden: GoldenQuestion, doc_id: str, text: str) -> bool:
    if golden.contains:
        return normalise_space(fold_width(golden.contains)) in normalise_space(fold_width(text))
    return any(doc_id == wanted or doc_id.startswith(f"{wanted}#") for wanted in golden.doc_ids)


def _share(count: int, total: int) -> Interval | None:
    if not total:
        return None
    low, high = wilson_lower(count, total, Z_TWO_SIDED), wilson_upper(count, total, Z_TWO_SIDED)
    return Interval(low, count / total, high)
