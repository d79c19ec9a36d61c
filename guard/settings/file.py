"""guard.yaml as a whole: the sections, and what must hold between them."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from guard.settings.cache import CacheSettings
from guard.settings.embeddings import EmbeddingsSettings
from guard.settings.fields import NAME, Model, Name
from guard.settings.measuring import CheckSettings, LogSettings
from guard.settings.release import AlertmanagerSettings, RegistrySettings, ReleaseSettings, WebhookSettings
from guard.settings.tracing import OtelSettings
from guard.settings.traffic import (
    Admin,
    LimitSettings,
    Listen,
    RouteSettings,
    TimeoutSettings,
    VersionSettings,
    version_of,
)
from guard.settings.windows import WindowSettings


class GuardFile(Model):
    """guard.yaml"""

    service: Name = Field(description="Name of the bot: label `service` of every metric, key of its control document.")
    listen: Listen = Listen()
    admin: Admin = Admin()
    state_dir: Path = Field(
        Path("state"), description="Release journal, windows, exchange log; one directory per guard."
    )
    slo: Path | None = Field(Path("slo.yaml"), description="The objectives; null to measure only.")
    baseline: Path | None = Field(None, description="baseline.json made by `sft-guard baseline collect`.")
    previous_baseline: Path | None = Field(
        None, description="Baseline of the previous release, for rules of the form previous x factor."
    )
    prices: Path | None = Field(None, description="prices.yaml; default: the table shipped with the program.")
    routes: tuple[RouteSettings, ...] = Field(min_length=1)
    versions: dict[str, VersionSettings] = Field(min_length=1)
    release: ReleaseSettings
    registry: RegistrySettings = RegistrySettings()
    cache: CacheSettings | None = Field(None, description="Answer cache; without this section nothing is cached.")
    windows: WindowSettings = WindowSettings()
    checks: CheckSettings = CheckSettings()
    embeddings: EmbeddingsSettings | None = Field(None, description="Endpoint of `checks: {embedder: endpoint}`.")
    exchange_log: LogSettings = LogSettings()
    webhooks: tuple[WebhookSettings, ...] = ()
    alertmanager: AlertmanagerSettings | None = None
    otel: OtelSettings | None = Field(None, description="Traces and GenAI metrics over OTLP.")
    timeouts: TimeoutSettings = TimeoutSettings()
    limits: LimitSettings = LimitSettings()

    @field_validator("versions")
    @classmethod
    def _names(cls, value: dict[str, VersionSettings]) -> dict[str, VersionSettings]:
        for name in value:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"`{name}` is not a version name; use lower-case letters, digits, dot, dash")
        seen: dict[str, str] = {}
        for name, version in value.items():
            release_id = version_of(name, version).release_id
            if release_id in seen:
                raise ValueError(
                    f"`{name}` and `{seen[release_id]}` have the same model, adapter, kb, prompt and policy, so they "
                    "are one release; give the part that differs a different value"
                )
            seen[release_id] = name
        return value

    @field_validator("routes")
    @classmethod
    def _unique_routes(cls, value: tuple[RouteSettings, ...]) -> tuple[RouteSettings, ...]:
        for field in ("name", "path"):
            words = [getattr(route, field) for route in value]
            twice = {w for w in words if words.count(w) > 1}
            if twice:
                raise ValueError(f"two routes have the {field} `{min(twice)}`; each {field} may appear once")
        return value

    @model_validator(mode="after")
    def _stable_exists(self) -> GuardFile:
        if self.release.stable not in self.versions:
            raise ValueError(
                f"release.stable is `{self.release.stable}`, which is not in versions ({', '.join(self.versions)})"
            )
        return self

    @model_validator(mode="after")
    def _endpoint_is_there(self) -> GuardFile:
        if self.checks.embedder == "endpoint" and self.embeddings is None:
            raise ValueError(
                "checks.embedder is `endpoint`, and there is no `embeddings`; add embeddings: {url: https://.../v1, "
                "model: NAME, api_key_env: VARIABLE}"
            )
        return self

    @model_validator(mode="after")
    def _cache_fits(self) -> GuardFile:
        if self.cache is None:
            return self
        adapters = {route.name: route.adapter for route in self.routes}
        for name in self.cache.routes:
            if name not in adapters:
                raise ValueError(f"cache.routes.{name}: no such route; routes are {', '.join(adapters)}")
            if adapters[name] == "passthrough":
                raise ValueError(f"cache.routes.{name}: answers of a passthrough route cannot be read, so not cached")
        for name in self.cache.semantic.routes if self.cache.semantic is not None else ():
            if name not in adapters:
                raise ValueError(f"cache.semantic.routes: `{name}`: no such route; routes are {', '.join(adapters)}")
        if self.cache.enabled and self.cache.admit == "checked" and not self.checks.enabled:
            raise ValueError("cache.admit is `checked` and checks are off; turn them on, or write admit: complete")
        return self
