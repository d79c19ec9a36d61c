"""Sections about releases and those who are told of them: plan, registry, webhooks, Alertmanager."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from guard.settings.fields import EnvName, Model, Name, Ratio, Seconds, parse_origin


class StageSettings(Model):
    """One stage of a release plan."""

    weight: Ratio = Field(description="Share of the sessions that the canary gets.")
    hold: Seconds = Field(description="Least time in this stage.")
    min_events: int = Field(400, ge=0, description="Answers of the canary before the next stage.")


class ReleaseSettings(Model):
    """How releases are judged and moved."""

    stable: str = Field(description="Version that answers before any release was recorded.")
    mode: Literal["observe", "recommend", "enforce"] = Field(
        "recommend",
        description="`enforce` acts by itself; `recommend` and `observe` say what they would do and move nothing.",
    )
    plan: str | tuple[StageSettings, ...] = Field("default", description="default, short, `20% for 2h`, or stages.")
    unknown_action: Literal["hold", "drain"] = Field(
        "hold",
        description="A canary that cannot be judged for `unknown_after`: hold it, or take its traffic away.",
    )
    unknown_after: Seconds = Field(
        300.0, description="How long a canary may be `unknown` before `unknown_action` and a page."
    )
    max_rollbacks_per_day: int = Field(
        3, ge=0, le=100, description="Automatic rollbacks in 24 h; after them the guard holds and pages."
    )
    evaluate_every: Seconds = Field(
        5.0, le=30, description="Time between two evaluations of the rules; at most 30s: fast paths look at one minute."
    )
    salt: str = Field("", description="Changes which sessions form the canary.")


class RegistrySettings(Model):
    """Version registry: in process (SQLite in the state directory) or a service."""

    url: str | None = Field(None, description="http(s)://host:port of `sft-guard registry serve`.")
    token_env: EnvName | None = Field(None, description="Environment variable with the bearer token of the registry.")
    model: Name | None = Field(
        None,
        description="Model of the registry whose Production pointer follows the releases; default: the service's name.",
    )


class WebhookSettings(Model):
    """One receiver: signed webhooks (Standard Webhooks), or a chat that takes Slack's incoming webhooks.

    The address of a chat is its secret, so it may come from the environment.
    """

    name: Name = Field(description="Name of the receiver, in logs and `doctor`.")
    url: str = Field("", description="http(s) address; or url_env.")
    url_env: EnvName | None = Field(None, description="Environment variable with the address, for a chat.")
    format: Literal["standard", "slack"] = Field(
        "standard",
        description="`standard`: signed Standard Webhooks; `slack`: a message for a Slack-compatible receiver.",
    )
    secret_env: EnvName | None = Field(
        None, description="Environment variable with the whsec_ secret; two, comma-separated. Required for standard."
    )
    events: tuple[Literal["rollback", "shared_upstream", "page", "condition", "drill"], ...] = Field(
        ("rollback", "shared_upstream", "page", "condition", "drill"), description="What is sent to it."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value:
            parse_origin(value)
        return value

    @model_validator(mode="after")
    def _whole(self) -> WebhookSettings:
        if bool(self.url) is bool(self.url_env):
            raise ValueError("give either url or url_env")
        if self.format == "standard" and self.secret_env is None:
            raise ValueError("secret_env is required: webhooks are signed (format: slack is not)")
        return self


class AlertmanagerSettings(Model):
    """Where our own alerts are posted."""

    url: str = Field(description="http(s)://host:port of Alertmanager.")
    repost: Seconds = Field(60.0, description="How often an open incident is posted again.")
    runbook_url: str = Field(
        "", max_length=500, description="What stands before the name of a runbook page; see `alerts build`."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parse_origin(value)
        return value
