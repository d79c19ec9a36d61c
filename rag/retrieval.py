"""Which signal to trust: fusion of words and vectors, and the confidence in the result. Pure.

Neither signal wins everywhere (first hit right, development halves; embedding / BM25): StackFAQ questions .945 / .705,
SQuAD passages .673 / .830, Traditional Chinese DRCD .116 / .94. A plain sum of scores loses to the better one on
StackFAQ, so the words weigh as much as their winner stands out, compared with how much the vectors' winner does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """What a cosine of one kind of embedder is worth, chosen on the development halves (bench/retrieval.py).

    lexical_weight: of the words at their most decisive; long_weight: the same, and always, where documents are long.
    The others: logistic of confidence, see `confidence_of`.
    """

    lexical_weight: float
    cosine: float
    words: float
    bias: float
    long_weight: float | None = None


TRANSFORMER: Final = Scale(lexical_weight=0.75, cosine=22.0, words=8.5, bias=-10.8)
STATIC: Final = Scale(lexical_weight=2.0, cosine=17.5, words=6.0, bias=-9.3, long_weight=20.0)
"""Vectors of single words see less of a sentence, and a mean over a long passage says next to nothing: there words
decide and vectors only order what words leave open (SQuAD hybrid .784 -> .83, where BM25 alone has .828)."""
SHORT_TERMS, LONG_TERMS = 20.0, 80.0
"""Mean length of documents, in search terms, between which `long_weight` comes in."""

_GAP_FLOOR: Final = 0.05  # a cosine lead this small is within noise
CHARACTER_WEIGHT: Final = 0.3
"""Weight of single characters beside bigrams in Chinese: DRCD .935 -> .948, flat between 0.2 and 0.5."""


def fuse(
    cosines: Mapping[int, float],
    words: Mapping[int, float],
    scale: Scale = TRANSFORMER,
    mean_terms: float = 0.0,
) -> dict[int, float]:
    """Fused score per row.

    Args:
        cosines: cosine of each candidate to the query; a row without a meaningful vector is left out.
        words: BM25 score of each row divided by the highest score the query could reach, 0..1.
        scale: of the embedder that the cosines come from.
        mean_terms: mean length of the documents in search terms.
    """
    lead = _lead(words.values())
    decisive_ratio = min(1.0, lead / (_lead(cosines.values()) + _GAP_FLOOR)) if cosines else 1.0
    weight = scale.lexical_weight
    if scale.long_weight is not None:
        long_ratio = min(1.0, max(0.0, (mean_terms - SHORT_TERMS) / (LONG_TERMS - SHORT_TERMS)))
        weight += long_ratio * (scale.long_weight - weight)
        decisive_ratio = max(decisive_ratio, long_ratio)
    weight *= decisive_ratio
    return {row: cosines.get(row, 0.0) + weight * words.get(row, 0.0) for row in {**cosines, **words}}


def _lead(values: Iterable[float]) -> float:
    """By how much the best stands out from the second best; the best itself when it is alone. Never below 0."""
    first, second = 0.0, 0.0
    for value in sorted(values)[-2:]:
        first, second = value, first
    return max(0.0, first - second)  # a lone cosine may be negative


def confidence_of(
    *, cosine: float | None, word_ratio: float, character_ratio: float | None, scale: Scale = TRANSFORMER
) -> float:
    """How sure it is that a document is about the question, 0..1; 0.5 is the default line for answering from it.

    Logistic in the signals at hand, fitted on in-domain against out-of-domain questions of the development halves
    (StackFAQ against BANKING77 and CLINC, SQuAD and DRCD against articles that were left out) and of the demo content.
    There 95-98 of 100 English and 87-97 of 100 Chinese questions pass the line, 0-5 and 0-31 foreign ones do. Whether a
    document on the right subject holds the answer is something none of these signals can tell.

    Args:
        cosine: of question and document, None when the embedder has no say about this question.
        word_ratio: share of the question's words that the document holds, weighted by rarity, 0..1.
        character_ratio: the same of CJK characters; None for a question without any.
        scale: of the embedder that the cosine comes from.
    """
    if cosine is not None:
        logit = scale.cosine * cosine + scale.words * word_ratio + scale.bias
    elif character_ratio is not None:
        logit = 17.5 * word_ratio + 3.8 * character_ratio - 5.0
    else:
        logit = 11.0 * word_ratio - 3.4
    return 1.0 / (1.0 + exp(-logit))
