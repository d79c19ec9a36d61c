"""Kills a sidecar with SIGKILL at every numbered point of a rollback, restarts it, and looks at what is left.

    python -m tests.crash_points DIR canary|promoted [--two]

Each life is a process of its own (a fork, so that imports are paid once). A schedule is one or two points: the first
life dies at the first, the second life dies at the second (or ends, when it does not come by), the third is left
alone. Afterwards there must be exactly one effect. Prints one JSON object: runs, kills, violations.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from guard.release.records import OutboxItem
from guard.release.saga import POINTS
from guard.release.state import Phase
from guard.release.webhook import Delivery, Sent
from tests.release_kit import BAD, GOOD, HOLD, ROLL_BACK, SERVICE, ScriptedJudge, World

RECEIVED = "receiver:got"
ALL_POINTS = (*POINTS, RECEIVED)
"""Points of the saga, and the moment when a receiver has the message but nobody has written that down."""


class FileReceiver:
    """Appends message ids to a file that survives kills, as a real receiver would."""

    identity = "pager 0123456789abcdef"

    def __init__(self, path: Path, at: Callable[[str], None]) -> None:
        self._path, self._at = path, at

    async def send(self, item: OutboxItem) -> Sent:
        with self._path.open("a") as file:
            file.write(item.message_id + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._at(RECEIVED)
        return Sent(Delivery.DELIVERED)


def one_life(directory: Path, die_at: str | None, *, breach: bool) -> None:
    """Start on what is there, decide what the verdict asks for, deliver; die on the way if told so.

    breach: the judge still sees the breach. It does not once the promise is on disk: what was promised has to be
    finished without being asked for again.
    """

    def at(point: str) -> None:
        if point == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def live() -> None:
        receiver = FileReceiver(directory / "received", at)
        judge = ScriptedJudge(ROLL_BACK if breach else HOLD)
        world = World(directory, judge, receivers={"pager": receiver}, at=at)  # type: ignore[dict-item]
        await world.up()
        await world.controller.tick()
        await world.outbox.deliver_due()
        await world.controller.tick()
        world.close()

    asyncio.run(live())


def prepare(directory: Path, variant: str) -> None:
    """A release in the middle of a rollout, or just promoted."""

    async def go() -> None:
        directory.mkdir(parents=True)
        world = await World(directory, ScriptedJudge(ROLL_BACK)).up()
        await world.controller.start(BAD.name, actor="ann")
        if variant == "promoted":
            await world.controller.promote(actor="ann")
        world.close()

    asyncio.run(go())


def violations(directory: Path, variant: str) -> list[str]:
    """What is not exactly one effect. Looks at the disk only, as a fresh process would."""

    async def look() -> list[str]:
        world = World(directory, ScriptedJudge(ROLL_BACK))
        world.controller.restore()
        state, control = world.controller.state, world.store.control(SERVICE)
        received = (directory / "received").read_text().split() if (directory / "received").exists() else []
        incidents = world.journal.incidents()
        moves = world.pointer_moves()
        first = 2 if variant == "promoted" else 1
        wrong = [
            name
            for name, holds in {
                "phase": state.phase is Phase.ROLLED_BACK,
                "weight": state.canary_ratio == 0.0 and state.stable == GOOD.name,
                "one epoch": state.epoch == first + 1 and control is not None and control.epoch == first + 1,
                "control": control is not None and control.canary_ratio == 0.0 and control.stable == GOOD.name,
                "one incident": len(incidents) == 1 and control is not None
                and control.incident_id == incidents[0].incident_id,
                "one pointer move": len(moves) == 1
                and moves[0] == (GOOD.name, "Staging" if variant == "promoted" else "Production", "Production"),
                "pointer": world.stages() == {GOOD.name: "Production", BAD.name: "Staging"},
                "one webhook id": len(set(received)) == 1 and len(received) <= 3,
                "outbox": world.journal.pending() == (),
                "promise kept": world.journal.read_intent() is None,
                "counted once": len(state.rollbacks_s) == 1,
            }.items()
            if not holds
        ]  # fmt: skip
        world.close()
        return wrong

    return asyncio.run(look())


def run_life(directory: Path, die_at: str | None, *, breach: bool) -> bool:
    """Run one life in a fork; True when it was killed. Raises when it failed in any other way."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            one_life(directory, die_at, breach=breach)
            code = 0
        except BaseException as error:
            sys.stderr.write(f"life at {die_at}: {type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status != 0:
        raise RuntimeError(f"a life ended with status {status} in {directory}")
    return False


def promised(point: str) -> bool:
    """The promise is durable at this point."""
    return ALL_POINTS.index(point) >= ALL_POINTS.index("intent:effect")


def run(root: Path, variant: str, *, crashes: int) -> dict[str, object]:
    """Every schedule of one crash, or of one and two; lives that begin alike are lived once and copied."""
    beginning = root / f"beginning-{variant}"
    prepare(beginning, variant)
    runs = kills = unreached = 0
    wrong: list[object] = []

    def settle(directory: Path, schedule: tuple[str, ...]) -> None:
        nonlocal runs
        runs += 1
        found = violations(directory, variant)
        if found:
            wrong.append({"schedule": schedule, "violations": found})
        shutil.rmtree(directory)

    for first in ALL_POINTS:
        dead = root / f"{variant}-{first}"
        shutil.copytree(beginning, dead)
        if not run_life(dead, first, breach=True):
            wrong.append({"schedule": (first,), "violations": ["the point was never reached"]})
        kills += 1
        for second in ALL_POINTS if crashes == 2 else ():
            directory = root / f"{variant}-{first}-{second}"
            shutil.copytree(dead, directory)
            if run_life(directory, second, breach=not promised(first)):
                kills += 1
                run_life(directory, None, breach=not (promised(first) or promised(second)))
            else:
                unreached += 1
            settle(directory, (first, second))
        run_life(dead, None, breach=not promised(first))
        settle(dead, (first,))
    return {"variant": variant, "runs": runs, "kills": kills, "unreached": unreached, "violations": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("directory", type=Path)
    parser.add_argument("variant", choices=["canary", "promoted"])
    parser.add_argument("--two", action="store_true", help="also every ordered pair of points")
    args = parser.parse_args()
    gc.freeze()  # forks share what is imported instead of copying it
    result = run(args.directory, args.variant, crashes=2 if args.two else 1)
    print(json.dumps(result))
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
