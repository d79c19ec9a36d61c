"""What the guard measured, read from its exchange log after the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from slo.sources.exchange_log import LogReader
from slo.types import CheckResult


def measured_hallucination(log: Path, since_wall_s: float) -> dict[str, tuple[int, float | None]]:
    """(judged answers, share that failed grounding) by release, of exchanges that began at `since_wall_s` or later."""
    judged: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for exchange, _ in LogReader(log):
        if exchange.wall_s < since_wall_s:
            continue
        for finding in exchange.findings:
            if finding.check == "grounding" and finding.result in (CheckResult.PASS, CheckResult.FAIL):
                judged[exchange.release] += 1
                failed[exchange.release] += finding.result is CheckResult.FAIL
    return {release: (count, failed[release] / count) for release, count in judged.items()}
