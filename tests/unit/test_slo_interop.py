"""OpenSLO and Sloth by example: what is written, what is read, and what is named because it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from guard.cli import main
from slo.errors import ConfigError
from slo.interop import openslo, sloth
from slo.spec import PRESETS, parse_slo
from slo.types import Slo

SLO_YAML = """
service: faq-bot
objectives:
  - {name: success, indicator: sft_availability_success_rate, window: 30d, threshold: {tier: general}, burn_rate: true}
  - {name: p99, indicator: sft_perf_latency_p99_ms, window: 1h, threshold: {sla: 2000, margin: 200}, action: rollback}
  - {name: cost, indicator: sft_cost_inference_per_request_usd, window: 24h, threshold: {absolute: 0.05}}
  - name: hallucination
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {baseline: p95, factor: 1.5}
"""

FOREIGN = """
apiVersion: openslo/v1
kind: Service
metadata: {name: web}
spec: {description: the shop}
---
apiVersion: openslo/v1
kind: SLI
metadata: {name: requests}
spec:
  ratioMetric:
    counter: true
    good: {metricSource: {type: Prometheus, spec: {query: 'sum(sft_availability_requests_total{outcome="ok"})'}}}
    total: {metricSource: {type: Prometheus, spec: {query: sum(sft_availability_requests_total)}}}
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: requests-slo, labels: {team: [search]}}
spec:
  service: web
  indicatorRef: requests
  timeWindow: [{duration: 4w, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{displayName: hard, targetPercent: 99.9}, {displayName: soft, target: 0.99}]
  somethingOfTomorrow: 1
"""


def slo_document(**changes: Any) -> str:
    spec: dict[str, Any] = {
        "service": "web",
        "indicator": {"spec": {"ratioMetric": {
            "counter": True,
            "bad": {"metricSource": {"spec": {"query": "sum(http_requests_total{code=~'5..'})"}}},
            "total": {"metricSource": {"spec": {"query": "sum(http_requests_total)"}}},
        }}},
        "timeWindow": [{"duration": "1d", "isRolling": True}],
        "budgetingMethod": "Occurrences",
        "objectives": [{"target": 0.99}],
    }  # fmt: skip
    document = {"apiVersion": "openslo/v1", "kind": "SLO", "metadata": {"name": "web"}, "spec": spec | changes}
    return yaml.safe_dump(document)


def objectives(text: str) -> dict[str, Slo]:
    """By name; the error probability of the canary test is shared out over the file, not an objective's own."""
    return {slo.name: one_alpha(slo) for slo in parse_slo(text).objectives}


def one_alpha(slo: Slo) -> Slo:
    return replace(slo, canary=replace(slo.canary, alpha=0.01)) if slo.canary else slo


def test_openslo_by_hand() -> None:
    made = openslo.export(SLO_YAML, "slo.yaml")
    service, success, p99 = yaml.safe_load_all(made.text)
    assert service == {
        "apiVersion": "openslo/v1", "kind": "Service", "metadata": {"name": "faq-bot"},
        "spec": {"description": "guarded by sft-guard"},
    }  # fmt: skip
    assert success["spec"]["timeWindow"] == [{"duration": "30d", "isRolling": True}]
    assert success["spec"]["budgetingMethod"] == "Occurrences"
    assert success["spec"]["objectives"] == [{"displayName": "success", "target": 0.99}]
    ratio = success["spec"]["indicator"]["spec"]["ratioMetric"]
    assert ratio["counter"] is True
    assert ratio["bad"]["metricSource"] == {
        "type": "Prometheus",
        "spec": {"query": 'sum(sft_slo_bad_events_total{service="faq-bot",slo="success"})'},
    }
    assert p99["spec"]["objectives"][0]["target"] == 0.99  # 99 % of the requests within 1.8 s
    assert made.left_out == (
        "cost: a mean has no share of good events",
        "hallucination: its limit comes from a baseline (baseline), so there is no number to write",
    )
    assert made.aside == (
        "success: burn_rate kept as an annotation; others do not act on it",
        "p99: action, the threshold's form (sla; 1800 ms now) kept as an annotation; others do not act on it",
    )


def test_what_is_said_for_the_whole_file_is_named() -> None:
    outside = "outside_alerts: [{name: db, alert: DatabaseDown, action: page}]"
    text = f"{SLO_YAML}canary: off\n{outside}\n"
    for module in (openslo, sloth):
        left_out = module.export(text, "slo.yaml").left_out
        assert "canary: of the whole file; write it again after an import" in left_out
        assert "outside_alerts: of the whole file; write it again after an import" in left_out


def test_sloth_by_hand() -> None:
    made = sloth.export(SLO_YAML, "slo.yaml")
    document = yaml.safe_load(made.text)
    assert (document["version"], document["service"]) == ("prometheus/v1", "faq-bot")
    success, p99 = document["slos"]
    assert (success["name"], success["objective"], p99["objective"]) == ("success", 99.0, 99.0)
    assert success["sli"]["events"] == {
        "error_query": 'sum(rate(sft_slo_bad_events_total{service="faq-bot",slo="success"}[{{.window}}]))',
        "total_query": 'sum(rate(sft_slo_events_total{service="faq-bot",slo="success"}[{{.window}}]))',
    }
    assert success["alerting"]["name"] == "SloSuccess"
    assert "p99: the window of 1h, action" in made.aside[1]
    assert made.left_out == openslo.export(SLO_YAML, "slo.yaml").left_out


@pytest.mark.parametrize("module", [openslo, sloth])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_both_can_say_comes_back_as_it_was(module: Any, preset: str) -> None:
    text = f"service: faq-bot\npreset: {preset}\n"
    made = module.export(text, "slo.yaml")
    back = module.read(made.text, "file", {})
    assert back.left_out == ()
    before, after = objectives(text), objectives(back.text)
    lost = {line.split(":")[0] for line in made.left_out}
    assert after == {name: slo for name, slo in before.items() if name not in lost}
    assert lost.isdisjoint(after)
    assert len(after) == made.count == back.count
    again = module.export(back.text, "slo.yaml")
    assert again.text == made.text


def test_a_file_of_somebody_else_is_read() -> None:
    made = openslo.read(FOREIGN, "slos.yaml", {})
    assert made.left_out == ()
    found = objectives(made.text)
    assert parse_slo(made.text).service == "web"
    assert {(s.name, s.indicator, s.window.length_s, s.threshold.params["absolute"]) for s in found.values()} == {
        ("requests-slo", "sft_availability_success_rate", 28 * 86_400.0, 0.999),
        ("requests-slo-2", "sft_availability_success_rate", 28 * 86_400.0, 0.99),
    }
    assert {s.action.value for s in found.values()} == {"page"}  # a foreign file never rolls anything back


def test_what_was_changed_in_the_other_file_goes_before_what_was_kept() -> None:
    made = openslo.export(SLO_YAML, "slo.yaml").text.replace("target: 0.99", "target: 0.995", 1)
    made = made.replace("duration: 30d", "duration: 7d")
    success = objectives(openslo.read(made, "slos.yaml", {}).text)["success"]
    assert (success.window.length_s, success.threshold.params) == (7 * 86_400.0, {"absolute": 0.995})
    assert success.burn_rate  # kept
    made = sloth.export(SLO_YAML, "slo.yaml").text.replace("objective: 99.0", "objective: 99.5", 1)
    assert objectives(sloth.read(made, "f", {}).text)["success"].threshold.params == {"absolute": 0.995}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "`sum(http_requests_total{code=~'5..'}) sum(http_requests_total)` measures nothing that the guard knows"),
        ({"budgetingMethod": "Timeslices"}, "budgetingMethod Timeslices counts slices of time"),
        ({"timeWindow": [{"duration": "1M", "isRolling": True}]}, "a window of 1M; write minutes, hours"),
        ({"timeWindow": [{"duration": "1d", "calendar": {"timeZone": "UTC"}}]}, "aligned to the calendar"),
        ({"timeWindow": [{"duration": "12w", "isRolling": True}]}, "at most 30d are kept"),
        ({"timeWindow": []}, "0 time windows"),
        ({"objectives": [{"displayName": "x"}]}, "without target and targetPercent"),
        ({"indicator": None, "indicatorRef": "gone"}, "the SLI `gone` is not in this file"),
        ({"objectives": [{"target": 0.0}]}, "leaves no error budget"),
        ({"indicator": {"spec": {"ratioMetric": {"rawType": "success", "raw": {"metricSource": {"spec": {}}}}}}},
         "a ratio calculated elsewhere"),
        ({"indicator": {"spec": {"thresholdMetric": {"metricSource": {"spec": {"query": "cpu"}}}}}},
         "none of the guard's gauges"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_named(changes: dict[str, Any], why: str) -> None:
    made = openslo.read(slo_document(**changes), "slos.yaml", {})
    assert (made.count, made.text) == (0, "")
    assert len(made.left_out) == 1
    assert why in made.left_out[0]
    assert "\n" not in made.left_out[0]


def test_a_person_may_say_what_a_query_measures() -> None:
    named = {"web": "sft_availability_http_error_rate"}
    slo = objectives(openslo.read(slo_document(), "slos.yaml", named).text)["web"]
    assert (slo.indicator, slo.threshold.params) == ("sft_availability_http_error_rate", {"absolute": 0.01})


def test_a_bucket_says_which_latency_and_limit_it_is() -> None:
    def latency(le: str, target: float) -> Any:
        query = f'sum(sft_perf_request_duration_seconds_bucket{{le="{le}"}})'
        ratio = {"counter": True, "good": {"metricSource": {"spec": {"query": query}}}, "total": {
            "metricSource": {"spec": {"query": "sum(sft_perf_request_duration_seconds_count)"}}}}  # fmt: skip
        return openslo.read(
            slo_document(indicator={"spec": {"ratioMetric": ratio}}, objectives=[{"target": target}]), "slos.yaml", {}
        )

    slo = objectives(latency("1.8", 0.99).text)["web"]
    assert (slo.indicator, slo.threshold.params) == ("sft_perf_latency_p99_ms", {"absolute": 1.8})
    assert latency("1.8", 0.9).left_out == ("web: 0.9 of requests within 1.8 s: the guard judges p95 and p99 only",)


def test_a_threshold_on_a_gauge_of_ours_is_read_and_its_target_named() -> None:
    metric = {"thresholdMetric": {"metricSource": {"spec": {"query": "avg(sft_quality_similarity_score)"}}}}
    text = slo_document(indicator={"spec": metric}, objectives=[{"op": "gte", "value": 0.8, "target": 0.95}])
    made = openslo.read(text, "slos.yaml", {})
    assert objectives(made.text)["web"].threshold.params == {"absolute": 0.8}
    assert made.left_out == ("web: its target 0.95 is left out; the rule holds all the time",)
    wrong = slo_document(indicator={"spec": metric}, objectives=[{"op": "lte", "value": 0.8, "target": 0.95}])
    assert "wrong way round" in openslo.read(wrong, "slos.yaml", {}).left_out[0]


def test_other_documents_and_alert_policies_are_named_not_dropped() -> None:
    policy = "apiVersion: openslo/v1\nkind: AlertPolicy\nmetadata: {name: page-me}\nspec: {}\n"
    document = slo_document(alertPolicies=[{"alertPolicyRef": "page-me"}])
    made = openslo.read(f"{policy}---\n{document}", "slos.yaml", {"web": "sft_availability_success_rate"})
    assert made.count == 1
    assert made.left_out[0] == "AlertPolicy page-me: the guard has no such thing"
    assert made.left_out[1].startswith("web: its alert policies")


def sloth_file(**changes: Any) -> str:
    slo = {
        "name": "requests", "objective": 99.9, "labels": {"category": "availability"},
        "sli": {"events": {"error_query": 'sum(rate(sft_availability_requests_total{outcome!="ok"}[{{.window}}]))',
                           "total_query": "sum(rate(sft_availability_requests_total[{{.window}}]))"}},
        "alerting": {"name": "X", "page_alert": {"disable": True}, "ticket_alert": {}},
    }  # fmt: skip
    return yaml.safe_dump({"version": "prometheus/v1", "service": "Shop Web", "slos": [slo | changes]})


def test_a_file_for_sloth_of_somebody_else_is_read() -> None:
    made = sloth.read(sloth_file(), "sloth.yaml", {})
    slo = objectives(made.text)["requests"]
    assert parse_slo(made.text).service == "shop-web"
    assert (slo.indicator, slo.window.length_s, slo.burn_rate, slo.threshold.params, slo.action.value) == (
        "sft_availability_success_rate", 30 * 86_400.0, True, {"absolute": 0.999}, "track",
    )  # fmt: skip
    assert made.left_out == ("requests: the labels category; alerts of the guard carry their own",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sli": {"raw": {"error_ratio_query": "r"}}}, "a ratio calculated elsewhere"),
        ({"sli": {"plugin": {"id": "p"}}}, "made by a plugin"),
        ({"objective": 100}, "leaves no error budget"),
        ({"sli": {"events": {"error_query": "e", "total_query": "t"}}}, "--as requests=INDICATOR"),
    ],
)
def test_what_sloth_says_and_we_cannot_is_named(changes: dict[str, Any], why: str) -> None:
    made = sloth.read(sloth_file(**changes), "sloth.yaml", {})
    assert made.count == 0
    assert why in made.left_out[0]


