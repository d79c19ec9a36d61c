"""What a training tells while it runs: log file, bar on standard error, textfile, OpenTelemetry."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from guard.commands.common import progress
from slo.clock import SystemClock

SERVICE = "sft-guard-lora"
TEXTFILE_EVERY_S = 1.0
BAR_EVERY_S = 0.2
WIDTH = 24
NAMES = {
    "loss": "sft_train_loss", "eval_loss": "sft_train_eval_loss", "learning_rate": "sft_train_learning_rate",
    "grad_norm": "sft_train_gradient_norm", "tokens_per_s": "sft_train_tokens_per_second", "step": "sft_train_step",
    "epoch": "sft_train_epoch",
}  # fmt: skip


class TrainingReport:
    """A `Report` of `lora.training.loop`."""

    def __init__(
        self, args: argparse.Namespace, clock: SystemClock, *, device_name: str, on_begin: Callable[[], None]
    ) -> None:
        """on_begin: called when nothing is left that could refuse the run. Raises ConfigError."""
        from exporters.training import TrainingOtel, TrainingTextfile
        from lora.training.record import LOG, LogFile

        run = args.out.name or "run"
        self._clock, self._device, self._on_begin = clock, device_name, on_begin
        self.begun = False
        self._sinks: list[Any] = []
        self._otel: Any = None
        if args.textfile:
            self._sinks.append(TrainingTextfile(args.textfile, service=SERVICE, run=run))
        if args.otlp:
            self._otel = TrainingOtel(args.otlp, service=SERVICE, run=run, protocol=args.otlp_protocol)
            self._sinks.append(self._otel)
        self._log = LogFile(args.out / LOG)
        self._values: dict[str, float] = {"sft_train_running": 1.0}
        self._first, self._total, self._began_s = 0, 1, clock.now_s()
        self._written_s = self._drawn_s = -1e9
        self._live = sys.stderr.isatty()

    def began(self, first_step: int, total: int, note: str) -> None:
        """Say so; a resumed run from where."""
        self._on_begin()
        self.begun = True
        self._first, self._total, self._began_s = first_step, total, self._clock.now_s()
        self._values["sft_train_steps"] = float(total)
        where = f"step {first_step} of {total}" if first_step else f"{total} steps"
        progress(f"training on {self._device}: {where} ({note})")
        self._write(force=True)

    def logged(self, row: dict[str, Any]) -> None:
        """One row."""
        self._log.write(row)
        for name, metric in NAMES.items():
            if name in row:
                self._values[metric] = float(row[name])
        if "eval_loss" in row:
            best = self._values.get("sft_train_best_eval_loss", float("inf"))
            self._values["sft_train_best_eval_loss"] = min(best, float(row["eval_loss"]))
        self._draw(row)
        self._write(force="eval_loss" in row)

    def close(self) -> None:
        """The last values, and no more."""
        if self._live:
            progress("")
        self._values["sft_train_running"] = 0.0
        if self.begun:
            self._write(force=True)
        self._log.close()
        if self._otel is not None:
            self._otel.close()

    def _write(self, *, force: bool) -> None:
        now_s = self._clock.now_s()
        if not force and now_s - self._written_s < TEXTFILE_EVERY_S:
            return
        self._written_s = now_s
        self._values["sft_train_last_update_timestamp_seconds"] = self._clock.wall_s()
        for sink in self._sinks:
            sink.write(self._values)

    def _draw(self, row: dict[str, Any]) -> None:
        """On a terminal a bar that moves; elsewhere a line an evaluation."""
        if "eval_loss" in row:
            loss = self._values.get("sft_train_loss")
            beside = "" if loss is None else f", train {loss:.3f}"
            progress(f"{chr(13) if self._live else ''}epoch {row['epoch']:g}: eval loss {row['eval_loss']:.3f}{beside}"
                     + (" " * WIDTH * 2 if self._live else ""))  # fmt: skip
        elif self._live and (now_s := self._clock.now_s()) - self._drawn_s >= BAR_EVERY_S:
            self._drawn_s = now_s
            print(bar(row, self._first, self._total, now_s - self._began_s), end="", file=sys.stderr, flush=True)


def bar(row: dict[str, Any], first: int, total: int, seconds: float) -> str:
    r"""One line over the one before.

    >>> bar({"step": 50, "loss": 1.5}, 0, 100, 60.0)
    '\r[############............] 50/100  loss 1.500  1:00 left '
    """
    step = int(row["step"])
    full = round(WIDTH * step / total)
    left_s = round(seconds * (total - step) / max(1, step - first))
    drawn = "#" * full + "." * (WIDTH - full)
    return f"\r[{drawn}] {step}/{total}  loss {row['loss']:.3f}  {left_s // 60}:{left_s % 60:02d} left "
