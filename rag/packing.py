"""Contexts that fit a token budget: the best ones whole, the next one up to the end of a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.text import count_tokens, sentences, token_spans
from rag.types import Hit

_WORTH_TOKENS = 12  # less of a document than this says nothing


def pack(hits: Sequence[Hit], budget_tokens: int) -> tuple[Hit, ...]:
    """The hits, best first, as far as their texts together have at most `budget_tokens` (`rag.text.count_tokens`).

    The first that does not fit whole is cut at the end of a sentence, its span with it; worse ones that are shorter
    do not jump the queue. A first hit without a sentence that fits is cut between two words: some context is better
    than none.
    """
    kept: list[Hit] = []
    left = budget_tokens
    for hit in hits:
        size = count_tokens(hit.text)
        if size > left:
            if left >= _WORTH_TOKENS or not kept:
                kept += _cut(hit, left, anyway=not kept)
            break
        kept.append(hit)
        left -= size
    return tuple(kept)


def _cut(hit: Hit, budget_tokens: int, *, anyway: bool) -> list[Hit]:
    end, used, position = 0, 0, 0
    for sentence in sentences(hit.text):
        used += count_tokens(sentence)
        if used > budget_tokens:
            break
        position = hit.text.index(sentence, position) + len(sentence)
        end = position
    if not end and anyway and budget_tokens > 0:
        spans = token_spans(hit.text)[:budget_tokens]
        end = spans[-1][1] if spans else 0
    text = hit.text[:end]
    return [replace(hit, text=text, span=(hit.span[0], hit.span[0] + end))] if text.strip() else []
