"""Section about OpenTelemetry: where spans and GenAI metrics go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from guard.settings.fields import EnvName, Model, Ratio, parse_origin


class OtelSettings(Model):
    """An OTLP receiver. Needs the `otel` extra."""

    endpoint: str = Field(description="http(s)://host:port of the receiver; 4318 is usual for http, 4317 for grpc.")
    protocol: Literal["http", "grpc"] = Field("http", description="OTLP over HTTP or gRPC.")
    sample: Ratio = Field(0.1, description="Share of the traces kept when the client did not decide; failures always.")
    provider: str = Field("openai", max_length=64, description="gen_ai.provider.name of the model behind the guard.")
    headers_env: EnvName | None = Field(None, description="Environment variable with headers, name=value,name=value.")
    metrics: bool = Field(True, description="Send the gen_ai.* histograms, too.")
    content: bool = Field(False, description="Put the redacted question and answer into spans.")

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        parse_origin(value)
        return value


def read_headers(text: str) -> dict[str, str]:
    """`name=value,name=value` as OTEL_EXPORTER_OTLP_HEADERS writes it. Raises ValueError."""
    found = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError("write name=value,name=value")
        found[name.strip().lower()] = value.strip()
    return found
