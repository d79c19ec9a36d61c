"""Section of an embeddings endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from guard.settings.fields import EnvName, Model, Seconds, parse_origin


class EmbeddingsSettings(Model):
    """An OpenAI-compatible embeddings endpoint; `checks: {embedder: endpoint}` uses it."""

    url: str = Field(description="Ends before /embeddings, such as https://api.example.com/v1.")
    model: str = Field(min_length=1, description="Name of the model at that endpoint.")
    api_key_env: EnvName | None = Field(None, description="Environment variable with its key.")
    dim: int = Field(0, ge=0, le=65_536, description="Dimensions that must come back; 0: those of the first answer.")
    batch: int = Field(64, ge=1, le=2048, description="Texts of one call.")
    timeout: Seconds = Field(5.0, le=60.0, description="For one call; later there is no similarity (`unavailable`).")
    scripts: Literal["all", "latin"] = Field("all", description="latin: hashed character n-grams serve the others.")

    @field_validator("url")
    @classmethod
    def _origin(cls, value: str) -> str:
        parse_origin(value)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _plain_key(self) -> EmbeddingsSettings:
        origin = parse_origin(self.url)
        if self.api_key_env and origin.scheme == "http" and origin.host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("an API key would be sent in clear text; use https")
        return self
