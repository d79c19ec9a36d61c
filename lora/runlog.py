"""One training run as numbers: the log, the settings, and what an evaluation found. Reads ours and any Trainer's.

Reads a directory that holds `trainer_state.json` (the Transformers Trainer; also in the newest `checkpoint-N`), or such
a file, or JSON lines with the same keys. `run_card.json` and `evaluation.json` beside it are read too. What a log does
not say stays None; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from slo.codec import NOT_JSON
from slo.errors import DataError

STATE, LOG, CARD, EVALUATION = "trainer_state.json", "log.jsonl", "run_card.json", "evaluation.json"


@dataclass(frozen=True, slots=True)
class Step:
    """What was logged at one step; losses are means of cross entropy per token, in nats."""

    step: int
    epoch: float
    train_loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was trained, as far as known. schedule: constant, linear, cosine, ..."""

    learning_rate: float | None = None
    warmup_steps: int | None = None
    schedule: str = ""
    epochs: float | None = None
    row_count: int | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation found, all ratios 0..1, None where it did not look.

    repetition: answers that repeat themselves. echo: answers that repeat the question. confusion: answers that belong
    to another rule. length: answer length over reference length. old_*, general_*: score on held-back old rules and on
    a small general set, before and after.
    """

    similarity: float | None = None
    accuracy: float | None = None
    refusal_accuracy: float | None = None
    repetition: float | None = None
    echo: float | None = None
    confusion: float | None = None
    length: float | None = None
    old_before: float | None = None
    old_after: float | None = None
    general_before: float | None = None
    general_after: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run. place: where it was read from."""

    steps: tuple[Step, ...]
    settings: Settings = Settings()
    outcome: Outcome = Outcome()
    place: str = ""


def steps_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Steps of log rows with the Trainer's keys; rows without a loss are no steps.

    >>> steps_of([{"step": 10, "epoch": 1.0, "loss": 2.5, "grad_norm": 1.2}])[0].train_loss
    2.5
    """
    found = []
    for row in rows:
        step = _number(row.get("step")) or 0.0
        train, evaluated = _number(row.get("loss")), _number(row.get("eval_loss"))
        if (train is None and evaluated is None) or not isfinite(step):
            continue
        found.append(
            Step(
                int(step), _number(row.get("epoch")) or 0.0, train, evaluated,
                _number(row.get("learning_rate")), _number(row.get("grad_norm")), _number(row.get("tokens_per_s")),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda step: step.step))


def read_run(path: Path) -> Run:
    """Read a run.

    Raises:
        DataError: nothing there that is a log, or a file that cannot be read.
    """
    source = _log_of(path)
    if source.suffix == ".jsonl":
        rows, state = [_decoded(line, f"{source}:{n}") for n, line in enumerate(_lines(source), 1)], {}
    else:
        state = read_object(source)
        rows = state.get("log_history", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{source}: `log_history` is no list of objects; name the log of a Trainer")
    steps = steps_of(rows)
    if not steps:
        raise DataError(f"{source}: no loss was logged; set logging_steps and evaluate each epoch")
    beside = source.parent if path.is_file() else path
    card = read_object(beside / CARD) if (beside / CARD).exists() else {}
    outcome = read_object(beside / EVALUATION) if (beside / EVALUATION).exists() else {}
    return Run(steps, settings_of(card, state, steps), outcome_of(outcome), str(source))


def settings_of(card: Mapping[str, Any], state: Mapping[str, Any], steps: tuple[Step, ...]) -> Settings:
    """Settings of a run card; what it does not say is taken from the Trainer's state and the logged rates."""
    given = card.get("settings", card)
    given = given if isinstance(given, dict) else {}
    rates = [step.learning_rate for step in steps if step.learning_rate is not None]
    schedule = given.get("schedule") or given.get("lr_scheduler_type") or ""
    if not schedule and len(rates) >= 4 and max(rates) == min(rates):
        schedule = "constant"
    warmup = _number(given.get("warmup_steps"))
    if warmup is None and schedule == "constant" and rates:
        warmup = 0.0
    epochs = _number(given.get("epochs") or given.get("num_train_epochs") or state.get("num_train_epochs"))
    rows = _number(given.get("row_count"))
    batch = _number(given.get("batch") or given.get("per_device_train_batch_size") or state.get("train_batch_size"))
    rate = _number(given.get("learning_rate"))
    return Settings(
        learning_rate=rate if rate is not None else max(rates, default=None),
        warmup_steps=None if warmup is None or not isfinite(warmup) else int(warmup),
        schedule=str(schedule),
        epochs=epochs if epochs is not None else steps[-1].epoch,
        row_count=None if rows is None or not isfinite(rows) else int(rows),
        batch=None if batch is None or not isfinite(batch) else int(batch),
    )


def outcome_of(evaluation: Mapping[str, Any]) -> Outcome:
    """Outcome of an evaluation file: its `summary`, or the object itself."""
    summary = evaluation.get("summary", evaluation)
    summary = summary if isinstance(summary, dict) else {}
    return Outcome(**{field.name: _number(summary.get(field.name)) for field in fields(Outcome)})


def _log_of(path: Path) -> Path:
    if path.is_file():
        return path
    numbered = [(p.parent.name.removeprefix("checkpoint-"), p) for p in path.glob("checkpoint-*/" + STATE)]
    newest = [p for _, p in sorted((int(name), p) for name, p in numbered if name.isdecimal())]
    for candidate in (path / STATE, path / LOG, *reversed(newest)):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path}: no {STATE} and no {LOG} here; name the directory of a training run or its log")


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises DataError."""
    try:
        return _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _decoded(data: bytes, place: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_without_nan(data), type=dict[str, Any])
    except NOT_JSON as error:
        raise DataError(f"{place}: not a JSON object ({error}); name the log of a training run") from error


def _without_nan(data: bytes) -> bytes:
    """Python's json writes NaN and Infinity bare; a diverged run has them, and they must not be lost."""
    if b"NaN" not in data and b"Infinity" not in data:
        return data
    for bare, quoted in ((b": NaN", b': "nan"'), (b": -Infinity", b': "-inf"'), (b": Infinity", b': "inf"'),
                         (b":NaN", b':"nan"'), (b":-Infinity", b':"-inf"'), (b":Infinity", b':"inf"')):  # fmt: skip
        data = data.replace(bare, quoted)
    return data


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    return None
