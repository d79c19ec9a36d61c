"""Section about where the windows are read from: this process alone, or a whole fleet by way of Prometheus."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from guard.settings.fields import EnvName, Model, Seconds, parse_origin


class WindowSettings(Model):
    """`local`: what this process counted. `prometheus`: what all replicas of the service counted together."""

    source: Literal["local", "prometheus"] = Field(
        "local", description="`local`: what this guard served; `prometheus`: what all replicas served."
    )
    url: str | None = Field(None, description="http(s)://host:port[/prefix] of Prometheus, or what speaks its API.")
    token_env: EnvName | None = Field(None, description="Environment variable with a bearer token for it.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="More labels that the series of this service have, for example a namespace."
    )
    scrape_interval: Seconds = Field(15.0, description="How often Prometheus scrapes the replicas.")
    stale_after: Seconds | None = Field(
        None, description="Newest sample older than this: everything is unknown. Default 4 scrape intervals."
    )
    timeout: Seconds = Field(3.0, description="For one batch of queries; what is later is unknown.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None:
            parse_origin(value)
        return value

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or name.startswith("__"):
                raise ValueError(f"`{name}` is not a label name; use letters, digits and underscore")
            if name in ("service", "release", "slo"):
                raise ValueError(f"`{name}` is set by the guard itself; leave it out")
        return value

    @model_validator(mode="after")
    def _complete(self) -> WindowSettings:
        if self.source == "prometheus" and self.url is None:
            raise ValueError("source is prometheus and url is missing; write url: http://prometheus:9090")
        if self.source == "local" and self.url is not None:
            raise ValueError("url is given and source is local; write source: prometheus, or remove url")
        if self.stale_after is not None and self.stale_after < 2 * self.scrape_interval:
            raise ValueError(
                f"stale_after is {self.stale_after:g} s with a scrape every {self.scrape_interval:g} s; "
                "at least two scrapes must fit"
            )
        return self

    @property
    def stale_s(self) -> float:
        """Age of the newest sample from which nothing is believed."""
        return self.stale_after if self.stale_after is not None else 4 * self.scrape_interval
