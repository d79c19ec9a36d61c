"""guard.yaml and the environment: read once, checked once, frozen. The only place that reads `os.environ`.

`load_settings(path)` returns a `Settings`; every error is a ConfigError with file, path, value and cure. Durations are
written as `10m`, shares as `10%` or `0.1`, sizes as `64MiB`; inside they are seconds, ratios and bytes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from guard.ports import ContextSource, Endpoint, Limits, Route, Target, Timeouts
from slo.codec import text_hash
from slo.errors import ConfigError
from slo.spec import parse_duration_s
from slo.strict_yaml import load_yaml_file, validate_model
from slo.types import Version

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
DIALECT_NAMES = ("openai-chat", "openai-responses", "json", "passthrough")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|kB|MB|GB)?\s*$")
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def _duration(value: object) -> object:
    return parse_duration_s(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if not match:
        raise ValueError("write a size such as 64MiB or 4096")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def _ratio(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        # Percent is a border form; rounding keeps 0.1 % from becoming 0.0009999....
        return round(float(value.strip()[:-1]) / 100, 9)
    return value


Seconds = Annotated[
    float,
    BeforeValidator(_duration, json_schema_input_type=float | str),
    Field(gt=0, le=366 * 86400, description="Seconds, or a duration such as 30s, 10m, 24h."),
]
Bytes = Annotated[
    int, BeforeValidator(_size, json_schema_input_type=int | str), Field(gt=0, description="Bytes, or 64MiB.")
]
Ratio = Annotated[
    float,
    BeforeValidator(_ratio, json_schema_input_type=float | str),
    Field(ge=0, le=1, description="A share: 0.1 or 10%."),
]
Name = Annotated[str, Field(pattern=NAME, description="Lower-case letters, digits, dot, dash, underscore.")]
EnvName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$", description="Name of an environment variable.")]


class Model(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)


class Listen(Model):
    """Where the two listeners are. Loopback by default; the data port is the only one a bot needs."""

    data: str = Field("127.0.0.1:8800", description="host:port of the data listener.")
    admin: str = Field("127.0.0.1:8801", description="host:port of the admin listener.")

    @field_validator("data", "admin")
    @classmethod
    def _host_port(cls, value: str) -> str:
        split_host_port(value)
        return value

    @model_validator(mode="after")
    def _two_listeners(self) -> Listen:
        if self.data == self.admin and split_host_port(self.data)[1] != 0:
            raise ValueError(f"data and admin are both {self.data}; give each a port of its own")
        return self


class Admin(Model):
    """Admin listener. Without a token everything that changes state is off."""

    token_env: EnvName | None = Field(None, description="Environment variable with the bearer token.")
    token_file: Path | None = Field(None, description="File with the bearer token (mode 600).")
    allowed_hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost", "[::1]"), description="Host header values that are accepted, without port."
    )


class Contexts(Model):
    """Where the retrieved contexts of an answer are. Unknown contexts mean unchecked, never passed."""

    body: str = Field("", description="Dotted path in the response JSON, for example retrieval.contexts.")
    header: str = Field("", description="Response header that holds a JSON list.")
    prompt_start: str = Field("", description="Text before the contexts inside the last user message.")
    prompt_end: str = Field("", description="Text after the contexts inside the last user message.")
    text_field: str = Field("text", description="Field with the text when the list holds objects.")
    retrieval_s: str = Field("", description="Dotted path of the retrieval time in seconds.")


class RouteSettings(Model):
    """One route of the data listener."""

    name: Name
    path: str = Field(description="Exact path, or a prefix ending in *.", pattern=r"^/")
    adapter: Literal["openai-chat", "openai-responses", "json", "passthrough"]
    contexts: Contexts = Contexts()
    question: str = Field("question", description="json adapter: path of the question in the request.")
    answer: str = Field("answer", description="json adapter: path of the answer in the response.")
    usage: str = Field("usage", description="json adapter: path of the usage object.")
    error: str = Field("error", description="json adapter: path of an error object.")
    priority: int = Field(0, description="Routes with the lowest number are shed first.")


class VersionSettings(Model):
    """One release: what it is made of and where it is served."""

    upstreams: tuple[str, ...] = Field(min_length=1, description="Origins, http(s)://host:port[/base].")
    model: str = Field("", max_length=128)
    adapter: str = Field("", max_length=128)
    kb: str = Field("", max_length=128)
    prompt: str = Field("", max_length=128)
    policy: str = Field("", max_length=128)
    headers: dict[str, str] = Field(default_factory=dict, description="Headers set on every request to it.")
    api_key_env: EnvName | None = Field(None, description="Environment variable with the upstream's API key.")
    rename_model: str = Field("", description="Replaces `model` in the request.")
    details: dict[str, str] = Field(
        default_factory=dict, description="More to compare in an incident: chunking, prompt text hash, profile..."
    )

    @field_validator("upstreams")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parse_origin(origin)
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, content in value.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or any(c in content for c in "\r\n\0"):
                raise ValueError(f"`{name}` is not a header; use letters, digits and dashes, one line of text")
        return value


class StageSettings(Model):
    """One stage of a release plan."""

    weight: Ratio
    hold: Seconds
    min_events: int = Field(400, ge=0)


class ReleaseSettings(Model):
    """How releases are judged and moved."""

    stable: str = Field(description="Version that answers before any release was recorded.")
    mode: Literal["observe", "recommend", "enforce"] = Field(
        "recommend", description="Only enforce lets the guard act by itself."
    )
    plan: str | tuple[StageSettings, ...] = Field("default", description="default, short, `20% for 2h`, or stages.")
    unknown_action: Literal["hold", "drain"] = "hold"
    unknown_after: Seconds = 300.0
    max_rollbacks_per_day: int = Field(3, ge=0, le=100)
    evaluate_every: Seconds = 5.0
    salt: str = Field("", description="Changes which sessions form the canary.")


class RegistrySettings(Model):
    """Version registry: in process (SQLite in the state directory) or a service."""

    url: str | None = Field(None, description="http(s)://host:port of `sft-guard registry serve`.")
    token_env: EnvName | None = None
    model: Name = "faq-bot"


class DriftSettings(Model):
    """Query drift by centroid."""

    reference: Path | None = Field(None, description="File with the reference; else learnt from the first questions.")
    window: int = Field(200, ge=20, le=10_000, description="Questions per comparison.")


class CheckSettings(Model):
    """Checks off the path."""

    enabled: bool = True
    embedder: str = Field("all-MiniLM-L6-v2", description="Name or path of a sentence-transformers model, or none.")
    rules: Path | None = Field(None, description="rules.yaml")
    grounding_threshold: Ratio | None = Field(None, description="Else the calibrated one.")
    queue: int = Field(2000, ge=1, le=100_000)
    queue_bytes: Bytes = 8 * 2**20
    pii: bool = True
    drift: DriftSettings = DriftSettings()


class LogSettings(Model):
    """Exchange log."""

    enabled: bool = True
    dir: Path | None = Field(None, description="Default: exchanges/ in the state directory.")
    text: Literal["none", "redacted", "full"] = "redacted"
    segment: Bytes = 64 * 2**20
    keep: Seconds = 30 * 86400.0
    max_total: Bytes = 10 * 2**30


class WebhookSettings(Model):
    """One receiver of signed webhooks (Standard Webhooks)."""

    name: Name
    url: str
    secret_env: EnvName = Field(description="Environment variable with the whsec_ secret; two, comma-separated.")
    events: tuple[Literal["rollback", "shared_upstream", "page", "condition", "drill"], ...] = Field(
        ("rollback", "shared_upstream", "page", "condition", "drill"), description="What is sent to it."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parse_origin(value)
        return value


class AlertmanagerSettings(Model):
    """Where our own alerts are posted."""

    url: str
    repost: Seconds = 60.0

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parse_origin(value)
        return value


class TimeoutSettings(Model):
    """Budgets of one exchange."""

    connect: Seconds = 2.0
    first_byte: Seconds = 60.0
    idle: Seconds = 30.0
    total: Seconds = 600.0
    upstream_head: Seconds = 10.0
    request_head: Seconds = 10.0
    client_write_stall: Seconds = 60.0
    keep_alive: Seconds = 75.0
    upstream_keep_alive: Seconds = 60.0
    drain: Seconds = 25.0

    def to_ports(self) -> Timeouts:
        """As the data path wants them."""
        return Timeouts(
            connect_s=self.connect,
            first_byte_s=self.first_byte,
            idle_s=self.idle,
            total_s=self.total,
            upstream_head_s=self.upstream_head,
            request_head_s=self.request_head,
            client_write_stall_s=self.client_write_stall,
            keep_alive_s=self.keep_alive,
            upstream_keep_alive_s=self.upstream_keep_alive,
            drain_s=self.drain,
        )


class LimitSettings(Model):
    """Sizes and counts."""

    request_head: Bytes = 64 * 1024
    request_url: Bytes = 8 * 1024
    request_body: Bytes = 8 * 2**20
    upstream_head: Bytes = 64 * 1024
    client_buffer: Bytes = 256 * 1024
    capture: Bytes = 256 * 1024
    connections: int = Field(20_000, ge=1)
    concurrent_requests: int = Field(2_000, ge=1)
    upstream_connections: int = Field(1_000, ge=1)
    upstream_idle: int = Field(512, ge=0)

    def to_ports(self) -> Limits:
        """As the data path wants them."""
        return Limits(
            request_head_bytes=self.request_head,
            request_url_bytes=self.request_url,
            request_body_bytes=self.request_body,
            upstream_head_bytes=self.upstream_head,
            client_buffer_bytes=self.client_buffer,
            capture_bytes=self.capture,
            connections=self.connections,
            concurrent_requests=self.concurrent_requests,
            upstream_connections=self.upstream_connections,
            upstream_idle=self.upstream_idle,
        )


class GuardFile(Model):
    """guard.yaml"""

    service: Name
    listen: Listen = Listen()
    admin: Admin = Admin()
    state_dir: Path = Path("state")
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
    checks: CheckSettings = CheckSettings()
    exchange_log: LogSettings = LogSettings()
    webhooks: tuple[WebhookSettings, ...] = ()
    alertmanager: AlertmanagerSettings | None = None
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
            release_id = _version(name, version).release_id
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


class Settings:
    """A checked guard.yaml with its paths made absolute and its secrets read."""

    def __init__(self, path: Path, file: GuardFile, environment: dict[str, str], config_hash: str) -> None:
        self.path, self.file, self.config_hash = path, file, config_hash
        self.base_dir = path.parent
        self._environment = environment
        self.routes = tuple(_route(r) for r in file.routes)
        self.targets = {name: self._target(name, v) for name, v in file.versions.items()}
        self.admin_token = self._admin_token()
        self.webhook_secrets = {w.name: self._secrets(i, w) for i, w in enumerate(file.webhooks)}
        self.registry_token = self._env("registry.token_env", file.registry.token_env)

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
            raise ConfigError(
                f"{self.path.name}: {place}", name, f"set the environment variable {name}, or remove this line"
            )
        return value

    def _target(self, name: str, version: VersionSettings) -> Target:
        headers = tuple((k.lower(), v) for k, v in version.headers.items())
        key = self._env(f"versions.{name}.api_key_env", version.api_key_env)
        if key:
            headers = (*(h for h in headers if h[0] != "authorization"), ("authorization", f"Bearer {key}"))
        endpoints = tuple(parse_origin(origin) for origin in version.upstreams)
        return Target(_version(name, version), endpoints, headers, version.rename_model)

    def _admin_token(self) -> str | None:
        admin = self.file.admin
        if admin.token_file is not None:
            file = self.resolve(admin.token_file)
            try:
                token = file.read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"{self.path.name}: admin.token_file", str(file), f"make it readable ({error.strerror})"
                ) from error
            if len(token) < 16:
                raise ConfigError(
                    f"{self.path.name}: admin.token_file",
                    f"{len(token)} characters",
                    "write a token of at least 16 characters",
                )
            return token
        return self._env("admin.token_env", admin.token_env)

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
    document, text = load_yaml_file(path)
    file = validate_model(GuardFile, document, path.name)
    env = dict(os.environ) if environment is None else environment  # noqa: TID251 - this is the one place.
    return Settings(path, file, env, text_hash(text))


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


def parse_origin(text: str) -> Endpoint:
    """`https://host:port/base` as an Endpoint.

    Raises:
        ValueError: another scheme, user info, query or fragment, or no host.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"`{text}`: write http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in a URL; use api_key_env or headers")
    if parts.query or parts.fragment:
        raise ValueError(f"`{text}`: no query or fragment here")
    if not parts.hostname:
        raise ValueError(f"`{text}`: the host is missing")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Endpoint(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def split_host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:8800` or `[::1]:8800` in two parts. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535 or not host:
        raise ValueError(f"`{text}`: write host:port, for example 127.0.0.1:8800")
    return host.strip("[]"), int(port)


def _version(name: str, v: VersionSettings) -> Version:
    return Version(name, v.model, v.adapter, v.kb, v.prompt, v.policy)


def _route(r: RouteSettings) -> Route:
    contexts = ContextSource(
        r.contexts.body,
        r.contexts.header,
        r.contexts.prompt_start,
        r.contexts.prompt_end,
        r.contexts.text_field,
        r.contexts.retrieval_s,
    )
    return Route(r.name, r.path, r.adapter, contexts, r.question, r.answer, r.usage, r.error, r.priority)
