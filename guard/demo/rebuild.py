"""Two ways to build the knowledge base of the next release from the same articles: a healthy one and the 2 a.m. one.

The bad rebuild repeats a practice: chunking 600/100 was changed to 350/50 tokens, so the mean row fell from 450 to 280
tokens, and rows came in with 15 % empty text and 3.2 % duplicates. The articles here are shorter than those, so the
chunk size is scaled, for each language, until the mean length falls by the same ratio. Chunks are cut where the count
says, in the middle of a sentence if need be; nothing else about the release is touched.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from guard.demo.content import Article
from rag.chunking import Chunking, chunk
from rag.text import count_tokens, sentences

LENGTH_RATIO = 280 / 450
OVERLAP_RATIO = 50 / 350
EMPTY_RATIO = 0.15
DUPLICATE_RATIO = 0.032
SENTENCES_PER_GROUP = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it goes into a knowledge base."""

    doc_id: str
    lang: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Rows of one build and what was done to them. Lengths in tokens, of rows before any was emptied."""

    rows: tuple[Row, ...]
    chunking: str
    mean_length: float
    empty_count: int = 0
    duplicate_count: int = 0


def whole(articles: Sequence[Article]) -> Rebuild:
    """One row per article: what the stable release serves."""
    rows = tuple(Row(a.doc_id, a.lang, a.title, a.text) for a in articles)
    return Rebuild(rows, "whole articles", _mean_length([row.text for row in rows]))


def healthy(articles: Sequence[Article]) -> Rebuild:
    """Groups of whole sentences, neighbours sharing one sentence: another chunking that is fine."""
    rows = []
    for article in articles:
        parts = sentences(article.text)
        joiner = " " if article.lang == "en" else ""
        step = SENTENCES_PER_GROUP - 1
        # A last group of a single sentence would repeat what its neighbour holds already.
        starts = range(0, max(1, len(parts) - 1), step)
        for number, start in enumerate(starts, start=1):
            text = joiner.join(parts[start : start + SENTENCES_PER_GROUP])
            rows.append(Row(f"{article.doc_id}.{number}", article.lang, article.title, text))
    return Rebuild(tuple(rows), f"{SENTENCES_PER_GROUP} sentences", _mean_length([row.text for row in rows]))


def too_small(articles: Sequence[Article], seed: int) -> Rebuild:
    """Cut by count, 15 % of the rows emptied, 3.2 % of the rows copies of others; shares exact to rounding.

    The same seed gives the same rows.
    """
    dice = random.Random(f"rebuild/{seed}")
    sizes = {lang: _scaled_size([a for a in articles if a.lang == lang]) for lang in sorted({a.lang for a in articles})}
    rows = [
        Row(f"{article.doc_id}.{number}", article.lang, article.title, text)
        for article in articles
        for number, text in enumerate(_cut(article.text, sizes[article.lang]), start=1)
    ]
    mean_length = _mean_length([row.text for row in rows])
    duplicate_count = round(len(rows) * DUPLICATE_RATIO / (1 - DUPLICATE_RATIO))
    empty_count = round((len(rows) + duplicate_count) * EMPTY_RATIO)
    order = list(range(len(rows)))
    dice.shuffle(order)
    emptied, copied = set(order[:empty_count]), order[empty_count : empty_count + duplicate_count]
    copies = [Row(f"{rows[i].doc_id}.again", rows[i].lang, rows[i].title, rows[i].text) for i in copied]
    kept = [Row(r.doc_id, r.lang, r.title, "") if i in emptied else r for i, r in enumerate(rows)]
    for copy in copies:
        kept.insert(dice.randrange(len(kept) + 1), copy)
    chunking = ", ".join(f"{size}/{_overlap(size)} tokens ({lang})" for lang, size in sizes.items())
    return Rebuild(tuple(kept), chunking, mean_length, empty_count, duplicate_count)


def _cut(text: str, size: int) -> list[str]:
    return chunk(text, Chunking("tokens", size, _overlap(size)))


def _scaled_size(articles: Sequence[Article]) -> int:
    """Chunk size in tokens at which the mean row is nearest to 280/450 of the mean article."""
    wanted = LENGTH_RATIO * _mean_length([a.text for a in articles])

    def distance(size: int) -> float:
        pieces = [p for a in articles for p in _cut(a.text, size)]
        return abs(_mean_length(pieces) - wanted)

    return min(range(round(wanted * 0.8), round(wanted * 1.8)), key=distance)


def _overlap(size: int) -> int:
    return round(size * OVERLAP_RATIO)


def _mean_length(texts: Sequence[str]) -> float:
    return sum(count_tokens(text) for text in texts) / len(texts)
