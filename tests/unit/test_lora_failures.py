"""The failures of the practice, provoked by real trainings of the small model, are named; a healthy run is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from bench.lora import FAILURES, Failure, Forgetting, forgetting, provoke
from lora.diagnose import diagnose
from lora.runlog import Outcome, Run, Step
from tests.lora_models import quiet, tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_failure_is_provoked_and_named(failure: Failure, base: Path, tmp_path: Path) -> None:
    run, found = provoke(failure, base, tmp_path / "run")
    names = {condition.name for condition in found}
    assert failure.expected <= names
    assert all(condition.evidence and condition.next for condition in found)
    if not failure.expected:
        assert names == set()
        assert run.outcome.similarity is not None
        assert run.outcome.similarity > 0.8


def test_a_replay_buffer_saves_old_rules_and_diagnosis_tells_the_two_apart(base: Path, tmp_path: Path) -> None:
    without = forgetting(base, tmp_path, replay=False, documents=3, epochs=10)
    kept = forgetting(base, tmp_path, replay=True, documents=3, epochs=10)
    assert kept.replayed > 0 == without.replayed
    assert without.old_before == kept.old_before
    assert without.old_before > 0.6
    assert without.old_after < without.old_before - 0.1
    assert kept.old_after > without.old_after + 0.1
    assert kept.new_after > without.new_after - 0.1

    def names(found: Forgetting) -> list[str]:
        run = Run((Step(1, 1.0, 0.5, 0.5),), outcome=Outcome(old_before=found.old_before, old_after=found.old_after))
        return [condition.name for condition in diagnose(run)]

    assert names(without) == ["catastrophic_forgetting"]
    assert names(replace(kept, old_after=kept.old_before)) == []


@pytest.mark.parametrize("harder", [1.0, 1.6])
def test_steps_that_drew_harder_rows_are_no_divergence_while_held_back_rows_are_at_their_best(harder: float) -> None:
    steps = []
    for number in range(1, 31):
        easy = 3.0 - 0.05 * number
        steps.append(Step(number, number / 10, easy if number % 10 < 5 else easy * harder, None, 1e-3, 2.0))
        if number % 10 == 0:
            steps.append(Step(number, number / 10, None, easy, None, None))
    assert "rate_too_high" not in {condition.name for condition in diagnose(Run(tuple(steps)))}
