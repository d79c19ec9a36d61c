"""Names of alerts and of the series recorded for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

from alerts.promql import number
from slo.evaluation import BURN_PAIRS

NOT_COVERED = "SftSloNotCovered"
FAST = "Fast"
"""What the alert of a fast path has behind the name of its objective's own."""


def burn_suffix(factor: float) -> str:
    """The same for a pair of burn windows.

    >>> burn_suffix(14.4)
    'Burn14p4x'
    """
    return f"Burn{number(factor).replace('.', 'p')}x"


def alert_name(slo: str) -> str:
    """Return the alert of an objective.

    >>> alert_name("zero-hit"), alert_name("p95")
    ('SftSloZeroHit', 'SftSloP95')
    """
    return "SftSlo" + "".join(word[:1].upper() + word[1:] for word in re.split(r"[._-]+", slo) if word)


def alert_names(slos: Iterable[str]) -> dict[str, str]:
    """Return the alert of each objective; one that would not be alone with its name gets a piece of its hash.

    The alerts beside an objective's own have names, too: `errors-fast` must not be taken for the fast path of `errors`.

    >>> names = alert_names(["a-b", "a.b", "errors", "errors-fast"])
    >>> names["errors"], len(set(names.values())), "SftSloErrorsFast" in names.values()
    ('SftSloErrors', 4, False)
    """
    given = list(slos)
    own = Counter(alert_name(slo).lower() for slo in given)
    suffixes = (FAST, *(burn_suffix(pair.factor) for pair in BURN_PAIRS))
    others = {NOT_COVERED.lower(), *(f"{name}{suffix}".lower() for name in own for suffix in suffixes)}

    def named(slo: str) -> str:
        name = alert_name(slo)
        alone = own[name.lower()] == 1 and name.lower() not in others
        return name if alone else name + sha256(slo.encode()).hexdigest()[:4]

    return {slo: named(slo) for slo in given}
