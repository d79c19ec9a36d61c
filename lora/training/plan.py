"""How an adapter is trained: the settings with the defaults of the practice, and what follows from them. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from slo.errors import ConfigError

SCHEDULES = ("cosine", "linear", "constant")
LAYOUTS = ("auto", "padded", "packed")
WARMUP_STEPS = 30
WARMUP_SHARE = 0.15
"""30 steps as in the practice, where a run is long enough: 30 of its 197 steps were 15 %."""
LOG_EVERY, LOG_POINTS = 10, 20
"""Mean of 10 steps a log row, but at least 20 rows a run: single steps of 8 rows jump in every healthy run."""
SMALL_ROWS, LARGE_ROWS = 100, 10_000


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """Settings of one run. None stands for what `resolved` makes of it for a number of rows.

    batch: rows that go through the model at once. accumulate: batches a step. min_improvement: share by which the eval
    loss must fall to count as progress. layout: how rows become tensors, see `lora.training.layout`; auto is packed on
    a GPU and padded on a CPU. log_every: steps whose mean is one row of the log. save_every: steps between checkpoints
    beside those at every evaluation; 0 for none.
    """

    rank: int | None = None
    alpha: int | None = None
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    dora: bool = False
    four_bit: bool = False
    learning_rate: float = 2e-4
    schedule: str = "cosine"
    warmup_steps: int | None = None
    epochs: float = 4.0
    batch: int = 4
    accumulate: int = 2
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    max_length: int = 192
    patience: int = 3
    min_improvement: float = 0.01
    seed: int = 0
    layout: str = "auto"
    save_every: int = 0
    log_every: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with.

        Raises:
            ConfigError: setting, value and cure.
        """
        for name in ("epochs", "batch", "accumulate", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0 or math.isinf(getattr(self, name)):
                raise ConfigError(_option(name), getattr(self, name), "write a number above 0")
        for name in ("weight_decay", "patience", "save_every"):
            if not getattr(self, name) >= 0:
                raise ConfigError(_option(name), getattr(self, name), "write 0 or more")
        for name in ("rank", "alpha", "log_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(_option(name), getattr(self, name), "write 1 or more")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ConfigError("--warmup", self.warmup_steps, "write a number of steps from 0")
        for name in ("dropout", "min_improvement"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(_option(name), getattr(self, name), "write a share from 0 to below 1")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError("--seed", self.seed, "write a whole number of at most 18 digits")
        if self.schedule not in SCHEDULES:
            raise ConfigError("--schedule", self.schedule, f"there are {', '.join(SCHEDULES)}")
        if self.layout not in LAYOUTS:
            raise ConfigError("--layout", self.layout, f"there are {', '.join(LAYOUTS)}")
        if self.max_length < 8:
            raise ConfigError("--max-length", self.max_length, "write at least 8 tokens; 192 is usual for short rules")
        if not self.targets:
            raise ConfigError("--targets", "", "name at least one projection, such as q_proj,v_proj")

    def resolved(self, row_count: int) -> TrainPlan:
        """The plan with nothing left open for a number of training rows.

        >>> TrainPlan().resolved(393).warmup_steps, TrainPlan().resolved(60).rank
        (30, 8)
        """
        rank = self.rank or (8 if row_count < SMALL_ROWS else 32 if row_count >= LARGE_ROWS else 16)
        warmup = self.warmup_steps
        if warmup is None:
            warmup = min(WARMUP_STEPS, math.ceil(WARMUP_SHARE * self.step_count(row_count)))
        log_every = self.log_every or max(1, min(LOG_EVERY, self.step_count(row_count) // LOG_POINTS))
        found = {"rank": rank, "alpha": self.alpha or 2 * rank, "warmup_steps": warmup, "log_every": log_every}
        return TrainPlan(**{**_values(self), **found})

    def steps_per_epoch(self, row_count: int) -> int:
        """Optimizer steps of one epoch; the last may hold fewer rows.

        >>> TrainPlan().steps_per_epoch(393)
        50
        """
        return math.ceil(row_count / (self.batch * self.accumulate))

    def step_count(self, row_count: int) -> int:
        """Optimizer steps of the whole run."""
        return max(1, round(self.epochs * self.steps_per_epoch(row_count)))

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of step 0..total-1: linear warm-up to the full rate, then the schedule down to nearly 0.

        >>> plan = TrainPlan(learning_rate=1.0, warmup_steps=2, schedule="linear")
        >>> [plan.rate_at(step, 6) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        warmup = self.warmup_steps or 0
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warmup) / max(1, total - warmup)
        if self.schedule == "linear":
            return self.learning_rate * (1 - done)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for cards and checkpoints."""
        return {**asdict(self), "targets": list(self.targets)}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that differ, as text; a run may only be resumed with the settings it began with.

    >>> differences({"epochs": 4, "seed": 0}, {"epochs": 5, "seed": 0})
    ['epochs 4 -> 5']
    """
    names = sorted({*before, *now} - {"save_every", "log_every"})
    return [f"{name} {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]


def _values(plan: TrainPlan) -> dict[str, Any]:
    return {field.name: getattr(plan, field.name) for field in fields(plan)}


def _option(name: str) -> str:
    return "--" + {"learning_rate": "rate"}.get(name, name).replace("_", "-")
