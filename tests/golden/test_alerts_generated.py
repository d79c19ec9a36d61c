"""What is generated for the presets is committed, reviewed when it changes, and passes Prometheus' own tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

import alerts
from alerts.build import ALERTMANAGER, LONG_TESTS, PROMETHEUS, RULES, TESTS
from alerts.model import Options
from alerts.runbooks import OWN
from slo.spec import PRESETS
from tests.alerts_kit import EIGHT_FORMS, built, needs, run, with_baselines, write

GENERATED = Path(alerts.__file__).parent / "generated"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_committed_files_are_those_of_the_program(preset: str) -> None:
    files, directory = built(f"preset {preset}"), GENERATED / preset
    if os.environ.get("UPDATE_GOLDEN"):  # noqa: TID251 - test switch
        shutil.rmtree(directory, ignore_errors=True)
        write(directory, files)
    found = {str(p.relative_to(directory)): p.read_text(encoding="utf-8") for p in directory.rglob("*") if p.is_file()}
    assert sorted(found) == sorted(files), "rules changed: review, then UPDATE_GOLDEN=1 pytest tests/golden"
    different = [name for name in files if found[name] != files[name]]
    assert not different, "rules changed: review, then UPDATE_GOLDEN=1 pytest tests/golden"


@needs("promtool", "prometheus")
@pytest.mark.parametrize("preset", PRESETS)
def test_promtool_accepts_every_rule_and_its_cases_of_a_preset(preset: str) -> None:
    directory = GENERATED / preset
    code, said = run(directory, "promtool", "check", "rules", "--lint-fatal", RULES)
    assert code == 0, said
    code, said = run(directory, "promtool", "check", "config", PROMETHEUS)
    assert code == 0, said
    code, said = run(directory, "promtool", "test", "rules", TESTS, LONG_TESTS)
    assert code == 0, said


@needs("promtool", "prometheus")
def test_promtool_accepts_all_eight_threshold_forms_with_baselines(tmp_path: Path) -> None:
    files = built(EIGHT_FORMS, with_baselines())
    write(tmp_path, files)
    assert "NOT COVERED" not in files[RULES]
    code, said = run(tmp_path, "promtool", "check", "rules", "--lint-fatal", RULES)
    assert code == 0, said
    code, said = run(tmp_path, "promtool", "test", "rules", TESTS, LONG_TESTS)
    assert code == 0, said


ALIKE = """\
service: faq-bot
objectives:
  - {name: errors, indicator: sft_availability_llm_error_rate, window: 9m, threshold: {absolute: 1%}, action: rollback}
  - {name: errors-fast, indicator: sft_availability_llm_error_rate, window: 5m, threshold: {absolute: 3%}}
  - {name: up, indicator: sft_availability_success_rate, window: 30d, threshold: {tier: general}, burn_rate: true}
  - {name: up-burn6x, indicator: sft_availability_success_rate, window: 6h, threshold: {tier: general}}
  - {name: not-covered, indicator: sft_quality_zero_hit_rate, window: 1h, threshold: {absolute: 5%}}
