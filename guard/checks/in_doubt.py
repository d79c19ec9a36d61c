"""A transformer embedding for claims in doubt: too slow for every answer, so it has a share of the time.

It looks only at claims whose probability lies in the calibrated band, and its cosine is weighed by the numbers that
`sft-guard combiner train --transformer NAME` fitted for the language and this very model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from guard.checks.context import Context
from guard.checks.facts import Statement
from guard.checks.lexicon import weight
from guard.checks.semantic import Semantic
from slo.clock import Clock

SHARE_RATIO = 0.25
"""Share of the time it may work; the proxy shares the machine."""

SENTENCE_COUNT = 32
"""Context sentences that a claim is compared with at most, about 15 ms of processor time each when they are new."""

REMEMBERED_COUNT = 256


class Cosines(Protocol):
    """What the grounding check asks of an embedder."""

    @property
    def name(self) -> str:
        """Name and fingerprint; the calibration must name the same."""

    def covers(self, text: str) -> bool:
        """Whether it reads this script."""

    def best_cosines(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> Sequence[float] | None:
        """Of each (claim, context sentences) the best cosine in [0, 1]; None: no time for it now."""


@dataclass(slots=True)
class InDoubt:
    """`Cosines` of a transformer that keeps to its share of the time. behind: answers wait, so it rests."""

    semantic: Semantic
    clock: Clock
    share_ratio: float = SHARE_RATIO
    behind: bool = False
    _again_s: float = 0.0
    _known: OrderedDict[tuple[str, tuple[str, ...]], float] = field(default_factory=OrderedDict)

    @property
    def name(self) -> str:
        """Name and fingerprint of the model."""
        return self.semantic.name

    def covers(self, text: str) -> bool:
        """Whether the model reads this script."""
        return self.semantic.covers(text)

    def best_cosines(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[float] | None:
        """As `Cosines`. What was just asked is answered again at once: slower tiers come back to the same claims."""
        keys = [(claim, tuple(sentences)) for claim, sentences in pairs]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        began_s = self.clock.now_s()
        if new and (self.behind or began_s < self._again_s):
            return None
        found = {key: self.semantic.best_cosine(*key) for key in new}
        if new:
            ended_s = self.clock.now_s()
            self._again_s = ended_s + (ended_s - began_s) * (1.0 / self.share_ratio - 1.0)
        said = [found[key] if key in found else self._known[key] for key in keys]
        self._known.update(found)
        while len(self._known) > REMEMBERED_COUNT:
            self._known.popitem(last=False)
        return said


def compared(claim: Statement, contexts: Sequence[Context]) -> list[str]:
    """Context sentences for the cosine of a claim: all of them, or those that share most words with it.

    >>> from guard.checks.context import read_context
    >>> from guard.checks.facts import statement
    >>> compared(statement("Leave ends."), [read_context("Leave is long. It ends.")])
    ['Leave is long.', 'It ends.']
    """
    sentences = [s for c in contexts for s in c.sentences]
    if len(sentences) > SENTENCE_COUNT:
        weights = {t: weight(t) for t in claim.term_set}
        shared = [sum(w for t, w in weights.items() if t in s.term_set) for s in sentences]
        best = sorted(range(len(sentences)), key=lambda i: (-shared[i], i))[:SENTENCE_COUNT]
        sentences = [sentences[i] for i in sorted(best)]
    return [s.text for s in sentences]
