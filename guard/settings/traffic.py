"""Sections about the traffic: listeners, routes, versions, budgets and sizes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from guard.ports import ContextSource, Limits, Route, Timeouts
from guard.settings.fields import Bytes, EnvName, Model, Name, Seconds, parse_origin, split_host_port
from slo.types import Version


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
    id_field: str = Field("doc_id", description="Field with the document's id when the list holds objects.")
    acl_field: str = Field("acl", description="Field with the roles that may see it when the list holds objects.")
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
    kb: str = Field(
        "", max_length=140, description="Knowledge base; MODEL@VERSION is looked up in the registry for incidents."
    )
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


def version_of(name: str, v: VersionSettings) -> Version:
    """What is compared between releases."""
    return Version(name, v.model, v.adapter, v.kb, v.prompt, v.policy)


def route_of(r: RouteSettings) -> Route:
    """As the data path wants it."""
    contexts = ContextSource(
        r.contexts.body,
        r.contexts.header,
        r.contexts.prompt_start,
        r.contexts.prompt_end,
        r.contexts.text_field,
        r.contexts.retrieval_s,
        r.contexts.id_field,
        r.contexts.acl_field,
    )
    return Route(r.name, r.path, r.adapter, contexts, r.question, r.answer, r.usage, r.error, r.priority)
