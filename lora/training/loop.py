"""The loop: steps, evaluation, checkpoints, early stopping. What it finds is told to a `Report`; it prints nothing."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from lora.training import checkpoint
from lora.training.batches import by_length, epoch_steps
from lora.training.encode import Encoded
from lora.training.graphs import Graphs
from lora.training.layout import Batch, loss_sum, packed, padded, widened
from lora.training.model import can_pack, dtype_on, takes_keep
from lora.training.plan import TrainPlan, differences
from lora.training.stopping import Progress
from slo.clock import SystemClock
from slo.errors import ConfigError, RefusedError

FLUSH_GPU, FLUSH_CPU = 10, 1
"""Steps between two looks at the losses: each look waits for the GPU."""
MERGE_BYTES = 24 * 2**30
"""Free memory of a GPU from which the batches of a step go through the model at once; the step stays the same."""
EVAL_ROWS = 16


class Report(Protocol):
    """Who is told. A row has the keys of a Trainer's log: step, epoch, loss or eval_loss, learning_rate, ..."""

    def logged(self, row: dict[str, Any]) -> None:
        """One row of the log, in order."""

    def began(self, first_step: int, total: int, note: str) -> None:
        """Training begins, or goes on, at a step."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. ended: finished | early | diverged. tokens: real ones that were trained on, pads not counted."""

    ended: str
    steps: int
    epochs: float
    train_loss: float | None
    eval_loss: float | None
    best_eval_loss: float | None
    best_step: int
    tokens: int
    train_s: float
    wall_s: float
    peak_bytes: int
    layout: str
    graphs: str
    resumed_at: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Real tokens trained on in a second of training, evaluation and checkpoints not counted."""
        return self.tokens / self.train_s if self.train_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For cards."""
        return {**asdict(self), "tokens_per_s": self.tokens_per_s}


