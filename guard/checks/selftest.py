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
_ZH = "\u7b46\u96fb\u6bcf\u56db\u5e74\u66f4\u63db\u4e00\u6b21\u3002\u907a\u5931\u8a2d\u5099\u9808\u65bc\u4e8c\u5341\u56db\u5c0f\u6642\u5167\u901a\u5831\u3002\u4e0d\u5f97\u4f5c\u79c1\u4eba\u7528\u9014\u3002"

GOLDEN: tuple[tuple[str, str, bool], ...] = (
    (_EN, "Laptops are replaced every 4 years.", True),
    (_EN, "Laptops are replaced every six years.", False),
    (_EN, "Lost devices must be reported within 24 hours.", True),
    (_EN, "The cafeteria serves vegetarian lunch on Fridays in the main building.", False),
    (_EN, "Private use is allowed.", False),
    (_EN, "Request one at https://it.company.example/phones.", False),
    (_ZH, "\u7b46\u96fb\u6bcf\u56db\u5e74\u66f4\u63db\u4e00\u6b21\u3002", True),
    (_ZH, "\u7b46\u96fb\u6bcf\u516d\u5e74\u66f4\u63db\u4e00\u6b21\u3002", False),
    (_ZH, "\u907a\u5931\u8a2d\u5099\u8981\u572824\u5c0f\u6642\u5167\u901a\u5831\u3002", True),
    (_ZH, "\u54e1\u5de5\u9910\u5ef3\u9031\u4e94\u4f9b\u61c9\u7d20\u98df\u5348\u9910\u3002", False),
)
"""(context, answer, supported)."""


def selftest(calibration: Calibration, semantic: Semantic | None = None) -> str:
    """Why the detector may not be believed, "" when it tells all pairs apart."""
    wrong = [
        answer
        for context, answer, supported in GOLDEN
        if (check_grounding("", answer, (context,), calibration, semantic=semantic).result is CheckResult.PASS) != supported
    ]
    if wrong:
        return f"self-test: {len(wrong)} of {len(GOLDEN)} golden answers judged wrongly, first: {wrong[0]!r}"
    return ""
