"""Alerts that come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AlertIn:
    """One alert of Alertmanager. (fingerprint, starts_at, status) is what makes it the same alert again."""

    fingerprint: str
    status: str  # firing | resolved
    starts_at: str  # RFC 3339, as sent
    ends_at: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    generator_url: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal keys are one alert, however often it is sent."""
        return self.fingerprint, self.starts_at, self.status


@dataclass(frozen=True, slots=True)
class AlertBatch:
    """One delivery of Alertmanager."""

    receiver: str
    group_key: str
    status: str
    truncated_count: int
    alerts: tuple[AlertIn, ...]


@dataclass(frozen=True, slots=True)
class AlertsStored:
    """How many of a delivery were new, how many were known, and how many the sender left out (`max_alerts`)."""

    stored_count: int
    duplicate_count: int
    truncated_count: int = 0
