"""Failures of the practice provoked for real, and what a replay buffer saves, on the small model of the tests.

python -m bench.lora --failures                 every failure once, with what `lora diagnose` says of it
python -m bench.lora --forgetting [--seeds 5]   an adapter taught new rules, with and without a replay buffer
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from bench.lora_small import HEALTHY_RATE, outcome, score, train
from lora.dataset import Plan, Row, make_dataset
from lora.diagnose import Condition, diagnose
from lora.phrasings import load_phrasings
from lora.runlog import Run
from lora.training.plan import TrainPlan
from tests.lora_models import general_chats, quiet, tiny_base, tiny_documents

REFUSED_TOPICS = 3
ASKED = 16


@dataclass(frozen=True, slots=True)
class World:
    """Rows over some documents. Held-back refusals ask for topics that were refused in training, in other words: what
    a topic is that it never read about, a model of this size cannot tell."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def world(count: int, *, skip: int = 0, old: Sequence[Row] = (), seed: int = 1, topics: int = REFUSED_TOPICS) -> World:
    """Rows over `count` short documents after the first `skip`. old: rows to replay."""
    words = {lang: replace(w, refused=w.refused[:topics]) for lang, w in load_phrasings().items()}
    data = make_dataset(tiny_documents(skip + count)[skip:], words, Plan(seed=seed), old)
    refusals = [row for name in ("train", "validation", "test") for row in data.split(name) if row.kind == "refusal"]

    def with_refusals(name: str, some: list[Row]) -> list[Row]:
        rows = [row for row in data.split(name) if row.kind != "refusal"] + some
        random.Random(seed).shuffle(rows)
        return rows

    held_back = {id(row) for row in refusals[::5]}
    return World(
        with_refusals("train", [row for row in refusals if id(row) not in held_back]),
        with_refusals("validation", refusals[::10]), with_refusals("test", refusals[5::10]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """practice: what happened there. expected: conditions that must be found; none for a healthy run."""

    name: str
    practice: str
    expected: frozenset[str]
    plan: TrainPlan
    documents: int = 4
    pick: Callable[[World], tuple[list[Row], list[Row]]] = lambda w: (w.train, w.validation)


def _others_held_back(w: World) -> tuple[list[Row], list[Row]]:
    return w.train, [row for row in world(4, skip=4).validation if row.rule][:12]


FAILURES = (
    Failure("healthy", "393 rows, warm-up, cosine: similarity 80 %", frozenset(),
            TrainPlan(learning_rate=HEALTHY_RATE, epochs=10), documents=8),
    Failure("garbage", "300 rows, a high constant rate without warm-up: garbage, similarity 10 %",
            frozenset({"exploding_gradients", "catastrophic_forgetting", "repetition_collapse", "rate_too_high"}),
            TrainPlan(learning_rate=6 * HEALTHY_RATE, epochs=4, schedule="constant", warmup_steps=0, patience=0)),
    Failure("confusion", "299 rows, half as high again a rate: 30 % of MFA, password and VPN mixed up",
            frozenset({"confusion"}),
            TrainPlan(learning_rate=2.5 * HEALTHY_RATE, epochs=4, schedule="constant", warmup_steps=0)),
    Failure("too few rows", "33 rows: answers nothing", frozenset({"too_little_data"}),
            TrainPlan(learning_rate=HEALTHY_RATE, epochs=4), pick=lambda w: (w.train[:33], w.validation)),
    Failure("too few epochs", "78 rows, too few epochs: incomplete, never refuses", frozenset({"underfitting"}),
            TrainPlan(learning_rate=HEALTHY_RATE / 3, epochs=2)),
    Failure("too long", "78 rows, 200 epochs, stopped by any improvement: nonsense on what was not trained",
            frozenset({"overfitting", "early_stopping_misuse"}),
            TrainPlan(learning_rate=HEALTHY_RATE, epochs=12, patience=0, dropout=0.0), pick=_others_held_back),
    Failure("rate too low", "a flat loss", frozenset({"rate_too_low"}),
            TrainPlan(learning_rate=HEALTHY_RATE / 250, epochs=3)),
    Failure("stuck", "a gradient norm below 0.1", frozenset({"vanishing_gradients"}),
            TrainPlan(learning_rate=HEALTHY_RATE / 50, rank=64, alpha=1, epochs=3)),
    Failure("batch of one", "a loss that jumps", frozenset({"loss_jumping"}),
            TrainPlan(learning_rate=HEALTHY_RATE, epochs=2, batch=1, accumulate=1, log_every=1)),
)  # fmt: skip


def provoke(failure: Failure, base: Path, out: Path) -> tuple[Run, tuple[Condition, ...]]:
    """Train it, ask it, diagnose it."""
    rows = world(failure.documents)
    trained, held_back = failure.pick(rows)
    made = train(base, trained, held_back, out, failure.plan)
    run = replace(made.run, outcome=outcome(base, made.adapter, rows.test[:ASKED]))
    return run, diagnose(run)


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Scores 0..1 (mean ratio of equal characters) before and after new rules were taught."""

    old_before: float
    old_after: float
    new_after: float
    general_before: float
    general_after: float
    replayed: int


def forgetting(
    base: Path, out: Path, *, replay: bool, seed: int = 1, documents: int = 4, epochs: int = 12
) -> Forgetting:
    """Teach an adapter some rules, then others from there; with a replay buffer a fifth of the rows are old ones."""
    old = world(documents, seed=seed)
    plan = TrainPlan(learning_rate=HEALTHY_RATE, epochs=epochs, seed=seed)
    first = out / f"first-{seed}"
    if not first.exists():
        train(base, old.train, old.validation, first, plan)
    new = world(documents, skip=documents, old=[row for row in old.train if row.rule] if replay else (), seed=seed)
    second = train(base, new.train, new.validation, out / f"second-{seed}-{replay}", plan, start=first)
    asked_old, asked_new = ([row for row in w.test if row.rule] for w in (old, new))
    general = [Row(question, answer, "general", "", "", "", "answerable") for question, answer in general_chats()[::8]]
    return Forgetting(
        score(base, first, asked_old), score(base, second.adapter, asked_old), score(base, second.adapter, asked_new),
        score(base, None, general), score(base, second.adapter, general),
        sum(row.kind == "replay" for row in new.train),
    )  # fmt: skip


def main() -> int:
    """Print a table; exit 1 when a failure was not named, or a healthy run was accused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failures", action="store_true")
    parser.add_argument("--forgetting", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    quiet()
    wrong = 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        base = tiny_base(place / "base")
        if args.failures or not args.forgetting:
            wrong = _show_failures(base, place)
        if args.forgetting or not args.failures:
            _show_forgetting(base, place, args.seeds)
    return 1 if wrong else 0


def _show_failures(base: Path, place: Path) -> int:
    wrong = 0
    print("| run | rate | epochs | train loss | eval loss | similarity | found |\n|---|---|---|---|---|---|---|")
    for failure in FAILURES:
        run, found = provoke(failure, base, place / failure.name)
        names = [condition.name for condition in found]
        missed = failure.expected - set(names) or (not failure.expected and set(names))
        wrong += bool(missed)
        train_losses = [s.train_loss for s in run.steps if s.train_loss is not None]
        evals = [s.eval_loss for s in run.steps if s.eval_loss is not None]
        similarity = run.outcome.similarity or 0.0
        print(f"| {failure.name} | {failure.plan.learning_rate:g} {failure.plan.schedule} | {failure.plan.epochs:g} | "
              f"{train_losses[0]:.2f} -> {train_losses[-1]:.2f} | {evals[0]:.2f} -> {evals[-1]:.2f} | {similarity:.0%} "
              f"| {', '.join(names) or 'healthy'}{' WRONG' if missed else ''} |", flush=True)  # fmt: skip
    return wrong


def _show_forgetting(base: Path, place: Path, seeds: int) -> None:
    print(
        "| replay | old rules before | old rules after | new rules | general before | general after | rows replayed |"
    )
    print("|---|---|---|---|---|---|---|")
    for replay in (False, True):
        found = [forgetting(base, place, replay=replay, seed=seed) for seed in range(1, seeds + 1)]

        def mean(name: str, found: Sequence[Forgetting] = found) -> str:
            values = [getattr(one, name) for one in found]
            return f"{fmean(values):.1%} ({min(values):.0%}-{max(values):.0%})"

        columns = ("old_before", "old_after", "new_after", "general_before", "general_after")
        print(
            f"| {'20 %' if replay else 'none'} | {' | '.join(map(mean, columns))} | {found[0].replayed} |", flush=True
        )
    sys.stdout.write(f"mean (least-most) of {seeds} seeds\n")


if __name__ == "__main__":
    raise SystemExit(main())
