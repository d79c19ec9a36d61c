"""Which token comes next: the inference guards, temperature and nucleus, for one answer.

As `transformers` does it (repetition penalty, n-grams, temperature, top-p, in this order), with the penalties over the
answer alone; a test holds both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lora.serving.types import Row

GREEDY_BELOW = 1e-5
"""Temperature: a smaller one says the same as 0, and does not fit into a float of 32 bits."""


class NotFiniteError(Exception):
    """The model gave no usable numbers for this answer."""


def repeated(said: Sequence[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of `size` that was said already.

    >>> repeated([1, 2, 3, 1, 2], 3), repeated([1, 2], 3)
    ({3}, set())
    """
    if size < 1 or len(said) + 1 < size:
        return set()
    begun = tuple(said[len(said) - size + 1 :])
    grams = zip(*(said[offset:] for offset in range(size)), strict=False)
    return {gram[-1] for gram in grams if gram[:-1] == begun}


def choose(logits: Any, row: Row) -> int:
    """The next token of an answer. logits: tensor of the vocabulary's size; it is left as it is.

    Raises:
        NotFiniteError: a logit is no number.
    """
    import torch

    how = row.sampling
    scores = logits.float()
    if not bool(torch.isfinite(scores).all()):
        raise NotFiniteError
    if row.said and how.repetition_penalty != 1.0:
        scores = scores.clone()
        seen = torch.tensor(sorted(set(row.said)), device=scores.device)
        values = scores[seen]
        scores[seen] = torch.where(values < 0, values * how.repetition_penalty, values / how.repetition_penalty)
    banned = repeated(row.said, how.no_repeat_ngram_size)
    if 0 < len(banned) < scores.shape[-1]:
        scores = scores.clone()
        scores[torch.tensor(sorted(banned), device=scores.device)] = float("-inf")
    if how.temperature < GREEDY_BELOW:
        return int(scores.argmax())
    # The largest is 0 before it is divided, so that a small temperature cannot overflow.
    chances = torch.softmax((scores - scores.max()) / how.temperature, dim=-1)
    if how.top_p < 1.0:
        ordered, places = chances.sort(descending=True)
        out = (ordered.cumsum(-1) - ordered) >= how.top_p
        out[0] = False  # a share too small for a float of 32 bits is none
        ordered[out] = 0.0
        return int(places[torch.multinomial(ordered, 1, generator=row.chance)])
    return int(torch.multinomial(chances, 1, generator=row.chance))
