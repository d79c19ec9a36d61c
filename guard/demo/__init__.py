"""Everything embedded: `run` tells the story of a release; what `make run` starts is in `stage`."""

from __future__ import annotations

from pathlib import Path

from guard.demo.result import DemoResult

__all__ = ["DemoResult", "run"]


def run(
    *,
    seed: int = 1,
    incident: bool = True,
    rate: float = 20.0,
    max_s: float = 240.0,
    keep: Path | None = None,
    warm_up_s: float | None = None,
    canary_answers: int | None = None,
) -> DemoResult:
    """Tell the story once; the timeline goes to standard error while it happens.

    Args:
        seed: of users, arrivals, the model and the fault.
        incident: the canary is the bad rebuild; else a healthy one.
        rate: questions per second.
        max_s: give up after this many seconds.
        keep: an empty directory for state, logs and configuration; else a temporary one that is removed.
        warm_up_s, canary_answers: see `story.Script`.

    Raises:
        GuardError: a part could not be started, or ended by itself.
    """
    from guard.demo.stage import run_story

    return run_story(
        seed=seed, incident=incident, rate=rate, max_s=max_s, keep=keep, warm_up_s=warm_up_s,
        canary_answers=canary_answers,
    )  # fmt: skip
