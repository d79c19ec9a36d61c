"""What the tests of generated rules share: presets as files, a file with all eight threshold forms, and promtool."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from alerts.build import build
from alerts.model import Options
from slo.artefact import Baseline, IndicatorBaseline, Measured, Statistic
from slo.spec import SloFile, parse_slo
from slo.thresholds import Known
from tests.slo_builders import HALLUCINATION, P95, SIMILARITY

NOW_S = 1_750_000_000.0

EIGHT_FORMS = """\
service: faq-bot
objectives:
  - {name: hallucination, indicator: sft_quality_hallucination_rate, window: 1h, threshold: {baseline: p95, factor: 1.5}, for: 10m, action: rollback}
  - {name: similarity, indicator: sft_quality_similarity_score, window: 1h, threshold: {current: mean, factor: 0.9}, action: rollback}
  - {name: p95, indicator: sft_perf_latency_p95_ms, window: 15m, threshold: {limit: 4300, factor: 0.7}, for: 15m, action: shed}
  - {name: p99, indicator: sft_perf_latency_p99_ms, window: 1h, threshold: {sla: 2000, margin: 200}, action: rollback}
  - {name: cost, indicator: sft_cost_inference_per_request_usd, window: 24h, threshold: {budget_usd: 3000, requests: 60000, factor: 1.2}}
  - {name: availability, indicator: sft_availability_success_rate, window: 30d, threshold: {tier: general}, action: rollback, burn_rate: true}
  - {name: p95-before, indicator: sft_perf_latency_p95_ms, window: 1h, threshold: {previous: p95, factor: 1.2}, action: page}
  - {name: errors, indicator: sft_availability_http_error_rate, window: 5m, threshold: {absolute: 1%}, action: page, routes: [chat]}
outside_alerts:
  - {name: gpu, alert: GpuMemory, labels: {cluster: bots, note: 'say "hi" \\ there'}, action: rollback}
"""  # noqa: E501 - one objective a line


def slo_file(text: str) -> SloFile:
    """The checked file; `preset NAME` stands for a file of that preset."""
    if text.startswith("preset "):
        text = f"service: faq-bot\npreset: {text.removeprefix('preset ')}\n"
    return parse_slo(text)


def with_baselines() -> Known:
    """Eight healthy days of each indicator that a relative form asks for."""

    def values(indicator: str, p95: float) -> IndicatorBaseline:
        statistics = (Statistic("mean", p95 * 0.4, p95 * 0.5, p95 * 0.6), Statistic("p95", p95 * 0.9, p95, p95 * 1.1))
        return IndicatorBaseline(indicator, 3600.0, 168, 50_000, p95 * 0.8, statistics, ())

    baseline = Baseline(
        created_wall_s=NOW_S - 86_400.0,
        expires_wall_s=NOW_S + 29 * 86_400.0,
        first_wall_s=NOW_S - 9 * 86_400.0,
        last_wall_s=NOW_S - 86_400.0,
        days=8.0,
        window_s=3600.0,
        exchange_count=50_000,
        indicators=(values(HALLUCINATION, 0.03),),
        measured=(Measured(SIMILARITY, 0.9, NOW_S - 86_400.0, 500),),
        sha256="ab" * 32,
    )
    return Known(NOW_S, baseline, replace(baseline, indicators=(values(P95, 1.2),)))


def write(directory: Path, files: dict[str, str]) -> None:
    """Put generated files where a program can read them."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skip with the name of the Debian package when a program is not there."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program} (Debian package `{package}`)")


def run(directory: Path, *command: str) -> tuple[int, str]:
    """Exit code and everything a program says."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def built(text: str, known: Known | None = None, options: Options | None = None) -> dict[str, str]:
    """Generated files of an slo.yaml."""
    return build(slo_file(text), known or Known(), options or Options())
