"""Deliveries of Alertmanager: its webhook, version "4", read strictly where we act on it and leniently elsewhere.

Alertmanager gives an alert up on any 4xx, so only what is no version-4 delivery at all is refused; an alert that no
rule names is stored like the others.
Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from guard.admin.shapes import AlertBatch, AlertIn
from slo.errors import DataError


class _Alert(msgspec.Struct, rename="camel"):
    status: str = "firing"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    starts_at: str = ""
    ends_at: str = ""
    generator_url: str = msgspec.field(default="", name="generatorURL")
    fingerprint: str = ""


class _Delivery(msgspec.Struct, rename="camel"):
    version: str
    alerts: list[_Alert]
    receiver: str = ""
    status: str = ""
    group_key: str = ""
    truncated_alerts: int = 0


_decode = msgspec.json.Decoder(_Delivery).decode


def read_delivery(body: bytes) -> AlertBatch:
    """Return the alerts of one delivery.

    Raises:
        DataError: not JSON, not version "4", or a field of the wrong type; the message names it.
    """
    try:
        delivery = _decode(body)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes that are no UTF-8
        raise DataError(f"not a delivery of Alertmanager ({error}); send its webhook, version 4") from error
    if delivery.version != "4":
        raise DataError(f"version: got {delivery.version!r}; send the webhook of Alertmanager, version 4")
    return AlertBatch(
        receiver=delivery.receiver,
        group_key=delivery.group_key,
        status=delivery.status,
        truncated_count=delivery.truncated_alerts,
        alerts=tuple(
            AlertIn(
                fingerprint=alert.fingerprint or _fingerprint(alert.labels),
                # Anything but "resolved" is a reason to look.
                status="resolved" if alert.status == "resolved" else "firing",
                starts_at=alert.starts_at,
                ends_at=alert.ends_at,
                labels=alert.labels,
                annotations=alert.annotations,
                generator_url=alert.generator_url,
            )
            for alert in delivery.alerts
        ),
    )


def _fingerprint(labels: dict[str, str]) -> str:
    """Alertmanager always sends one; other senders of its format may not."""
    text = "\x1f".join(f"{name}\x1e{value}" for name, value in sorted(labels.items()))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