class Training:
    """One run. `run()` trains to the end, from the newest checkpoint of `out` where there is one.

    out: where checkpoints go; None keeps none. data_sha256, base: what a run may only be resumed with. plan: resolved.
    graphs: capture CUDA graphs on a GPU. compiled: put the layers through torch.compile, which costs a minute first.
    """

    def __init__(
        self,
        model: Any,
        train: Sequence[Encoded],
        evaluate: Sequence[Encoded],
        plan: TrainPlan,
        *,
        pad_id: int,
        report: Report,
        out: Path | None = None,
        data_sha256: str = "",
        base: str = "",
        graphs: bool = True,
        compiled: bool = False,
        now_s: Callable[[], float] | None = None,
    ) -> None:
        self.model, self.plan, self._report, self._out = model, plan, report, out
        self._now_s = now_s or SystemClock().now_s
        self._train, self._evaluate, self._pad_id, self._data = train, evaluate, pad_id, data_sha256
        self._base = base
        self._device = next(model.parameters()).device
        gpu = self._device.type == "cuda"
        if plan.layout == "packed" and not can_pack(model):
            cure = "rows of this model's attention would see each other; leave the option out, or write padded"
            raise ConfigError("--layout", plan.layout, cure)
        packs = can_pack(model) if plan.layout == "auto" else plan.layout == "packed"
        self.layout = "packed" if packs and (gpu or plan.layout == "packed") else "padded"
        self._keeps = takes_keep(model)
        self._merge = gpu and self.layout == "packed" and torch.cuda.mem_get_info()[0] >= MERGE_BYTES
        self._flush = FLUSH_GPU if gpu else FLUSH_CPU
        self._autocast = gpu and dtype_on(self._device) == torch.bfloat16
        if self._autocast:
            # autocast turns what goes through the adapter into bfloat16; to float32 and back would cost three copies.
            for part in model.modules():
                if hasattr(part, "cast_input_dtype_enabled"):
                    part.cast_input_dtype_enabled = False
        if compiled:
            # Layer by layer: all are alike, so that one is compiled and the others find it ready.
            for part in model.modules():
                if type(part).__name__.endswith(("DecoderLayer", "Block")):
                    part.compile()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=gpu or None
        )
        self._loss = torch.zeros((), device=self._device)
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._graphs = Graphs(self._forward_backward, self._zero) if gpu and graphs and packs else None
        self._run_one = self._graphs or self._forward_backward
        self._per_epoch = plan.steps_per_epoch(len(train))
        self._total = plan.step_count(len(train))
        self._widest = dict[int, int]()  # width of a batch to the most positions kept of that width
        self._progress = Progress()
        self._log: list[dict[str, Any]] = []
        self._waiting: list[tuple[int, float, int, torch.Tensor, torch.Tensor]] = []
        self._window = list[list[float]]()  # loss, norm, rate, tokens and seconds of the steps of the next log row
        self._flushed_s, self._train_s, self._tokens = 0.0, 0.0, 0

    def run(self) -> Result:
        """Train.

        Raises:
            RefusedError: memory is short, or the checkpoints belong to other settings. DataError: the disk is full.
        """
        began_s = self._now_s()
        try:
            return self._run(began_s)
        except torch.cuda.OutOfMemoryError as error:
            cure = f"the GPU's memory is short; halve --batch ({self.plan.batch}) and double --accumulate"
            raise RefusedError("out_of_memory", f"{cure} ({self.plan.accumulate}), or --4bit") from error

    def _run(self, began_s: float) -> Result:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        first = self._restore_weights()
        if self._graphs is not None:
            epochs = range(math.ceil(self._total / self._per_epoch))
            for batch in (b for epoch in epochs for step in self._steps(epoch) for b in self._batches(step)):
                _, width, kept = batch.shape
                self._widest[width] = max(kept, self._widest.get(width, 0))
            batches = (b for epoch in epochs for step in self._steps(epoch) for b in self._batches(step))
            self._graphs.prepare(batches, self._device)
        self._restore_chance()
        self._report.began(first, self._total, self._note())
        # A run that was killed after its last evaluation had ended already.
        ended = "early" if self._progress.stops(self.plan.patience) else "finished"
        step, evaluated = first, first
        self.model.train()
        self._flushed_s = self._now_s()
        while step < self._total and ended == "finished":
            epoch, within = divmod(step, self._per_epoch)
            if within == 0 or step == first:
                steps = self._steps(epoch)
            self._step(step, steps[within])
            step += 1
            at_end = step % self._per_epoch == 0 or step == self._total
            saves = at_end or (self.plan.save_every > 0 and step % self.plan.save_every == 0)
            # Nothing is saved before its losses were looked at: who resumed from no numbers could only fail again.
            if (saves or step % self._flush == 0) and not self._flush_log():
                ended = "diverged"
                break
            if at_end:
                self._evaluated(step)
                evaluated = step
            if saves:
                self._save(step)
            if at_end and self._progress.stops(self.plan.patience):
                ended = "early"
        if ended != "diverged" and evaluated != step:
            self._evaluated(step)
        return self._result(ended, step, first, began_s)

    def _step(self, step: int, rows: list[tuple[int, ...]]) -> None:
        batches = [batch.to(self._device) for batch in self._batches(rows)]
        answer_tokens = sum(self._train[row].answer_tokens for batch in rows for row in batch)
        scale = torch.tensor(1.0 / answer_tokens)
        if self._device.type == "cuda":
            scale = scale.pin_memory().to(self._device, non_blocking=True)
        self._zero()
        for batch in batches:
            self._run_one(batch, scale)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.plan.max_grad_norm)
        rate = self.plan.rate_at(step, self._total)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._waiting.append((step + 1, rate, sum(b.tokens for b in batches), self._loss.clone(), norm.detach()))

    def _forward_backward(self, batch: Batch, scale: torch.Tensor) -> None:
        """Add the gradients of one batch, weighted by tokens: a step's sum is the mean over its answer tokens."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False):
            loss = loss_sum(self.model, batch, keeps=self._keeps) * scale
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss.add_(loss.detach())

    def _zero(self) -> None:
        self._loss.zero_()
        torch._foreach_zero_([p.grad for p in self._parameters])

    def _steps(self, epoch: int) -> list[list[tuple[int, ...]]]:
        lengths = [len(row.ids) for row in self._train]
        plan = self.plan
        return epoch_steps(lengths, batch=plan.batch, accumulate=plan.accumulate, seed=plan.seed, epoch=epoch)

    def _batches(self, step: list[tuple[int, ...]]) -> list[Batch]:
        if self._merge:
            step = [tuple(row for batch in step for row in batch)]
        return [self._laid_out([self._train[row] for row in rows]) for rows in step]

    def _laid_out(self, rows: list[Encoded]) -> Batch:
        if self.layout == "padded":
            return padded(rows, self._pad_id)
        batch = packed(rows, self._pad_id)
        return widened(batch, self._widest.get(batch.shape[1], 0))

    def _flush_log(self) -> bool:
        """Log the steps done since the last time; False when a loss or a norm is no number."""
        if not self._waiting:
            return True
        losses = torch.stack([entry[3] for entry in self._waiting]).tolist()  # waits for the GPU
        norms = torch.stack([entry[4] for entry in self._waiting]).tolist()
        now_s = self._now_s()
        tokens = sum(entry[2] for entry in self._waiting)
        each_s = (now_s - self._flushed_s) / len(self._waiting)
        self._train_s += now_s - self._flushed_s
        self._tokens += tokens
        for (step, rate, count, *_), loss, norm in zip(self._waiting, losses, norms, strict=True):
            self._window.append([loss, norm, rate, count, each_s])
            finite = math.isfinite(loss) and math.isfinite(norm)
            at_end = step % self._per_epoch == 0 or step == self._total
            if len(self._window) >= (self.plan.log_every or 1) or at_end or not finite:
                self._tell_window(step)
            if not finite:
                return False
        self._waiting = []
        self._flushed_s = self._now_s()
        return True

    def _tell_window(self, step: int) -> None:
        losses, norms, rates, counts, seconds = zip(*self._window, strict=True)
        self._window = []
        self._tell({
            "step": step, "epoch": step / self._per_epoch, "loss": fmean(losses), "learning_rate": rates[-1],
            "grad_norm": fmean(norms), "tokens_per_s": sum(counts) / max(1e-9, sum(seconds)),
        })  # fmt: skip

    def _evaluated(self, step: int) -> None:
        if not self._evaluate:
            return
        loss = evaluate(self.model, self._evaluate, pad_id=self._pad_id, layout=self.layout)
        self._progress = self._progress.after(loss, step, self.plan.min_improvement)
        self._tell({"step": step, "epoch": step / self._per_epoch, "eval_loss": loss})
        self._flushed_s = self._now_s()

    def _tell(self, row: dict[str, Any]) -> None:
        self._log.append(row)
        self._report.logged(row)

    def _save(self, step: int) -> None:
        if self._out is None:
            return
        cuda = torch.cuda.get_rng_state() if self._device.type == "cuda" else None
        state = {
            "step": step, "progress": asdict(self._progress), "optimiser": self._optimiser.state_dict(),
            "chance": torch.get_rng_state(), "chance_cuda": cuda, "log": self._log, "window": self._window,
            "tokens": self._tokens, "train_s": self._train_s, "plan": self.plan.as_dict(), "data_sha256": self._data,
            "base": self._base,
        }  # fmt: skip
        checkpoint.write(self._out, self.model, state)
        checkpoint.prune(self._out, self._progress.best_step)
        self._flushed_s = self._now_s()

    def _restore_weights(self) -> int:
        """Go back to the newest checkpoint; returns the step to go on with."""
        self._state: dict[str, Any] | None = None
        found = checkpoint.read_newest(self._out) if self._out is not None else None
        if found is None:
            return 0
        state, weights, self._passed_over = found
        other = differences(state["plan"], self.plan.as_dict())
        if state["data_sha256"] != self._data:
            other.append("the data set")
        if state.get("base", self._base) != self._base:
            other.append("the base model")
        if other:
            raise RefusedError("other_run", f"{self._out} was begun otherwise: {', '.join(other)}; name a new --out")
        checkpoint.load_weights(self.model, weights)
        self._optimiser.load_state_dict(state["optimiser"])
        self._progress = Progress(**state["progress"])
        self._window = list(state["window"])
        self._log, self._tokens, self._train_s = list(state["log"]), state["tokens"], state["train_s"]
        self._state = state
        for row in self._log:
            self._report.logged(row)
        return int(state["step"])

    def _restore_chance(self) -> None:
        """Last of all: capturing graphs draws numbers, too."""
        torch.manual_seed(self.plan.seed)
        if self._state is None:
            return
        torch.set_rng_state(self._state["chance"])
        if self._state["chance_cuda"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(self._state["chance_cuda"])

    def _note(self) -> str:
        notes = [self.layout]
        if self._graphs is not None:
            notes.append(self._graphs.why_not or f"{self._graphs.count} graphs")
        return ", ".join([*notes, *getattr(self, "_passed_over", [])])

    def _result(self, ended: str, step: int, first: int, began_s: float) -> Result:
        train = [row["loss"] for row in self._log if "loss" in row and row["epoch"] > step / self._per_epoch - 1]
        evals = [row["eval_loss"] for row in self._log if "eval_loss" in row]
        best = self._progress.best
        return Result(
            ended, step, step / self._per_epoch, fmean(train) if train else None,
            evals[-1] if evals else None, best if math.isfinite(best) else None, self._progress.best_step,
            self._tokens, self._train_s, self._now_s() - began_s, _peak_bytes(self._device), self.layout,
            "" if self._graphs is None else self._graphs.why_not or str(self._graphs.count), first,
        )  # fmt: skip


@torch.no_grad()
def evaluate(model: Any, rows: Sequence[Encoded], *, pad_id: int, layout: str = "padded") -> float:
    """Mean cross entropy of the answers' tokens, in nats."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    keeps, autocast = takes_keep(model), device.type == "cuda" and dtype_on(device) == torch.bfloat16
    for numbers in by_length([len(row.ids) for row in rows], EVAL_ROWS):
        some = [rows[n] for n in numbers]
        batch = (packed(some, pad_id) if layout == "packed" else padded(some, pad_id)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            total += loss_sum(model, batch, keeps=keeps).double()
    if was_training:
        model.train()
    return float(total.item() / sum(row.answer_tokens for row in rows))


def best_of(result: Result, out: Path) -> Path | None:
    """Directory of the checkpoint to keep: the best evaluation, else the last step; None when none was written."""
    for step in (result.best_step, *checkpoint.steps_in(out)):
        if step and (directory := checkpoint.path_of(out, step)).exists():
            return directory
    return None


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
