"""Sections of the slower grounding tiers: a detector model, and a judging model with a daily budget."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from guard.settings.fields import EnvName, Model, Ratio, Seconds, parse_origin

Band = tuple[Ratio, Ratio]


class _Tier(Model):
    band: Band | None = Field(
        None,
        description="Probabilities of a claim between which this tier decides; default: those that the calibration of "
        "its language found (`sft-guard combiner show`).",
    )
    threshold: Ratio = Field(0.5, description="Probability of being unsupported from which a claim fails.")

    @field_validator("band")
    @classmethod
    def _ordered(cls, value: Band | None) -> Band | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("write the lower bound first, such as [0.15, 0.85]")
        return value


class DetectorSettings(_Tier):
    """A Hugging Face sequence- or token-classification model. Needs the `embeddings` extra."""

    model: str = Field(description="Directory of a model, relative to this file, or a name in the local hub cache.")
    kind: Literal["auto", "nli", "tokens"] = Field(
        "auto",
        description="Sequence classification (nli), token classification (tokens), or as its configuration says.",
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?|mps|xpu)$", description="Where it runs.")
    labels: dict[str, Literal["supported", "unsupported", "contradicted"]] = Field(
        {}, description="Meaning of the model's labels, where their names do not tell."
    )
    timeout: Seconds = Field(10.0, description="For one answer; later it is `unavailable`.")
    load_timeout: Seconds = Field(120.0, description="For loading the model; later it is tried again.")
    window: int = Field(0, ge=0, le=8192, description="Tokens read at once; 0: what the model can.")
    overlap: int = Field(64, ge=0, le=2048, description="Tokens that two windows share.")
    batch: int = Field(8, ge=1, le=256, description="Pairs in one call of the model.")
    threads: int = Field(1, ge=1, le=64, description="Threads of the model.")
    waiting: int = Field(4, ge=1, le=16, description="Answers that wait for the model; beyond, it is skipped.")
    golden: Path | None = Field(None, description="Own golden pairs; default: the shipped ones.")
    ask_all: bool = Field(False, description="Also judge answers of which the tiers before are sure.")
    allow_download: bool = Field(False, description="Look at the model hub for what is not on this machine.")


class JudgePrice(Model):
    """USD per 1M tokens."""

    input: float = Field(ge=0, le=1000, description="USD per million tokens read.")
    output: float = Field(ge=0, le=1000, description="USD per million tokens written.")


class JudgeSettings(_Tier):
    """An OpenAI-compatible model that grades answers, within a budget."""

    url: str = Field(description="Ends before /chat/completions, such as https://api.example.com/v1.")
    model: str = Field(min_length=1, description="Name of the model at that endpoint.")
    api_key_env: EnvName | None = Field(None, description="Environment variable with its key.")
    price: JudgePrice | None = Field(None, description="Else the price table; {input: 0, output: 0} for own hardware.")
    daily_usd: float = Field(1.0, ge=0, le=100_000, description="What it may cost a day; then it is not asked.")
    daily_calls: int = Field(1000, ge=0, le=10_000_000, description="Calls a day.")
    sample: Ratio = Field(0.0, description="Share of the answers judged although the tiers before are sure.")
    timeout: Seconds = Field(20.0, le=25.0, description="For one answer; later it is `unavailable`.")
    redact: bool = Field(True, description="Take personal data out before anything leaves.")
    selftest: bool = Field(True, description="Ask a few golden pairs at the start and hourly; they count as calls.")

    @field_validator("url")
    @classmethod
    def _origin(cls, value: str) -> str:
        parse_origin(value)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _plain_key(self) -> JudgeSettings:
        origin = parse_origin(self.url)
        if self.api_key_env and origin.scheme == "http" and origin.host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("an API key would be sent in clear text; use https")
        return self
