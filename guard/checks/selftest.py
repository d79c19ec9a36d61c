"""A handful of golden pairs that the grounding check must tell apart before it may speak. Both languages."""

from __future__ import annotations

from guard.checks.calibration import Calibration
from guard.checks.grounding import check_grounding
from guard.checks.semantic import Semantic
from slo.types import CheckResult

_EN = (
    "Laptops are replaced every four years. Requests go through the portal at https://it.company.example/laptops. "
    "Lost devices must be reported within 24 hours. Private use is not allowed."
)
_ZH = "筆電每四年更換一次\u3002遺失設備須於二十四小時內通報\u3002不得作私人用途\u3002"

GOLDEN: tuple[tuple[str, str, bool], ...] = (
    (_EN, "Laptops are replaced every 4 years.", True),
    (_EN, "Laptops are replaced every six years.", False),
    (_EN, "Lost devices must be reported within 24 hours.", True),
    (_EN, "The cafeteria serves vegetarian lunch on Fridays in the main building.", False),
    (_EN, "Private use is allowed.", False),
    (_EN, "Request one at https://it.company.example/phones.", False),
    (_ZH, "筆電每四年更換一次\u3002", True),
    (_ZH, "筆電每六年更換一次\u3002", False),
    (_ZH, "遺失設備要在24小時內通報\u3002", True),
    (_ZH, "員工餐廳週五供應素食午餐\u3002", False),
)
"""(context, answer, supported)."""


def selftest(calibration: Calibration, semantic: Semantic | None = None) -> str:
    """Why the detector may not be believed, "" when it tells all pairs apart."""
    wrong = [
        answer
        for context, answer, supported in GOLDEN
        if (check_grounding("", answer, (context,), calibration, semantic=semantic).result is CheckResult.PASS)
        != supported
    ]
    if wrong:
        return f"self-test: {len(wrong)} of {len(GOLDEN)} golden answers judged wrongly, first: {wrong[0]!r}"
    return ""
