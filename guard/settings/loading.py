"""From file and environment to `Settings`: paths absolute, secrets read. The only place that reads `os.environ`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from guard.ports import Target
from guard.settings.answer_rules import with_rule_hashes
from guard.settings.fields import parse_origin
from guard.settings.file import GuardFile
from guard.settings.release import WebhookSettings
from guard.settings.tracing import read_headers
from guard.settings.traffic import VersionSettings, route_of, version_of
from slo.codec import text_hash
from slo.errors import ConfigError
from slo.strict_yaml import INIT, load_yaml_file, validate_model

_OF_THE_CALLER = frozenset({"authorization", "cookie", "x-api-key", "api-key"})
"""Headers that one version may set and another takes from the client."""

UNSET = "set the environment variable {}, or remove this line"
_STAND_INS = {"secret_env": "whsec_c3RhbmQtaW46IG5vdCBzZXQ=", "url_env": "http://stand-in.invalid"}


class Settings:
    """A checked guard.yaml with its paths made absolute and its secrets read."""

    def __init__(self, path: Path, file: GuardFile, environment: dict[str, str], config_hash: str) -> None:
        self.path, self.file, self.config_hash = path, file, config_hash
        self.base_dir = path.parent
        self._environment = environment
        self.routes = tuple(route_of(r) for r in file.routes)
        own = frozenset(name.lower() for v in file.versions.values() for name in v.headers) - _OF_THE_CALLER
        self.targets = {name: self._target(name, v, own) for name, v in file.versions.items()}
        self.admin_token = self._admin_token()
        self.webhook_secrets = {w.name: self._secrets(i, w) for i, w in enumerate(file.webhooks) if w.secret_env}
        self.webhook_urls = {w.name: self._webhook_url(i, w) for i, w in enumerate(file.webhooks)}
        self.registry_token = self._env("registry.token_env", file.registry.token_env)
        self.prometheus_token = self._env("windows.token_env", file.windows.token_env)
        judge = file.checks.judge
        self.judge_key = self._env("checks.judge.api_key_env", judge.api_key_env) if judge is not None else None
        asked = file.embeddings
        self.embeddings_key = self._env("embeddings.api_key_env", asked.api_key_env) if asked is not None else None
        self.otel_headers = self._otel_headers()
        self.safety_canary = self._env("checks.safety.leak.canary_env", file.checks.safety.leak.canary_env)
        redis = file.cache.redis if file.cache is not None and file.cache.enabled else None
        self.redis_password = self._env("cache.redis.password_env", redis.password_env) if redis else None
        self.cache_secret = self._cache_secret(redis.hmac_key_env) if redis else None

    def resolve(self, path: Path) -> Path:
        """A path written in the file is relative to the file."""
        return path if path.is_absolute() else self.base_dir / path

    @property
    def state_dir(self) -> Path:
        return self.resolve(self.file.state_dir)

    @property
    def log_dir(self) -> Path:
        return self.resolve(self.file.exchange_log.dir) if self.file.exchange_log.dir else self.state_dir / "exchanges"

    def _env(self, place: str, name: str | None) -> str | None:
        if name is None:
            return None
        value = self._environment.get(name, "").strip()
        if not value:
            raise ConfigError(f"{self.path.name}: {place}", name, UNSET.format(name))
        return value

    def _target(self, name: str, version: VersionSettings, own: frozenset[str]) -> Target:
        headers = tuple((k.lower(), v) for k, v in version.headers.items())
        place = f"versions.{name}.api_key_env"
        key = self._env(place, version.api_key_env)
        if key and not (key.isascii() and key.isprintable()):
            cure = "its value holds what no header carries, such as a line break; copy it anew"
            raise ConfigError(f"{self.path.name}: {place}", version.api_key_env, cure)
        if key:
            headers = (*(h for h in headers if h[0] != "authorization"), ("authorization", f"Bearer {key}"))
        endpoints = tuple(parse_origin(origin) for origin in version.upstreams)
        # A client that sends what chooses another version would be answered by that one and counted for this one.
        dropped = own - {header for header, _ in headers}
        return Target(version_of(name, version), endpoints, headers, version.rename_model, dropped)

    def _admin_token(self) -> str | None:
        admin = self.file.admin
        if admin.token_file is not None:
            file = self.resolve(admin.token_file)
            try:
                token = file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                cure = f"make it readable ({getattr(error, 'strerror', None) or 'it is not text'})"
                raise ConfigError(f"{self.path.name}: admin.token_file", str(file), cure) from error
            if len(token) < 16:
                raise ConfigError(
                    f"{self.path.name}: admin.token_file",
                    f"{len(token)} characters",
                    "write a token of at least 16 characters",
                )
            return token
        return self._env("admin.token_env", admin.token_env)

    def _otel_headers(self) -> dict[str, str]:
        name = self.file.otel.headers_env if self.file.otel else None
        try:
            return read_headers(self._env("otel.headers_env", name) or "")
        except ValueError as error:
            raise ConfigError(f"{self.path.name}: otel.headers_env", name, str(error)) from error

    def _cache_secret(self, name: str) -> bytes:
        secret = (self._env("cache.redis.hmac_key_env", name) or "").encode()
        if len(secret) < 16:
            cure = "give a random value of at least 16 bytes, the same on every replica"
            raise ConfigError(f"{self.path.name}: cache.redis.hmac_key_env", f"{len(secret)} bytes", cure)
        return secret

    def _webhook_url(self, index: int, webhook: WebhookSettings) -> str:
        if webhook.url_env is None:
            return webhook.url
        place = f"webhooks[{index}].url_env"
        url = self._env(place, webhook.url_env) or ""
        try:
            parse_origin(url)
        except ValueError:  # the address is a secret: it is not shown
            raise ConfigError(
                f"{self.path.name}: {place}", webhook.url_env, "its value must be an http(s) URL"
            ) from None
        return url

    def _secrets(self, index: int, webhook: WebhookSettings) -> tuple[str, ...]:
        place = f"webhooks[{index}].secret_env"
        secrets = tuple(s.strip() for s in (self._env(place, webhook.secret_env) or "").split(","))
        for secret in secrets:
            if not secret.startswith("whsec_"):
                raise ConfigError(
                    f"{self.path.name}: {place}",
                    webhook.secret_env,
                    "its value must start with whsec_ (Standard Webhooks)",
                )
        return secrets


def load_settings(path: Path | str, environment: dict[str, str] | None = None) -> Settings:
    """Read and check guard.yaml.

    Raises:
        ConfigError: the file is missing, not YAML, has an unknown key or a wrong value, or names a secret that is
            not in the environment.
    """
    path = Path(path)
    document, text = load_yaml_file(path, INIT)
    file = with_rule_hashes(validate_model(GuardFile, document, path.name), path.name, path.parent)
    env = dict(os.environ) if environment is None else environment  # noqa: TID251 - this is the one place.
    return Settings(path, file, env, text_hash(text))


def load_without_secrets(path: Path | str) -> tuple[Settings, dict[str, str]]:
    """As `load_settings`, for who only looks: (settings, variable -> place of each that is not set).

    Those have stand-ins of the right form, which open nothing. The person on call has the file, and rarely its secrets.

    Raises:
        ConfigError: anything else that is wrong.
    """
    env = dict(os.environ)  # noqa: TID251 - this is the one place.
    missing: dict[str, str] = {}
    while True:
        try:
            return load_settings(path, env), missing
        except ConfigError as error:
            name = str(error.value)
            if error.cure != UNSET.format(name) or name in missing:
                raise
            field = error.place.rpartition(".")[2]
            env[name] = _STAND_INS.get(field, "x-stand-in=not-set")
            missing[name] = error.place.partition(": ")[2]


def environment_value(name: str) -> str | None:
    """A variable of the environment for commands (tokens); None when unset or empty."""
    return os.environ.get(name) or None  # noqa: TID251 - this is the one place.


def child_environment(**changes: str) -> dict[str, str]:
    """The environment for a process we start, with `changes`."""
    return {**os.environ, **changes}  # noqa: TID251 - this is the one place.


def guard_json_schema() -> dict[str, Any]:
    """JSON Schema of guard.yaml, for editors."""
    schema = GuardFile.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "guard.yaml"}
