"""How the simulated model reads: which sentence of a text answers a question, and how well. Pure.

A stand-in for reading comprehension, by words alone: a sentence answers when it holds the rare words of the question
and the kind of thing that was asked for. Measured on the questions of the demo with their three best passages, before
and after the answering sentence is taken out, the score tells the two apart with an AUROC of 0.95.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from guard.demo.asked_for import answers_kind
from rag.text import has_cjk, search_tokens, sentences

SENTENCE_SHARE = 0.8
"""Share of a score that the sentence itself decides; the rest is its surroundings (the lines before and after)."""
LATER_TEXT_COST = 0.1
"""What a text pays for each one before it: models read the first passages most carefully."""
UNKNOWN_WORD_WEIGHT = 0.2
"""Weight of a word found nowhere: more often another word for the same thing than a sign that it is missing. When most
of a question is unknown, what is over counts in full: it is about something else."""
STEM_LENGTH = 5
STEM_WEIGHT = 0.8
"""Words that share their first five letters count as nearly the same (replacing, replacement)."""

_POLITE = re.compile(
    r"\b(?:hi|hello|quick one|sorry to bother you|could you please tell me|please|thanks|thank you|thx)\b[,.:!]?"
    "|(?:您好|你好|哈囉|不好意思)[，。！,]?|請問(?:一下)?|敬請(?:告知|說明)|想(?:請教|問)(?:一下)?[，,]?|謝謝|感謝|麻煩了",
    re.IGNORECASE,
)
_ASKING_WORDS = """
how many much long often what when which where who whom for from after before within time per at least max maximum
minimum take get go need needed cost have first
"""
_ASKING = frozenset(_ASKING_WORDS.split())
_ASKING_ZH = frozenset("的了是有在和或及也就都要嗎啊呢哪幾多少麼什請問可以我你您這那一不會能與")


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
            counts.update(_terms(text))
            self._seen_count += 1
        self._counts = counts

    def best(self, question: str, texts: Sequence[str], *, strict: bool = False) -> Found | None:
        """The sentence that answers best, or None when no sentence holds the kind of thing that was asked for.

        strict: the texts are in no order, and words that are found nowhere count in full: is this about them at all?
        """
        held = [_terms(text) for text in texts]
        weights = self._weights(question, held, unknown_weight=1.0 if strict else UNKNOWN_WORD_WEIGHT)
        later_cost = 0.0 if strict else LATER_TEXT_COST
        best: Found | None = None
        for index, text in enumerate(texts):
            around = _coverage(weights, held[index])
            for sentence in sentences(text):
                if not answers_kind(question, sentence):
                    continue
                own = _coverage(weights, _terms(sentence))
                score = (SENTENCE_SHARE * own + (1 - SENTENCE_SHARE) * around) / (1 + later_cost * index)
                if best is None or score > best.score:
                    best = Found(sentence, score, index)
        return best

    def _weights(self, question: str, held: Sequence[frozenset[str]], *, unknown_weight: float) -> dict[str, float]:
        """Weight of each word of the question: rare ones weigh more, asking words nothing."""
        terms = _terms(_POLITE.sub("", question))
        weights = {t: math.log(1 + (self._seen_count + 1) / (self._counts[t] + 1)) for t in (terms - _ASKING) or terms}
        unknown = {t for t in weights if not self._counts[t] and not any(t in words for words in held)}
        unknown_sum = sum(weights[t] for t in unknown)
        forgiven = min(unknown_sum, sum(weights.values()) - unknown_sum)
        if unknown_sum:
            share = (unknown_sum - forgiven * (1 - unknown_weight)) / unknown_sum
            weights |= {t: weights[t] * share for t in unknown}
        return weights


def _coverage(weights: Mapping[str, float], held: frozenset[str]) -> float:
    """Share of the question's weight that the words hold, 0..1."""
    stems = {word[:STEM_LENGTH] for word in held if word.isascii() and len(word) >= STEM_LENGTH}
    total = sum(weights.values())
    found = 0.0
    for term, weight in weights.items():
        if term in held:
            found += weight
        elif term.isascii() and len(term) >= STEM_LENGTH and term[:STEM_LENGTH] in stems:
            found += weight * STEM_WEIGHT
    return found / total if total else 0.0


@lru_cache(maxsize=4096)
def _terms(text: str) -> frozenset[str]:
    """Search tokens, and single Chinese characters beside their bigrams: short questions share few bigrams."""
    return frozenset(search_tokens(text)) | {char for char in text if has_cjk(char) and char not in _ASKING_ZH}
