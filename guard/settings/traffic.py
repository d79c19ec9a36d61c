"""Sections about the traffic: listeners, routes, versions, budgets and sizes."""

from __future__ import annotations

import ipaddress
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

    name: Name = Field(description="Label `route` of the metrics; `routes` of an objective and of the cache name it.")
    path: str = Field(description="Exact path, or a prefix ending in *.", pattern=r"^/")
    adapter: Literal["openai-chat", "openai-responses", "json", "passthrough"] = Field(
        description="How requests and answers of the route are read; `passthrough` reads nothing."
    )
    contexts: Contexts = Contexts()
    question: str = Field("question", description="json adapter: path of the question in the request.")
    answer: str = Field("answer", description="json adapter: path of the answer in the response.")
    usage: str = Field("usage", description="json adapter: path of the usage object.")
    error: str = Field("error", description="json adapter: path of an error object.")
    priority: int = Field(0, description="Routes with the lowest number are shed first.")


class VersionSettings(Model):
    """One release: what it is made of and where it is served."""

    upstreams: tuple[str, ...] = Field(min_length=1, description="Origins, http(s)://host:port[/base].")
    model: str = Field("", max_length=128, description="Part of the release: which model answers.")
    adapter: str = Field("", max_length=128, description="Part of the release: which LoRA or other adapter.")
    kb: str = Field(
        "", max_length=140, description="Knowledge base; MODEL@VERSION is looked up in the registry for incidents."
    )
    prompt: str = Field("", max_length=128, description="Part of the release: which prompt.")
    policy: str = Field("", max_length=128, description="Part of the release: which answering policy (rules, routing).")
    answer_rules: Path | None = Field(
        None, description="Rule file of its answer path (`kb serve --rules`): its hash becomes part of the release."
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Set on every request to it; clients cannot send one that any version sets."
    )
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
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise ValueError(f"`{name}` is not a header; use letters, digits and dashes")
            if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", content):
                raise ValueError(f"`{name}`: no header carries such a value; write one line of ASCII")
        return value


class TimeoutSettings(Model):
    """Budgets of one exchange."""

    connect: Seconds = Field(2.0, description="Opening a connection to an upstream; then 504.")
    first_byte: Seconds = Field(60.0, description="From the request to the first byte of the answer; then 504.")
    idle: Seconds = Field(30.0, description="Between two reads of an answer; then an error frame ends the stream.")
    total: Seconds = Field(600.0, description="The whole exchange.")
    upstream_head: Seconds = Field(10.0, description="Headers of the answer, from their first byte.")
    request_head: Seconds = Field(10.0, description="Head of a request, from its first byte; then 408.")
    client_write_stall: Seconds = Field(60.0, description="A client that reads nothing for so long is dropped.")
    keep_alive: Seconds = Field(75.0, description="An idle connection of a client is closed after it.")
    upstream_keep_alive: Seconds = Field(60.0, description="An idle connection to an upstream is closed after it.")
    drain: Seconds = Field(25.0, description="After SIGTERM: time for streams to finish.")

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

    request_head: Bytes = Field(64 * 1024, description="Larger heads get 431.")
    request_url: Bytes = Field(8 * 1024, description="Longer URLs get 414.")
    request_body: Bytes = Field(8 * 2**20, description="Larger bodies get 413.")
    upstream_head: Bytes = Field(64 * 1024, description="Larger heads of an upstream are a 502.")
    client_buffer: Bytes = Field(256 * 1024, description="Held for a slow client before the upstream is told to wait.")
    capture: Bytes = Field(256 * 1024, description="Kept of an answer for the checks; more is marked as truncated.")
    connections: int = Field(20_000, ge=1, description="Open connections on the data listener; more get 503.")
    concurrent_requests: int = Field(
        2_000, ge=1, description="Requests in progress; more are shed with 503 and Retry-After."
    )
    upstream_connections: int = Field(1_000, ge=1, description="Open connections to each origin of the upstreams.")
    upstream_idle: int = Field(512, ge=0, description="Idle connections kept to each origin of the upstreams.")
    egress_networks: tuple[str, ...] = Field(
        (),
        description="Networks that names of upstreams, webhooks, registry, Alertmanager, Prometheus, judge, embeddings"
        " and OTLP receiver (over http) may lead into as well, such as 10.0.0.0/8. Public names lead to public"
        " addresses only; names without a dot and of private zones (.svc, .internal, .local, ...) anywhere but to"
        " link-local ones. Read at the start.",
    )

    @field_validator("egress_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"`{network}` is no network ({error}); write it as 10.0.0.0/8") from error
        return value

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
    """What is compared between releases. Where rules were not read yet their path stands for them."""
    policy = v.policy if v.answer_rules is None else f"{v.policy}+{v.answer_rules}"
    return Version(name, v.model, v.adapter, v.kb, v.prompt, policy)


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
