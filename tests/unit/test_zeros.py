"""What has not happened yet is shown as 0, under the very labels that it will be counted with."""

from __future__ import annotations

import re
from pathlib import Path

from exporters.labels import FAILOPEN_DEPS, closed_set
from exporters.prometheus import PrometheusExporter
from guard.settings import load_settings
from guard.zeros import begin, of_users, rare_events
from slo.clock import HandClock
from slo.metric_names import METRICS
from slo.spec import load_slo_file

GUARD = """\
service: faq-bot
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {upstreams: ["http://127.0.0.1:9"]}}
release: {stable: v1}
"""
EVERYTHING = """\
cache: {store: redis, redis: {url: "redis://127.0.0.1:6379/0", hmac_key_env: KEY}}
webhooks: [{name: bot, url: "http://127.0.0.1:9/hook", secret_env: SECRET}]
alertmanager: {url: "http://127.0.0.1:9093"}
"""
SLO = """\
service: faq-bot
objectives:
  - {name: errors, indicator: sft_availability_llm_error_rate, window: 10m, threshold: {absolute: 1%}, action: rollback}
  - {name: cost, indicator: sft_cost_inference_per_request_usd, window: 1h, threshold: {absolute: 1}, action: track}
outside_alerts:
  - {name: gpu, alert: GpuLost, action: rollback}
"""


def rows(tmp_path: Path, more: str = "") -> set[tuple[str, ...]]:
    (tmp_path / "guard.yaml").write_text(GUARD + more)
    (tmp_path / "slo.yaml").write_text(SLO)
    environment = {"KEY": "k" * 16, "SECRET": "whsec_" + "QUFB" * 8}
    settings = load_settings(tmp_path / "guard.yaml", environment)
    slo_file = load_slo_file(tmp_path / "slo.yaml")
    found = [*rare_events(settings, (*slo_file.objectives, *slo_file.outside)), *of_users(settings, "r1")]
    for metric, labels in found:
        assert tuple(labels) == METRICS[metric].labels
        for label, value in labels.items():
            words = closed_set(metric, label)
            assert words is None or value in words, f"{metric}: {label}={value} would be shown as `other`"
    return {(metric, *labels.values()) for metric, labels in found}


def test_only_what_these_settings_can_make_happen_is_shown(tmp_path: Path) -> None:
    plain = rows(tmp_path)
    assert {row[1] for row in plain if row[0] == "sft_release_rollbacks_total"} == {"manual", "errors", "gpu"}
    assert ("sft_quality_feedback_total", "r1", "down") in plain
    assert ("sft_quality_reopens_total", "r1") in plain
    assert {row[1] for row in plain if row[0] == "sft_guard_failopen_total"} == {"checks", "disk"}
    assert not any(row[0] == "sft_guard_webhook_deliveries_total" for row in plain)
    whole = rows(tmp_path, EVERYTHING)
    assert {row[1] for row in whole if row[0] == "sft_guard_failopen_total"} == {
        "alertmanager", "checks", "disk", "redis",
    }  # fmt: skip
    assert ("sft_guard_webhook_deliveries_total", "gone") in whole
    blind = rows(tmp_path, "checks: {enabled: false}\n")
    assert not any(row[0] in ("sft_quality_reopens_total", "sft_guard_checks_dropped_total") for row in blind)


def test_a_count_goes_on_from_its_zero_and_is_not_set_back_to_it() -> None:
    exporter = PrometheusExporter("faq-bot", (), clock=HandClock(0.0), cache_s=0.0)
    row = ("sft_release_rollbacks_total", {"reason": "manual"})
    begin(exporter, iter([row]))
    line = 'sft_release_rollbacks_total{service="faq-bot",reason="manual"}'
    assert f"{line} 0\n" in exporter.render().decode()
    exporter.inc(*row)
    begin(exporter, iter([row]))  # a reload
    assert f"{line} 1\n" in exporter.render().decode()


def test_every_dependency_that_is_gone_past_has_a_word_of_its_own() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = "\n".join(path.read_text(encoding="utf-8") for name in ("guard", "exporters")
                        for path in sorted((root / name).rglob("*.py")))  # fmt: skip
    said = set(re.findall(r'fail_open\("(\w+)"', sources)) | set(re.findall(r'"dep": "(\w+)"', sources))
    assert said >= {"checks", "disk", "sink"}
    assert said <= FAILOPEN_DEPS, "shown as `other`"
