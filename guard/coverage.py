"""What the guard knows of its own sight: how much of the traffic each check judged, and what it may not judge now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from slo.indicators import INDICATOR_OF_CHECK
from slo.types import CacheStatus, CheckResult, Exchange, Outcome

_JUDGED = (CheckResult.PASS, CheckResult.FAIL)


def check_coverage(exchanges: Iterable[Exchange]) -> dict[str, float]:
    """Check -> share of the whole, fresh answers that it judged (pass or fail).

    Skipped counts as not judged: an answer without known contexts, or one that a sampled check did not look at, is one
    of which the check knows nothing. Exchanges without findings are still on their way and left out.
    """
    judged: Counter[str] = Counter()
    count = 0
    for exchange in exchanges:
        if exchange.outcome is not Outcome.OK or exchange.cache is CacheStatus.HIT or not exchange.findings:
            continue
        count += 1
        for finding in exchange.findings:
            judged[finding.check] += finding.result in _JUDGED
    return {check: n / count for check, n in judged.items()} if count else {}


def blind_indicators(blind: Mapping[str, str]) -> dict[str, str]:
    """Indicator -> why no rule on it may act: the check behind it may not be believed.

    >>> blind_indicators({"grounding": "calibration.json was changed", "judge": "no budget"})
    {'sft_quality_hallucination_rate': 'calibration.json was changed'}
    """
    return {INDICATOR_OF_CHECK[check]: why for check, why in blind.items() if check in INDICATOR_OF_CHECK}
