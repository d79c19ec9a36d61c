"""Single exchanges and their words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What one check said."""

    check: str
    result: str
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """One recent exchange: numbers and labels, no words."""

    exchange_id: str
    wall_s: float
    route: str
    release: str
    arm: str
    outcome: str
    status: int
    reason: str
    duration_s: float
    first_token_s: float | None
    stream: bool
    cache: str
    input_tokens: int | None
    output_tokens: int | None
    usage: str
    cost_usd: float | None
    findings: tuple[FindingRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeList:
    """Newest first."""

    exchanges: tuple[ExchangeRow, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What was said in one exchange, redacted as in the exchange log."""

    question: str
    answer: str
