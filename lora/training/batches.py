"""Which rows are trained at which step: a function of seed and epoch, so that a resumed run finds its place.

The rows of a step are drawn by chance, whatever their length; only inside a step are they sorted, so that the batches
it is cut into hold rows of like length and need little padding. Steps of one length throughout would be cheaper to pad,
but refusals are all of one length: such steps hold nothing else, and the loss jumps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def epoch_steps(
    lengths: Sequence[int], *, batch: int, accumulate: int, seed: int, epoch: int
) -> list[list[tuple[int, ...]]]:
    """Steps of one epoch, each a list of batches of row numbers. Every row stands in exactly one.

    >>> epoch_steps([5, 90, 6, 80], batch=2, accumulate=2, seed=0, epoch=0)
    [[(0, 2), (3, 1)]]
    """
    rows = list(range(len(lengths)))
    random.Random(f"{seed}/{epoch}").shuffle(rows)
    width = batch * accumulate
    steps = []
    for at in range(0, len(rows), width):
        drawn = sorted(rows[at : at + width], key=lambda row: (lengths[row], row))
        steps.append([tuple(drawn[n : n + batch]) for n in range(0, len(drawn), batch)])
    return steps


def by_length(lengths: Sequence[int], batch: int) -> list[tuple[int, ...]]:
    """Batches for evaluation, where the order does not matter: rows of like length together."""
    rows = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [tuple(rows[n : n + batch]) for n in range(0, len(rows), batch)]


def padded_tokens(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Tokens that batches cost when each is padded to its longest row.

    >>> padded_tokens([(0, 2), (1, 3)], [5, 90, 6, 80])
    192
    """
    return sum(len(rows) * max(lengths[row] for row in rows) for rows in batches)
