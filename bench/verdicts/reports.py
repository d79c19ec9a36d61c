"""The reports of `make bench-verdicts`, in the order they are printed. A new one is one line here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

from bench.verdicts import cost, delay, naive, passing, reference


class Run(Protocol):
    """Returns the text of a report; quick: small sizes."""

    def __call__(self, *, quick: bool, seed: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Report:
    """name: for `--only`. title: one line."""

    name: str
    title: str
    run: Run


def module(name: str) -> Run:
    """A report that is a command of its own, `python -m NAME --full|--quick --seed N`."""

    def run(*, quick: bool, seed: int) -> str:
        words = [sys.executable, "-m", name, "--quick" if quick else "--full", "--seed", str(seed)]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()

    return run


REPORTS = (
    Report(
        "reference", "two-arm test, true control error 0.1 %, canary at 10 %, factor 2, alpha 1 %", reference.report
    ),
    Report("naive", "false alarms of `over 0.5 % for 10 minutes` at a true rate of 0.1 %", naive.report),
    Report("delay", "3 % -> 8 % bad answers: delay as a multiple of Wald's bound", delay.report),
    Report("passing", "how many answers a healthy canary needs to pass a stage", passing.report),
    Report("days", "false rollbacks over months of healthy traffic", module("bench.verdicts.days")),
    Report("missed", "missed breaches, and how long a bad canary answers users", module("bench.verdicts.missed")),
    Report("cost", "CPU of an evaluation with full windows", cost.report),
)
