"""Sections `cache.warming` and `cache.semantic`: how a new release is filled, and who may share similar questions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from guard.settings.fields import Model, Name, Ratio, Seconds

Milli = Annotated[Seconds, Field(le=0.5)]


class WarmingSettings(Model):
    """Progressive replacement: a release that begins to take traffic is filled from the hottest keys."""

    enabled: bool = Field(
        True, description="Fill a new release with the questions that are asked most, before it gets traffic."
    )
    requests_per_minute: int = Field(60, ge=1, le=6000, description="Never more in any minute.")
    usd_per_hour: float = Field(2.0, ge=0, le=10_000, description="Never more in any hour, by the price table.")
    in_flight: int = Field(2, ge=1, le=64, description="Warm-up requests under way at once.")
    span: Seconds = Field(1800.0, description="How long after its first traffic a release is warmed.")
    keys: int = Field(512, ge=1, le=8192, description="Hottest keys remembered per tenant and route, eight of those.")
    least_count: float = Field(
        2.0, ge=1.0, description="How often a key must have been asked within some hours (half-life six)."
    )


class SemanticSettings(Model):
    """Answers to questions that mean the same. Off without this section; every route and tenant is named."""

    routes: tuple[Name, ...] = Field(min_length=1, description="Routes that may be answered so.")
    tenants: tuple[str, ...] = Field(min_length=1, description='Names as in x-guard-tenant; "*" for everybody.')
    threshold: float = Field(0.92, ge=0.8, le=0.999, description="Least cosine; the gate is asked above it.")
    budget: Milli = Field(0.05, description="Longest wait of a request; later it is a miss.")
    recheck: Ratio = Field(0.05, description="Share of the semantic hits that is asked again and compared.")
    false_hits: Ratio = Field(0.01, description="Share of wrong hits above which the route becomes stricter, then off.")
    embedder: str = Field("all-MiniLM-L6-v2", description="For English; `none` refuses English questions.")
    entries: int = Field(20_000, ge=1, le=200_000, description="Questions kept, over all tenants (about 2 kB each).")