@pytest.mark.parametrize(
    ("module", "text", "place"),
    [
        (openslo, "apiVersion: openslo/v2\nkind: SLO", "slos.yaml: document 1: apiVersion"),
        (openslo, "- 1", "slos.yaml: document 1: apiVersion"),
        (openslo, "a: [", "slos.yaml:1"),
        (openslo, "a: &x 1\nb: *x", "aliases"),
        (openslo, "apiVersion: openslo/v1\nkind: Service", "kind SLO"),
        (openslo, slo_document(objectives=[{"target": 2}]), "slos.yaml: document 1: spec.objectives[0].target"),
        (openslo, slo_document(objectives=[]), "spec.objectives"),
        (openslo, slo_document(budgetingMethod="Guess"), "budgetingMethod"),
        (sloth, "version: v2", "slos.yaml"),
        (sloth, sloth_file(objective=101), "slos[0].objective"),
        (sloth, sloth_file(sli={"events": {"error_query": "e"}}), "total_query"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_place(module: Any, text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        module.read(text, "slos.yaml", {})
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", [openslo, sloth])
def test_an_annotation_that_is_not_ours_is_no_objective(module: Any) -> None:
    made = module.export(SLO_YAML, "slo.yaml").text
    for broken in ("{", "[]", '{"name": "x"}', '"text"'):
        document = made
        for kept in (line.split(": ", 1)[1] for line in made.splitlines() if "objective: '" in line):
            document = document.replace(kept, json.dumps(broken))
        back = module.read(document, "f", {})
        assert back.count == 0
        assert "measures nothing that the guard knows" in back.left_out[0]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slo.yaml").write_text(SLO_YAML)
    at = ["--slo", f"{tmp_path}/slo.yaml", "--out", f"{tmp_path}/o.yaml"]
    assert main(["slo", "export", "--to", "openslo", *at]) == 0
    assert "left out: cost: a mean" in capsys.readouterr().out
    assert main(["slo", "export", "--to", "sloth", *at, "--strict", "--json"]) == 1
    out = capsys.readouterr()
    assert json.loads(out.out.splitlines()[-1])["objectives"] == 2
    assert "kept aside: p99" in out.err
    back = ["slo", "import", "--from", "sloth", f"{tmp_path}/o.yaml", "--out", f"{tmp_path}/back.yaml"]
    assert main([*back, "--strict"]) == 0
    assert set(objectives((tmp_path / "back.yaml").read_text())) == {"success", "p99"}
    assert main([*back, "--as", "success=nonsense"]) == 2
    assert main(["slo", "import", "--from", "openslo", f"{tmp_path}/gone.yaml", "--out", "x"]) == 2
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert main(["slo", "import", "--from", "openslo", f"{tmp_path}/bytes.yaml", "--out", "x"]) == 2
    (tmp_path / "foreign.yaml").write_text(slo_document())
    foreign = ["slo", "import", "--from", "openslo", f"{tmp_path}/foreign.yaml", "--out", f"{tmp_path}/none.yaml"]
    assert main(foreign) == 1
    assert not (tmp_path / "none.yaml").exists()
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("sft-guard: ")
