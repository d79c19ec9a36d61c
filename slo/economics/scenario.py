"""A cost scenario: the numbers a team knows about its bot, from YAML. Strict, unit-safe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from slo.errors import ConfigError
from slo.pricing import HIGHEST_USD
from slo.strict_yaml import load_yaml_file, validate_model

SHIPPED = Path(__file__).parent / "scenarios"


def _ratio(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        return round(float(value.strip()[:-1]) / 100, 9)
    return value


def _range(value: object) -> object:
    return (value, value) if isinstance(value, (int, float)) else value


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, BeforeValidator(_ratio), Field(ge=0, le=1)]
Range = Annotated[tuple[Amount, Amount], BeforeValidator(_range)]
"""Low and high; a single number is both."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Section):
    """USD per `unit`. What a model of this kind costs; 0 for what is not paid per token."""

    unit: Literal["per_1k_tokens", "per_1M_tokens"]
    input: Amount
    output: Amount
    embedding: Amount = 0.0
    training: Amount = 0.0

    def per_1m(self, name: str) -> float:
        """One of the prices in USD per 1M tokens."""
        return float(getattr(self, name)) * (1000.0 if self.unit == "per_1k_tokens" else 1.0)


class Traffic(_Section):
    """A day of the bot."""

    requests_per_day: Amount
    question_tokens: Amount
    context_tokens: Amount = 0.0
    answer_tokens: Amount
    cache_hit_ratio: Ratio = 0.0


class LocalEmbedding(_Section):
    """Embedding the whole knowledge base on rented hardware."""

    minutes: Amount
    usd_per_hour: Amount


class KnowledgeBase(_Section):
    """What is embedded and kept."""

    chunks: Amount
    tokens_per_chunk: Amount
    new_chunks_per_week: Amount = 0.0
    local_embedding: LocalEmbedding | None = None
    index_mb: Amount = 0.0
    storage_usd_per_gb_month: Amount = 0.0


class Cache(_Section):
    """Memory of the answer cache."""

    gb: Amount
    usd_per_gb_month: Amount


class FineTune(_Section):
    """Training at a provider."""

    training_tokens: Amount
    runs_per_year: Amount = 4.0


class Lora(_Section):
    """Training on one's own."""

    gpu_hours: Amount
    usd_per_hour: Amount
    data_preparation_usd: Amount = 0.0


class Canary(_Section):
    """A release that costs something else per request for a while."""

    hours: Amount
    weight: Ratio
    canary_usd_per_request: Amount
    stable_usd_per_request: Amount


class Option(_Section):
    """One way to run the model. per_token: something fixed and a price per token; fixed: the same whatever is asked."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    kind: Literal["per_token", "fixed"]
    fixed_usd_per_month: Amount = 0.0
    usd_per_1m_tokens: Amount = 0.0
    parts: dict[str, Range] = Field(default_factory=dict)
    fte: Range | None = None
    rounded_usd_per_month: Range | None = None

    @model_validator(mode="after")
    def _whole(self) -> Option:
        if self.kind == "per_token" and self.usd_per_1m_tokens <= 0:
            raise ValueError("a per_token option needs usd_per_1m_tokens above 0")
        if self.kind == "fixed" and not self.parts:
            raise ValueError("a fixed option needs parts, for example {hardware: 333, power: 36}")
        return self

    @property
    def fixed_range(self) -> tuple[float, float]:
        """USD a month without people and without tokens."""
        low = sum(part[0] for part in self.parts.values()) + self.fixed_usd_per_month
        return low, sum(part[1] for part in self.parts.values()) + self.fixed_usd_per_month


class Scenario(_Section):
    """Everything the cost commands need; sections that are absent are left out of the tables."""

    name: str
    prices: Prices
    traffic: Traffic
    knowledge_base: KnowledgeBase | None = None
    cache: Cache | None = None
    fine_tune: FineTune | None = None
    lora: Lora | None = None
    canary: Canary | None = None
    tokens_per_month: Amount | None = None
    fte_usd_per_month: Amount = 5500.0
    options: tuple[Option, ...] = ()
    recommend_up_to_tokens_per_month: dict[str, Amount] = Field(default_factory=dict)

    def warnings(self) -> tuple[str, ...]:
        """Prices that look a thousand times off: list prices are written per 1M tokens nowadays."""
        high = [
            f"{name} {self.prices.per_1m(name):g}"
            for name in ("input", "output", "embedding", "training")
            # An embedding at over 10 USD per 1M is as suspicious as a model at over half the highest list price.
            if self.prices.per_1m(name) > (10.0 if name == "embedding" else HIGHEST_USD / 2)
        ]
        if not high:
            return ()
        return (
            f"prices: {', '.join(high)} USD per 1M tokens: a thousand times off? The file says {self.prices.unit}; "
            "list prices are written per 1M tokens, then write unit: per_1M_tokens",
        )


def load_scenario(name_or_path: str) -> Scenario:
    """Read a shipped scenario by name, or a file.

    Raises:
        ConfigError: no such file, an unknown key, a wrong value.
    """
    shipped = SHIPPED / f"{name_or_path}.yaml"
    path = shipped if "/" not in name_or_path and shipped.is_file() else Path(name_or_path)
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ConfigError("--scenario", name_or_path, f"name a YAML file, or one of: {names}")
    document, _ = load_yaml_file(path)
    return validate_model(Scenario, document, path.name)
