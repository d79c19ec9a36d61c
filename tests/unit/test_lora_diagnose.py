"""Diagnosis of training runs: the failures of the practice are named, healthy runs are not accused."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora.diagnose import diagnose
from lora.runlog import Outcome, Run, Settings, Step, read_run, steps_of
from slo.errors import DataError

OVERFIT = {1: (12.12, 12.25), 10: (10.69, 10.67), 20: (10.24, 10.25), 30: (9.50, 9.55), 40: (8.20, 8.35),
           50: (7.00, 7.80), 100: (3.50, 8.50), 150: (0.80, 15.30), 200: (0.05, 35.20)}  # fmt: skip
"""Epoch to train and eval loss, of a run that was let go on: one epoch a point."""
GOOD = Settings(2e-4, 30, "cosine", 4, 393, 4)


def names(run: Run) -> list[str]:
    return [condition.name for condition in diagnose(run)]


def overfit_run(until: int = 200) -> Run:
    steps = [Step(8 * epoch, epoch, *losses) for epoch, losses in OVERFIT.items() if epoch <= until]
    return Run(tuple(steps), Settings(1e-4, 0, "linear", until, 78, 4))


def healthy_run(seed: int = 1, epochs: int = 4, per_epoch: int = 50, start: float = 4.64, end: float = 0.52) -> Run:
    """A course like the reference run: 4.64 to 0.52, gradient norms around 2, eval 1.20, 0.8, 0.62, 0.58."""
    chance = random.Random(seed)
    steps, total = [], epochs * per_epoch
    for step in range(1, total + 1):
        loss = end + (start - end) * math.exp(-5 * step / total)
        norm = abs(chance.gauss(2.0, 0.6))
        steps.append(Step(step, step / per_epoch, loss * chance.uniform(0.92, 1.08), None, 2e-4, norm, 900.0))
        if step % per_epoch == 0:
            steps.append(Step(step, step / per_epoch, None, (end + (start - end) * math.exp(-5 * step / total)) * 1.06))
    return Run(tuple(steps), GOOD, Outcome(0.80, 0.729, 0.9, 0.0, 0.0, 0.05, 0.98, 0.8, 0.78, 0.6, 0.59))


@given(seed=st.integers(0, 10_000))
def test_a_healthy_run_is_not_accused(seed: int) -> None:
    assert names(healthy_run(seed)) == []


@pytest.mark.parametrize("losses", [(0.0, 0.0), (0.0, 1.5), (-0.1, 1.2)], ids=["zero", "rising", "negative"])
def test_an_eval_loss_of_zero_is_no_end_of_the_diagnosis(losses: tuple[float, float]) -> None:
    steps = [Step(n, n, 0.5, loss) for n, loss in enumerate(losses, 1)]
    assert "underfitting" not in names(Run((*steps[:1], Step(2, 1.5, 0.5), *steps[1:]), GOOD))


def test_the_reference_run_is_healthy() -> None:
    losses = [
        (0.25, 4.64),
        (0.5, 2.3),
        (1.0, 1.3),
        (1.5, 0.9),
        (2.0, 0.75),
        (2.5, 0.64),
        (3.0, 0.58),
        (3.5, 0.54),
        (4.0, 0.52),
    ]
    norms = [4.30, 3.1, 2.4, 2.0, 1.7, 1.5, 1.4, 1.3, 1.19]
    steps = [Step(int(100 * e), e, loss, None, 2e-4, norm) for (e, loss), norm in zip(losses, norms, strict=True)]
    steps += [Step(int(100 * e) + 1, e, None, loss) for e, loss in ((1, 1.20), (2, 0.80), (3, 0.62), (4, 0.58))]
    steps.sort(key=lambda s: s.step)
    assert names(Run(tuple(steps), GOOD, Outcome(similarity=0.8004, accuracy=0.729))) == []


def test_the_overfitted_log_of_the_practice_and_which_epoch_to_keep() -> None:
    found = diagnose(overfit_run())
    assert found[0].name == "overfitting"
    assert found[0].fault
    assert "eval loss rose from 7.80 (epoch 50) to 35.20 (epoch 200)" in found[0].evidence
    assert found[0].next.startswith("keep epoch 50")


@pytest.mark.parametrize(
    ("until", "name"), [(30, None), (40, "underfitting"), (100, "overfitting"), (150, "overfitting")]
)
def test_the_same_log_ended_earlier(until: int, name: str | None) -> None:
    assert names(overfit_run(until))[:1] == ([name] if name else [])


CATALOGUE = {
    "33 rows, repeats the question": (Settings(row_count=33), Outcome(echo=0.6), {"too_little_data"}),
    "85 rows, endless repetition": (
        Settings(5e-4, None, "", 4, 85), Outcome(repetition=0.7), {"repetition_collapse", "rate_too_high"}),
    "78 rows, incomplete and never refuses": (
        Settings(3e-5, None, "", 5, 78), Outcome(refusal_accuracy=0.0, length=0.4), {"underfitting"}),
    "300 rows, garbage": (
        Settings(2e-4, 0, "constant", 4, 300), Outcome(similarity=0.10), {"catastrophic_forgetting"}),
    "299 rows, three topics mixed up": (Settings(3e-4, 30, "cosine", 4, 299), Outcome(confusion=0.30), {"confusion"}),
    "393 rows, rate 1e-4": (Settings(1e-4, 30, "cosine", 5, 393), Outcome(accuracy=0.318), {"rate_too_low"}),
    "393 rows, rate 2e-4": (GOOD, Outcome(similarity=0.8004, accuracy=0.729), set()),
}  # fmt: skip


@pytest.mark.parametrize("case", CATALOGUE)
def test_the_failures_of_the_practice_are_named(case: str) -> None:
    settings, outcome, wanted = CATALOGUE[case]
    quiet = (Step(1, 1.0, 0.9, 0.9), Step(2, 2.0, 0.6, 0.7))
    assert set(names(Run(quiet, settings, outcome))) == wanted


def test_two_hundred_epochs_by_any_improvement() -> None:
    """Eval loss creeps down by less than a hundredth of a percent an epoch: stopping by any improvement never stops."""
    steps = [Step(10 * e, e, 1.5 if e < 20 else 0.9, (1.6 if e < 20 else 1.0) - e * 1e-5) for e in range(1, 201)]
    found = diagnose(Run(tuple(steps), Settings(5e-5, 30, "linear", 200, 78)))
    assert [c.name for c in found] == ["early_stopping_misuse"]
    assert found[0].evidence.startswith("180 evaluations after the last improvement by 1% (epoch 20)")


def _changed(run: Run, change) -> Run:
    return replace(run, steps=tuple(change(i, s) for i, s in enumerate(run.steps)))


def test_exploding_gradients_and_losses_that_are_no_number() -> None:
    run = healthy_run()
    assert names(_changed(run, lambda i, s: replace(s, grad_norm=45.0) if i % 10 == 0 else s)) == [
        "exploding_gradients"
    ]
    single = _changed(run, lambda i, s: replace(s, grad_norm=12.0) if i == 3 else s)
    assert names(single) == []
    broken = _changed(run, lambda i, s: replace(s, train_loss=math.nan) if i > 100 and s.train_loss else s)
    assert names(broken)[0] == "exploding_gradients"
    assert "train loss is nan at step" in diagnose(broken)[0].evidence


def test_vanishing_gradients_and_a_rate_that_is_too_low_are_told_apart() -> None:
    flat = [Step(n, n / 10, 4.5 - n * 0.001, None, 1e-6, 1.5) for n in range(1, 101)]
    assert names(Run(tuple(flat))) == ["rate_too_low"]
    stuck = tuple(replace(s, grad_norm=0.01) for s in flat)
    assert names(Run(stuck)) == ["vanishing_gradients"]


def test_a_loss_that_comes_back_up_and_one_that_jumps() -> None:
    up = [Step(n, n / 10, 4.0 - 0.05 * n if n < 60 else 1.0 + 0.1 * (n - 60), None, 1e-3, 4.0) for n in range(1, 101)]
    assert names(Run(tuple(up), Settings(1e-3, 0, "constant"))) == ["rate_too_high"]
    chance = random.Random(3)
    jumping = _changed(
        healthy_run(),
        lambda i, s: replace(s, train_loss=s.train_loss * chance.choice((0.4, 1.0, 1.7))) if s.train_loss else s,
    )
    assert names(jumping) == ["loss_jumping"]


def test_forgetting_is_told_by_scores_before_and_after() -> None:
    run = replace(healthy_run(), outcome=Outcome(old_before=0.8, old_after=0.5))
    assert diagnose(run)[0].evidence == "score on old rules fell from 80.0% to 50.0%"
    assert names(replace(run, outcome=Outcome(general_before=0.6, general_after=0.55))) == []


def test_a_machine_that_runs_out_of_memory_slows_down() -> None:
    slow = _changed(
        healthy_run(), lambda i, s: replace(s, tokens_per_s=900.0 if i < 150 else 200.0) if s.train_loss else s
    )
    assert names(slow) == ["throughput_collapse"]


def test_reading_a_trainer_s_directory_its_newest_checkpoint_and_what_lies_beside(tmp_path: Path) -> None:
    history = [{"step": 10, "epoch": 1.0, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": float("nan")},
               {"step": 10, "epoch": 1.0, "eval_loss": 1.9, "eval_runtime": 3.0},
               {"step": 20, "train_runtime": 9.0}]  # fmt: skip
    for number in (9, 100):
        (tmp_path / f"checkpoint-{number}").mkdir()
        state = {"log_history": history[: 2 if number == 100 else 1], "num_train_epochs": 4, "train_batch_size": 2}
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "evaluation.json").write_text('{"summary": {"similarity": 0.8, "accuracy": "high"}}')
    run = read_run(tmp_path)
    assert run.place.endswith("checkpoint-100/trainer_state.json")
    assert math.isnan(run.steps[0].grad_norm or 0.0)
    assert run.steps[1].eval_loss == 1.9
    assert (run.settings.epochs, run.settings.batch, run.settings.learning_rate) == (4, 2, 1e-4)
    (tmp_path / "run_card.json").write_text(
        '{"settings": {"learning_rate": 0.0002, "warmup_steps": 30, "row_count": 393}}'
    )
    assert read_run(tmp_path).settings.row_count == 393
    assert read_run(tmp_path).outcome.similarity == 0.8


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("trainer_state.json", b"{", "not a JSON object"),
        ("trainer_state.json", b'{"log_history": 3}', "no list of objects"),
        ("trainer_state.json", b'{"log_history": []}', "no loss was logged"),
        ("log.jsonl", b'{"loss": 1}\n[1]\n', "log.jsonl:2: not a JSON object"),
        ("log.jsonl", b'{"x": "\xff"}\n', "log.jsonl:1"),
        ("else", b"", "no trainer_state.json and no log.jsonl"),
    ],
    ids=["cut", "form", "empty", "line", "utf8", "nothing"],
)
def test_a_log_that_cannot_be_read_says_where(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_run(tmp_path)


def test_steps_and_directories_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    assert [s.step for s in steps_of([{"step": float("nan"), "loss": 1.0}, {"step": 2, "loss": float("nan")}])] == [2]
    for name in ("checkpoint-old", "checkpoint-20"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": 1.0}]}')
    (tmp_path / "run_card.json").write_text('{"settings": {"warmup_steps": NaN, "row_count": Infinity}}')
    run = read_run(tmp_path)
    assert (run.place, run.settings.warmup_steps, run.settings.row_count) == (
        str(tmp_path / "checkpoint-20" / "trainer_state.json"), None, None,
    )  # fmt: skip


def test_a_log_of_one_point_is_not_called_healthy() -> None:
    assert names(Run((Step(1, 1.0, 0.9, 0.9),))) == ["too_few_points"]
    assert names(Run(())) == ["too_few_points"]
