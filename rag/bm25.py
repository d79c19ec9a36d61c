"""Okapi BM25, the formula. Pure.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the non-negative
idf ln(1 + (N - n + 0.5) / (n + 0.5)). Over character bigrams (`rag.text.search_tokens`) it is what works in Chinese: on
DRCD the first hit is right for about 95 in 100 questions, where all-MiniLM-L6-v2 reaches 12.
"""

from __future__ import annotations

from math import log
from typing import Final

K1: Final = 0.9
"""How soon repeats stop counting."""
B: Final = 0.4
"""How much long documents pay, 0..1."""


def idf(document_count: int, holding_count: int) -> float:
    """Weight of a term: larger the fewer of the documents hold it, largest when none does."""
    return log(1.0 + (document_count - holding_count + 0.5) / (holding_count + 0.5))


def gain(term_count: int, length: int, mean_length: float) -> float:
    """What a term gives a document that holds it `term_count` times, before its idf; at most K1 + 1.

    >>> round(gain(2, 10, 10.0), 6)
    1.310345
    """
    return term_count * (K1 + 1.0) / (term_count + K1 * (1.0 - B + B * length / mean_length))
