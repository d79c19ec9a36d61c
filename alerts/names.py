"""Names of alerts and of the series recorded for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256


def alert_name(slo: str) -> str:
    """Return the alert of an objective.

    >>> alert_name("zero-hit"), alert_name("p95")
    ('SftSloZeroHit', 'SftSloP95')
    """
    return "SftSlo" + "".join(word[:1].upper() + word[1:] for word in re.split(r"[._-]+", slo) if word)


def alert_names(slos: Iterable[str]) -> dict[str, str]:
    """Return the alert of each objective; two that would share one get a piece of their hash.

    >>> alert_names(["a-b", "a.b", "c"])["c"]
    'SftSloC'
    """
    given = list(slos)
    plain = [alert_name(slo).lower() for slo in given]
    return {
        slo: alert_name(slo)
        + (sha256(slo.encode()).hexdigest()[:4] if plain.count(alert_name(slo).lower()) > 1 else "")
        for slo in given
    }
