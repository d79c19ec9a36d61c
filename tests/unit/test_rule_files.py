"""What a baseline is good for here: only measured as this guard measures, and its words as the drift reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guard.checks.spec import HASHED_FINGERPRINT
from guard.rule_files import Rules
from guard.settings import load_settings
from guard.settings.measured_by import measuring_hash
from slo.artefact import Baseline, DriftReference
from slo.baselines import save_baseline
from tests.unit.exporters_helpers import ManualClock

GUARD = """
service: bot
slo: null
baseline: baseline.json
routes:
  - {name: chat, path: /v1/chat/completions, adapter: openai-chat}
versions:
  v1: {upstreams: ["http://127.0.0.1:9001"]}
release: {stable: v1}
checks: {embedder: none}
"""
REFERENCE = DriftReference("query", HASHED_FINGERPRINT, 1, 1.0, (), 100, (1.0,), (0.0,), None, 0, "")
BASELINE = Baseline(0.0, 1e12, 0.0, 1.0, 7.0, 3600.0, 10, (), drift=(REFERENCE,))


def rules(directory: Path, baseline: Baseline | None, text: str = GUARD) -> Rules:
    (directory / "guard.yaml").write_text(text)
    if baseline is not None:
        save_baseline(baseline, directory / "baseline.json")
    return Rules(load_settings(directory / "guard.yaml"), ManualClock())


def test_the_baselines_words_are_the_reference_unless_another_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "baseline.json")
    assert rules(tmp_path, BASELINE).drift_reference == path
    named = GUARD.replace("checks: {embedder: none}", "checks: {embedder: none, drift: {reference: mine.json}}")
    assert rules(tmp_path, BASELINE, named).drift_reference == str(tmp_path / "mine.json")


@pytest.mark.parametrize(
    "baseline",
    [
        None,
        replace(BASELINE, drift=()),
        replace(BASELINE, expires_wall_s=1.0),
        replace(BASELINE, drift=(replace(REFERENCE, fingerprint="mini-1"),)),
        replace(BASELINE, drift=(replace(REFERENCE, component="answer"),)),
    ],
)
def test_without_a_usable_one_the_check_learns_from_questions(tmp_path: Path, baseline: Baseline | None) -> None:
    assert rules(tmp_path, baseline).drift_reference == ""


def test_the_configuration_of_a_baseline_is_what_is_measured_not_where(tmp_path: Path) -> None:
    def hashed(text: str) -> str:
        (tmp_path / "guard.yaml").write_text(text)
        return measuring_hash(load_settings(tmp_path / "guard.yaml"))

    plain = hashed(GUARD)
    assert plain == hashed(GUARD.replace("baseline: baseline.json\n", "").replace("9001", "9002"))
    assert plain != hashed(GUARD.replace("embedder: none", "embedder: none, pii: false"))
    assert plain != hashed(GUARD.replace("/v1/chat/completions", "/other"))
    with_rules = GUARD.replace("embedder: none", "embedder: none, rules: rules.yaml")
    unreadable = hashed(with_rules)
    (tmp_path / "rules.yaml").write_text("forbidden: [a]\n")
    first = hashed(with_rules)
    (tmp_path / "rules.yaml").write_text("forbidden: [b]\n")
    assert len({plain, unreadable, first, hashed(with_rules)}) == 4
    assert rules(tmp_path, None, with_rules).known().config_hash == hashed(with_rules)
