"""What the guard knows of its own sight: how much of the traffic each check judged, and what it may not judge now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from guard.admin.shapes import CorrectedRow
from guard.human_labels import HumanLabels
from slo.indicators import INDICATOR_OF_CHECK
from slo.ppi import MIN_LABELS
from slo.types import CacheStatus, CheckResult, Exchange, Outcome, Version

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


def corrected_row(version: Version, labels: HumanLabels) -> CorrectedRow:
    """What people's labels make of the measured hallucination rate of one version."""
    counts, found = labels.counts(version.release_id), labels.corrected(version.release_id)
    measured = counts.flagged_count / counts.answer_count if counts.answer_count else None
    row = CorrectedRow(version.name, version.release_id, measured, counts.label_count, MIN_LABELS)
    return row if found is None else replace(row, rate_ratio=found.rate, low_ratio=found.low, high_ratio=found.high)
