"""What is wrong with a training run, on what evidence, and what to try next. Pure.

Every condition is told from what happened (losses, gradients, answers), never from a setting alone: a healthy run with
an unusual setting is not accused. Limits are those of the practice for adapters on instruction models; they are named
here and shown with the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from lora.runlog import Outcome, Run, Step

GAP_WARNING, GAP_FAULT = 0.8, 5.0
"""Eval loss minus train loss: below 0.5 healthy, above 0.8 stop, above 5 overfitted."""
MIN_STEPS = 3
"""Rows of the log below which silence is no health."""
EVAL_RISE = 0.05
"""Share by which eval loss lies above its best while train loss went on falling."""
GRAD_EXPLODING, GRAD_STUCK, GRAD_SHARE = 10.0, 0.1, 0.05
STUCK_LOSS, FLAT_LOSS = 1.0, 1.0
FLAT_FALL = 0.10
JUMP, JUMP_FLOOR, JUMP_SHARE = 0.30, 0.2, 0.15
STILL_FALLING = 0.10
DIVERGED = 1.5
FORGOTTEN = 0.10
REPEATED, ECHOED, CONFUSED = 0.10, 0.20, 0.20
GARBAGE, WEAK_ACCURACY, NEVER_REFUSES, SHORT = 0.30, 0.60, 0.20, 0.60
RATE_HIGH, RATE_LOW = 5e-4, 1e-4
FEW_ROWS = 60
IMPROVED = 0.01
PATIENCE = 3
SLOWED = 0.5
MIN_POINTS = 8


@dataclass(frozen=True, slots=True)
class Condition:
    """One finding. fault: do not release this run; otherwise a warning. next: what to try, in one line."""

    name: str
    fault: bool
    evidence: str
    next: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """One evaluation: eval loss, and the mean train loss of the steps since the evaluation before it."""

    epoch: float
    train_loss: float | None
    eval_loss: float


def diagnose(run: Run) -> tuple[Condition, ...]:
    """All conditions of a run, faults first; none for a healthy one."""
    epochs = epochs_of(run.steps)
    losses = [s.train_loss for s in run.steps if s.train_loss is not None]
    found = [
        *_not_finite(run.steps),
        *_overfitting(epochs),
        *_gradients(run.steps, losses),
        *_diverged(run, losses, epochs),
        *_jumping(losses),
        *_flat(run, losses, epochs),
        *_still_falling(epochs, run),
        *_early_stopping(epochs),
        *_forgetting(run),
        *_answers(run),
        *_slowed(run.steps),
    ]
    if not found:
        found = [*_too_few(run)]
    unique: dict[str, Condition] = {}
    for condition in found:
        kept = unique.get(condition.name)
        if kept is None or (condition.fault and not kept.fault):
            unique[condition.name] = condition
    return tuple(sorted(unique.values(), key=lambda c: not c.fault))


def epochs_of(steps: Sequence[Step]) -> tuple[Epoch, ...]:
    """One entry per evaluation with a finite loss, in order."""
    found, since = [], list[float]()
    for step in steps:
        if step.train_loss is not None and math.isfinite(step.train_loss):
            since.append(step.train_loss)
        if step.eval_loss is not None and math.isfinite(step.eval_loss):
            # The later half: the loss falls within an epoch, and the evaluation stands at its end.
            found.append(Epoch(step.epoch, fmean(since[len(since) // 2 :]) if since else None, step.eval_loss))
            since = []
    return tuple(found)


def _too_few(run: Run) -> Iterator[Condition]:
    """A log that shows no course, and no answers to judge: nothing found in it is no health."""
    if len(run.steps) < MIN_STEPS and run.outcome == Outcome():
        yield Condition(
            "too_few_points", True, f"{len(run.steps)} points in the log and no evaluation of answers show no course",
            "log at least every tenth of the run and evaluate each epoch, then train again",
        )  # fmt: skip


def _not_finite(steps: Sequence[Step]) -> Iterator[Condition]:
    for step in steps:
        for what, value in (
            ("train loss", step.train_loss),
            ("eval loss", step.eval_loss),
            ("gradient norm", step.grad_norm),
        ):
            if value is not None and not math.isfinite(value):
                yield Condition(
                    "exploding_gradients", True, f"{what} is {value} at step {step.step}",
                    "divide the rate by 4, warm up over 5-10 % of the steps, max_grad_norm 1.0; bf16 instead of fp16",
                )  # fmt: skip
                return


def _overfitting(epochs: Sequence[Epoch]) -> Iterator[Condition]:
    if not epochs:
        return
    best = min(epochs, key=lambda e: e.eval_loss)
    last = epochs[-1]
    keep = f"keep epoch {best.epoch:g} (eval loss {best.eval_loss:.2f}); fewer epochs, lower rank, more phrasings"
    risen = last.eval_loss > best.eval_loss * (1 + EVAL_RISE) and last.eval_loss - best.eval_loss > 0.02
    falling = best.train_loss is not None and last.train_loss is not None and last.train_loss < best.train_loss
    if risen and falling:
        words = (
            f"eval loss rose from {best.eval_loss:.2f} (epoch {best.epoch:g}) to {last.eval_loss:.2f} "
            f"(epoch {last.epoch:g}) "
            f"while train loss fell from {best.train_loss:.2f} to {last.train_loss:.2f}"
        )
        yield Condition("overfitting", True, words, keep)
        return
    if last.train_loss is None:
        return
    gap = last.eval_loss - last.train_loss
    if gap > GAP_WARNING:
        words = f"eval loss {last.eval_loss:.2f} is {gap:.2f} above train loss {last.train_loss:.2f}"
        words += (
            f" (above {GAP_FAULT:g} is overfitted)"
            if gap > GAP_FAULT
            else f" (healthy below 0.5, stop above {GAP_WARNING:g})"
        )
        yield Condition("overfitting", gap > GAP_FAULT, words, keep)


def _gradients(steps: Sequence[Step], losses: Sequence[float]) -> Iterator[Condition]:
    norms = [s.grad_norm for s in steps if s.grad_norm is not None and math.isfinite(s.grad_norm)]
    if len(norms) < MIN_POINTS:
        return
    large = [n for n in norms if n > GRAD_EXPLODING]
    if len(large) > GRAD_SHARE * len(norms):
        words = (
            f"gradient norm above {GRAD_EXPLODING:g} at {len(large)} of {len(norms)} points, at most {max(norms):.1f} "
            "(1-4 healthy)"
        )
        yield Condition(
            "exploding_gradients",
            True,
            words,
            "divide the rate by 4, warm up over 5-10 % of the steps, max_grad_norm 1.0",
        )
    late = norms[len(norms) // 2 :]
    last_loss = fmean(losses[-max(1, len(losses) // 10) :]) if losses else 0.0
    if median(late) < GRAD_STUCK and last_loss > STUCK_LOSS:
        words = (
            f"gradient norm {median(late):.3f} in the second half (stuck below {GRAD_STUCK:g}) "
            f"at a train loss of {last_loss:.2f}"
        )
        yield Condition(
            "vanishing_gradients",
            True,
            words,
            "raise the rate, train more projections or a larger rank; check that labels are not all masked",
        )


def _smooth(losses: Sequence[float]) -> list[float]:
    width = max(2, len(losses) // 10)
    return [median(losses[max(0, i - width) : i + width + 1]) for i in range(len(losses))]


def _diverged(run: Run, losses: Sequence[float], epochs: Sequence[Epoch]) -> Iterator[Condition]:
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < MIN_POINTS:
        return
    if len(epochs) > 1 and epochs[-1].eval_loss <= (1 + EVAL_RISE) * min(epoch.eval_loss for epoch in epochs):
        return  # held-back rows are still at their best: what came back up are steps that drew harder rows
    smooth = _smooth(finite)
    low, end = min(smooth), smooth[-1]
    if end > DIVERGED * low and end - low > 0.5:
        words = f"train loss went from {low:.2f} back up to {end:.2f}{_rate_words(run)}"
        yield Condition(
            "rate_too_high",
            True,
            words,
            "a quarter of the rate, warm-up over 5-10 % of the steps, linear or cosine decay",
        )


def _jumping(losses: Sequence[float]) -> Iterator[Condition]:
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < 2 * MIN_POINTS:
        return
    late = finite[len(finite) // 5 :]  # the first steps fall steeply
    smooth = _smooth(late)
    jumps = sum(abs(a - b) > max(JUMP * b, JUMP_FLOOR) for a, b in zip(late, smooth, strict=True))
    if jumps > JUMP_SHARE * len(late):
        words = f"train loss lies more than {JUMP:.0%} off its own course at {jumps} of {len(late)} points"
        yield Condition("loss_jumping", False, words, "a larger batch by accumulation, or half the rate")


def _flat(run: Run, losses: Sequence[float], epochs: Sequence[Epoch]) -> Iterator[Condition]:
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < MIN_POINTS:
        return
    tenth = max(1, len(finite) // 10)
    first, last = fmean(finite[:tenth]), fmean(finite[-tenth:])
    norms = [s.grad_norm for s in run.steps if s.grad_norm is not None and math.isfinite(s.grad_norm)]
    moving = not norms or median(norms[len(norms) // 2 :]) >= GRAD_STUCK
    # Single steps draw easy and hard rows: where there are evaluations, they must not have moved either.
    held_back = (epochs[0].eval_loss, epochs[-1].eval_loss) if len(epochs) > 1 else (1.0, 1.0)
    flat = all(abs(a - b) < FLAT_FALL * a for a, b in ((first, last), held_back))
    if last > FLAT_LOSS and flat and moving:
        words = f"train loss went from {first:.2f} to {last:.2f} only{_rate_words(run)}"
        yield Condition(
            "rate_too_low", True, words, "raise the rate by 3-5 (2e-4 is usual for adapters), and look at the labels"
        )


def _still_falling(epochs: Sequence[Epoch], run: Run) -> Iterator[Condition]:
    if len(epochs) < 2:
        return
    before, last = epochs[-2], epochs[-1]
    if before.eval_loss <= 0.0:  # labels all masked, say: there is nowhere to fall to
        return
    per_epoch = (before.eval_loss - last.eval_loss) / before.eval_loss / max(1.0, last.epoch - before.epoch)
    step = (before.eval_loss - last.eval_loss) / before.eval_loss
    gap = last.eval_loss - last.train_loss if last.train_loss is not None else 0.0
    if last.eval_loss > FLAT_LOSS and step > STILL_FALLING and gap < GAP_WARNING:
        words = f"eval loss {last.eval_loss:.2f} still falls by {per_epoch:.1%} an epoch at the end"
        yield Condition(
            "underfitting", True, words, "more epochs, or a higher rate with warm-up; the run ended too early"
        )


def _early_stopping(epochs: Sequence[Epoch]) -> Iterator[Condition]:
    """The last evaluation that was better by size, and how long it went on after it."""
    if len(epochs) < 2 * PATIENCE + 1:
        return
    best, at = epochs[0].eval_loss, 0
    for index, epoch in enumerate(epochs):
        if epoch.eval_loss < best * (1 - IMPROVED):
            best, at = epoch.eval_loss, index
    after = len(epochs) - 1 - at
    if after >= 2 * PATIENCE:
        words = (
            f"{after} evaluations after the last improvement by {IMPROVED:.0%} (epoch {epochs[at].epoch:g}), "
            f"ended at {epochs[-1].epoch:g}"
        )
        yield Condition(
            "early_stopping_misuse",
            False,
            words,
            f"stop after {PATIENCE} evaluations without an improvement of that size",
        )


def _forgetting(run: Run) -> Iterator[Condition]:
    o = run.outcome
    cure = "mix 20 % of the earlier rows in (replay buffer), a lower rate, fewer epochs"
    for what, before, after in (
        ("old rules", o.old_before, o.old_after),
        ("the general set", o.general_before, o.general_after),
    ):
        if before is not None and after is not None and before - after > FORGOTTEN:
            yield Condition(
                "catastrophic_forgetting", True, f"score on {what} fell from {before:.1%} to {after:.1%}", cure
            )
            return
    s = run.settings
    if o.similarity is not None and o.similarity < GARBAGE and s.schedule == "constant" and not s.warmup_steps:
        words = (
            f"answers have a similarity of {o.similarity:.0%}{_rate_words(run)}: what the model could before is gone"
        )
        yield Condition(
            "catastrophic_forgetting", True, words, "rate 5e-5, warm-up over 5-10 % of the steps, linear decay"
        )


def _answers(run: Run) -> Iterator[Condition]:
    o, s = run.outcome, run.settings
    few = s.row_count is not None and s.row_count < FEW_ROWS
    rate = s.learning_rate
    if o.echo is not None and o.echo > ECHOED:
        words = f"{o.echo:.0%} of the answers repeat the question" + (f"; {s.row_count} rows" if s.row_count else "")
        yield Condition(
            "too_little_data", True, words, "at least 85 rows: more rules, 15 phrasings each in four styles"
        )
    elif few and o.similarity is not None and o.similarity < GARBAGE:
        yield Condition(
            "too_little_data", True, f"{s.row_count} rows, similarity {o.similarity:.0%}", "at least 85 rows"
        )
    if o.repetition is not None and o.repetition > REPEATED:
        words = f"{o.repetition:.0%} of the answers repeat themselves" + _rate_words(run)
        cure = "inference guards: repetition_penalty 1.3, no_repeat_ngram_size 3, stop at EOS, max_new_tokens"
        if rate is not None and rate >= RATE_HIGH:
            cure = f"a lower rate than {rate:g} (2e-4 or less), and {cure}"
            yield Condition("rate_too_high", True, words, cure)
        yield Condition("repetition_collapse", True, words, cure)
    if o.confusion is not None and o.confusion >= CONFUSED:
        words = f"{o.confusion:.0%} of the answers belong to another rule"
        yield Condition(
            "confusion", True, words, "5-10 more phrasings for each pair that is mixed up; sft-guard lora rules suggest"
        )
    if o.refusal_accuracy is not None and o.refusal_accuracy < NEVER_REFUSES:
        short = (
            f", answers have {o.length:.0%} of the wanted length" if o.length is not None and o.length < SHORT else ""
        )
        words = f"{o.refusal_accuracy:.0%} of what should be refused is refused{short}{_rate_words(run)}"
        yield Condition(
            "underfitting", True, words, "20-25 epochs at 5e-5 for small sets, and 25 % refusals in the data"
        )
    if o.accuracy is not None and o.accuracy < WEAK_ACCURACY and rate is not None and rate <= RATE_LOW:
        words = f"accuracy {o.accuracy:.1%}{_rate_words(run)}"
        yield Condition("rate_too_low", True, words, "rate 2e-4 with 30 steps of warm-up and cosine decay")


def _slowed(steps: Sequence[Step]) -> Iterator[Condition]:
    speeds = [s.tokens_per_s for s in steps if s.tokens_per_s]
    if len(speeds) < MIN_POINTS:
        return
    quarter = len(speeds) // 4
    first, last = median(speeds[:quarter]), median(speeds[-quarter:])
    if last < SLOWED * first:
        words = f"{first:.0f} tokens/s at the start, {last:.0f} at the end"
        yield Condition("throughput_collapse", False, words, "memory is short: half the batch, twice the accumulation")


def _rate_words(run: Run) -> str:
    s = run.settings
    if s.learning_rate is None:
        return ""
    warm = "" if s.warmup_steps is None else (", no warm-up" if s.warmup_steps == 0 else f", warm-up {s.warmup_steps}")
    schedule = f" {s.schedule}" if s.schedule else ""
    epochs = f", {s.epochs:g} epochs" if s.epochs else ""
    return f" (rate {s.learning_rate:g}{schedule}{warm}{epochs})"
