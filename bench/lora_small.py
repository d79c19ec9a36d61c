"""A small model trained for real, and what an evaluation finds of it: for `bench.lora` and its tests.

The model and its rates are not those of a release: a rate of 5e-3 is healthy here as 2e-4 is for a model of 1.5 billion
weights. Similarity is difflib's ratio of characters, so that no embedder is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora.answering import LocalModel
from lora.dataset import Row
from lora.evaluate import Graded, belonging_of, grade_answer
from lora.figures import figures
from lora.guards import Guards
from lora.runlog import Outcome, Run, Settings, steps_of
from lora.training.checkpoint import load_weights, save_adapter
from lora.training.encode import encode_rows
from lora.training.loop import Training
from lora.training.model import load_base, load_tokenizer, with_adapter
from lora.training.plan import TrainPlan
from rag.finetune.evaluate import Grade

HEALTHY_RATE = 5e-3
UNGUARDED = Guards(max_new_tokens=64, repetition_penalty=1.0, no_repeat_ngram_size=0)


@dataclass(frozen=True, slots=True)
class Trained:
    """One run with its log, and where its adapter lies (that of the last step, not of the best)."""

    run: Run
    adapter: Path


class Log:
    """A report that keeps rows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def began(self, first_step: int, total: int, note: str) -> None:
        """Nothing to say."""

    def logged(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def train(
    base: Path, rows: Sequence[Row], held_back: Sequence[Row], out: Path, plan: TrainPlan, *, start: Path | None = None
) -> Trained:
    """Train by the loop of `lora train`, from a fresh adapter or from that of `start`."""
    from safetensors.torch import load_file

    plan = plan.resolved(len(rows))
    tokenizer = load_tokenizer(str(base))
    model = with_adapter(load_base(str(base), torch.device("cpu")), plan)
    if start is not None:
        load_weights(model, load_file(start / "adapter_model.safetensors"))
    encoded, evaluated = (
        encode_rows(tokenizer, [(row.question, row.answer) for row in some], plan.max_length)
        for some in (rows, held_back)
    )
    log = Log()
    Training(model, encoded, evaluated, plan, pad_id=tokenizer.pad_token_id, report=log).run()
    out.mkdir(parents=True, exist_ok=True)
    save_adapter(model, out)
    steps = steps_of(log.rows)
    settings = Settings(plan.learning_rate, plan.warmup_steps, plan.schedule, plan.epochs, len(rows), plan.batch)
    return Trained(Run(steps, settings, place=str(out)), out)


def graded(base: Path, adapter: Path | None, rows: Sequence[Row], *, guards: Guards = UNGUARDED) -> list[Graded]:
    """What the model answers, graded against the rows."""
    said = LocalModel(str(base), adapter).answers([row.question for row in rows], guards, lambda done: None, batch=16)
    belonging = belonging_of(rows)
    found = []
    for row, answer in zip(rows, said, strict=True):
        one = grade_answer(row, answer, Grade(0.0, None), belonging)
        found.append(grade_answer(row, answer, Grade(one.characters, None), belonging))
    return found


def score(base: Path, adapter: Path | None, rows: Sequence[Row]) -> float:
    """Mean similarity of the answers."""
    return figures(graded(base, adapter, rows)).characters


def outcome(base: Path, adapter: Path, rows: Sequence[Row]) -> Outcome:
    """What an evaluation says, as `lora diagnose` reads it."""
    found = figures(graded(base, adapter, rows))
    return Outcome(
        similarity=found.similarity, accuracy=found.accuracy.ratio, refusal_accuracy=found.refused.ratio,
        repetition=found.repetition.ratio, echo=found.echo.ratio, confusion=found.confusion.ratio, length=found.length,
    )  # fmt: skip
