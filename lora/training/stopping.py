"""When to stop: by the size of an improvement, not by any improvement. Pure.

A run of the practice went on for 200 epochs because each evaluation was better by a hair; what it gave was nonsense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Progress:
    """best: least eval loss, at step best_step (that adapter is kept). mark: last loss that was better by size."""

    best: float = math.inf
    best_step: int = 0
    mark: float = math.inf
    stale: int = 0

    def after(self, eval_loss: float, step: int, min_improvement: float) -> Progress:
        """Progress after one evaluation; a loss that is no number is no improvement.

        >>> progress = Progress().after(1.0, 10, 0.01).after(0.995, 20, 0.01)
        >>> progress.best, progress.best_step, progress.stale
        (0.995, 20, 1)
        """
        by_size = eval_loss < self.mark * (1 - min_improvement) if math.isfinite(self.mark) else eval_loss < self.mark
        found = replace(self, mark=eval_loss, stale=0) if by_size else replace(self, stale=self.stale + 1)
        return replace(found, best=eval_loss, best_step=step) if eval_loss < self.best else found

    def stops(self, patience: int) -> bool:
        """True when so many evaluations in a row were no improvement by size; patience 0 never stops."""
        return 0 < patience <= self.stale
