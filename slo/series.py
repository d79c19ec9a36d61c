"""Names of the series that rules outside the process are made of. Pure.

Written by `guard.rule_counters`, read by `alerts`: one place, so that both mean the same.
"""

from __future__ import annotations

from slo.indicators import COST, HALLUCINATION, SIMILARITY, ZERO_HIT
from slo.types import Slo

EVENTS = "sft_slo_events_total"
BAD = "sft_slo_bad_events_total"
UNJUDGED = "sft_slo_unjudged_events_total"
VALUES = "sft_slo_values_total"
SQUARES = "sft_slo_value_squares_total"

_UNJUDGEABLE = frozenset({HALLUCINATION, SIMILARITY, ZERO_HIT, COST})
"""Indicators for which an exchange can lack a judgement: a check that could not look, a price that is not known."""


def has_unjudged(slo: Slo) -> bool:
    """Return whether events of this objective can go unjudged, so that coverage is a question."""
    return slo.indicator in _UNJUDGEABLE
