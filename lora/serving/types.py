"""What travels between the HTTP side and the model's thread. Nothing here knows torch or the time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lora.guards import Guards

MIXED = "mixed"
"""Group of everything that may share a batch: the base and plain adapters."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is chosen. repetition_penalty 1.0 and no_repeat_ngram_size 0 are off; temperature 0 is greedy.

    stop: texts at which the answer ends; they are not part of it. seed: None takes chance.
    """

    max_tokens: int = 100
    temperature: float = 0.1
    top_p: float = 1.0
    repetition_penalty: float = 1.3
    no_repeat_ngram_size: int = 3
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @staticmethod
    def of(guards: Guards) -> Sampling:
        """The defaults of a server with these guards."""
        return Sampling(
            guards.max_new_tokens, guards.temperature, 1.0, guards.repetition_penalty, guards.no_repeat_ngram_size
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request as the queue sees it.

    group: only tickets of one group share a batch. tokens_count: the most it can hold, prompt and answer.
    arrived_s, deadline_s: on the monotonic clock.
    """

    number: int
    group: str
    tokens_count: int
    arrived_s: float
    deadline_s: float


@dataclass(slots=True)
class Row:
    """One answer under way. said: tokens chosen so far. adapter: None is the base. chance: torch.Generator or None."""

    number: int
    prompt: tuple[int, ...]
    sampling: Sampling
    adapter: str | None
    said: list[int] = field(default_factory=list)
    chance: Any = None


@dataclass(frozen=True, slots=True)
class Said:
    """More text of an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer. completion_tokens: all that were chosen, the one that ends the answer included."""

    finish_reason: str  # stop | length
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, or no more of it. status: what HTTP says when nothing was sent yet."""

    status: int
    kind: str
    message: str
    retry_after_s: int | None = None


Event = Said | Done | Failed
