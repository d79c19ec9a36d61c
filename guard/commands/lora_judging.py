"""lora diagnose: what a training run says about itself."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from guard.commands.common import Groups, add_command, emit


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    diagnose = add_command(lora, "diagnose", run_diagnose, "what is wrong with a training run, and what to try next",
                           "sft-guard lora diagnose run --json")  # fmt: skip
    about = "directory of a run (trainer_state.json or log.jsonl), or such a file; run_card.json beside it is read too"
    diagnose.add_argument("run_path", type=Path, metavar="RUN", help=about)
    about = "what `lora eval` wrote; evaluation.json beside the log is taken by itself"
    diagnose.add_argument("--evaluation", type=Path, metavar="FILE", help=about)


def run_diagnose(args: argparse.Namespace) -> int:
    """Diagnose; exit 1 when the run should not be released."""
    from lora.diagnose import diagnose
    from lora.runlog import outcome_of, read_object, read_run

    run = read_run(args.run_path)
    if args.evaluation:
        run = replace(run, outcome=outcome_of(read_object(args.evaluation)))
    found = diagnose(run)
    last = run.steps[-1]
    lines = [f"{run.place}: {len(run.steps)} points, to epoch {last.epoch:g}"]
    for condition in found:
        kind = "FAULT" if condition.fault else "warning"
        lines += [f"{kind:8}{condition.name}: {condition.evidence}", f"        next: {condition.next}"]
    if not found:
        lines.append("healthy: nothing of the failures that are known here")
    result = {
        "healthy": not found,
        "release": not any(c.fault for c in found),
        "conditions": [asdict(c) for c in found],
    }
    emit(args, result, "\n".join(lines))
    return 1 if any(c.fault for c in found) else 0
