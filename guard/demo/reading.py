"""How the simulated model reads: which sentence of a text answers a question, and how well. Pure.

A stand-in for reading comprehension, by words alone: a sentence answers when it holds the rare words of the question
and the kind of thing that was asked for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guard.demo.asked_for import answers_kind
from rag.text import has_cjk, search_tokens, sentences

SENTENCE_SHARE = 0.7
"""Share of a score that the sentence itself decides; the rest is its surroundings (a title, the lines before)."""

_POLITE = re.compile(
    "(?:您好|你好|哈囉|不好意思)[，。！,]?|請問(?:一下)?|敬請(?:告知|說明)|想(?:請教|問)(?:一下)?[，,]?|謝謝|感謝|麻煩了"
)
_EMPTY_ZH = frozenset("的了是有在和或及也就都要嗎啊呢哪幾多少麼什請問可以我你您這那一不會能與")


@dataclass(frozen=True, slots=True)
class Found:
    """The best sentence of the texts. score: 0..1; text_index: which text it is from."""

    sentence: str
    score: float
    text_index: int


class Reader:
    """Knows how rare words are, from texts it has seen once."""

    def __init__(self, seen: Iterable[str]) -> None:
        counts: Counter[str] = Counter()
        self._seen_count = 0
        for text in seen:
            counts.update(set(_terms(text)))
            self._seen_count += 1
        self._counts = counts

    def best(self, question: str, texts: Sequence[str]) -> Found | None:
        """The sentence that answers best, or None when no sentence holds the kind of thing that was asked for."""
        terms = dict.fromkeys(_terms(_POLITE.sub("", question)))
        if not terms:
            return None
        best: Found | None = None
        for index, text in enumerate(texts):
            around = self._coverage(terms, _terms(text))
            for sentence in sentences(text):
                if not answers_kind(question, sentence):
                    continue
                own = self._coverage(terms, _terms(sentence))
                score = SENTENCE_SHARE * own + (1 - SENTENCE_SHARE) * around
                if best is None or score > best.score:
                    best = Found(sentence, score, index)
        return best

    def _coverage(self, terms: Iterable[str], held: Iterable[str]) -> float:
        """Share of the question's weight that is held: rare words weigh more."""
        have = set(held)
        weights = {term: math.log(1 + (self._seen_count + 1) / (self._counts[term] + 1)) for term in terms}
        return sum(w for term, w in weights.items() if term in have) / sum(weights.values())


def _terms(text: str) -> list[str]:
    """Search tokens, and single Chinese characters beside their bigrams: short questions share few bigrams."""
    return search_tokens(text) + [char for char in text if has_cjk(char) and char not in _EMPTY_ZH]