"""


@needs("promtool", "prometheus")
def test_objectives_named_like_the_alerts_beside_others_have_alerts_of_their_own(tmp_path: Path) -> None:
    files = built(ALIKE)
    write(tmp_path, files)
    rules = [r for g in yaml.safe_load(files[RULES])["groups"] for r in g["rules"] if "alert" in r]
    objectives = {r["labels"]["slo"]: r["alert"] for r in rules if r["expr"].startswith("sft:slo_breach:value{")}
    assert (objectives["errors"], objectives["errors-fast"][:16]) == ("SftSloErrors", "SftSloErrorsFast")
    names = [r["alert"] for r in rules]
    assert len(set(names)) == len(names), "one page an alert"
    code, said = run(tmp_path, "promtool", "test", "rules", TESTS)
    assert code == 0, said


@needs("amtool", "prometheus-alertmanager")
@pytest.mark.parametrize("preset", PRESETS)
def test_amtool_accepts_the_configuration(preset: str) -> None:
    code, said = run(GENERATED / preset, "amtool", "check-config", ALERTMANAGER)
    assert code == 0, said


@needs("amtool", "prometheus-alertmanager")
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("severity=page", "action=rollback"), "guard,pager"),
        (("severity=page", "action=shed"), "guard,pager"),
        (("severity=ticket", "action=track"), "guard,tickets"),
        (("severity=info",), "guard,tickets"),
        (("severity=critical", "alertname=SftGuardRollback"), "guard,pager"),
    ],
)
def test_alerts_go_where_their_action_says(labels: tuple[str, ...], receivers: str) -> None:
    command = ("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", "service=faq-bot", *labels)
    code, said = run(GENERATED / "support-faq", *command)
    assert code == 0, said
    assert said.splitlines()[0] == receivers


def test_every_alert_has_a_page_a_firing_and_a_silent_case() -> None:
    files = built("preset support-faq", options=Options(runbook_url="https://wiki.example/"))
    tests = [t for name in (TESTS, LONG_TESTS) for t in yaml.safe_load(files[name])["tests"]]
    asked = [a for test in tests for a in test["alert_rule_test"]]
    rules = [r for g in yaml.safe_load(files[RULES])["groups"] for r in g["rules"] if "alert" in r]
    assert len(rules) > 25
    for rule in rules:
        name, url = rule["alert"], rule["annotations"]["runbook_url"]
        assert url == f"https://wiki.example/{name}.md"
        page = files[f"runbooks/{name}.md"]
        for heading in ("What it means", "How it is computed", "What to look at first", "How to silence it",
                        "What the guard does itself"):  # fmt: skip
            assert f"\n## {heading}\n" in page
        fires = [a for a in asked if a["alertname"] == name and a["exp_alerts"]]
        assert fires, name
        if rule["labels"]["kind"] == "symptom":  # its silent cases are releases of the same test
            releases = {e["exp_labels"]["release"] for a in fires for e in a["exp_alerts"]}
            assert releases <= {"fires", "over-in-the-short-window"}, name
            slo = rule["labels"]["slo"]
            shown = [s["series"] for t in tests for s in t["input_series"] if f'slo="{slo}"' in s["series"]]
            assert any('release="fires"' not in s for s in shown), name
        else:
            assert any(a["alertname"] == name and not a["exp_alerts"] for a in asked), name
    for name in OWN:
        assert f"runbooks/{name}.md" in files


def test_an_objective_without_a_limit_is_told_and_never_left_out_silently() -> None:
    files = built("preset support-faq")
    rules = [r for g in yaml.safe_load(files[RULES])["groups"] for r in g["rules"]]
    covered = {r["labels"]["slo"]: r["expr"] for r in rules if r.get("record") == "sft:slo_covered"}
    assert covered["similarity"] == "vector(0)"
    assert covered["hallucination"] == "vector(1)"
    assert "similarity: NOT COVERED: no baseline" in files[RULES]
    assert not any(r.get("alert") == "SftSloSimilarity" for r in rules)
    assert any(r.get("alert") == "SftSloNotCovered" for r in rules)


@needs("amtool", "prometheus-alertmanager")
def test_alerts_that_a_rule_names_reach_the_guard_as_well(tmp_path: Path) -> None:
    write(tmp_path, built(EIGHT_FORMS, with_baselines()))
    assert run(tmp_path, "amtool", "check-config", ALERTMANAGER)[0] == 0
    command = ("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", "alertname=GpuMemory")
    named = run(tmp_path, *command, "cluster=bots", r'note="say \"hi\" \\ there"')[1]
    other = run(tmp_path, *command, "cluster=web")[1]
    assert "guard,tickets" in named
    assert "guard" not in other
