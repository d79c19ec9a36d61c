"""The link to a worker: what it says is taken once and in order, whatever becomes of the worker or of who listens."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guard.worker_link import Worker, WorkerLink
from slo.clock import SystemClock

pytestmark = pytest.mark.anyio
LOG = logging.getLogger("test-worker")

HEAD = """
import socket, struct, sys, time
link = socket.socket(fileno=int(sys.argv[-1]))
def say(*bodies): link.sendall(b"".join(struct.pack("<I", len(body)) + body for body in bodies))
"""


class Linked:
    """A link, and what was heard through it."""

    def __init__(self, directory: Path, program: str, hear: Callable[[bytes], None] | None, at_once: int) -> None:
        path = directory / "worker.py"
        path.write_text(HEAD + program)
        self.heard: list[bytes] = []
        self.starts_count = self.ends_count = self.drained_count = 0
        worker = Worker((sys.executable, str(path)), "test worker", LOG, 0.01, 0.05, at_once)
        self.link = WorkerLink(
            worker, SystemClock(), on_start=self._started, on_body=hear or self.heard.append, on_end=self._ended,
            on_drained=self._drained,
        )  # fmt: skip

    def _started(self) -> None:
        self.starts_count += 1

    def _ended(self) -> None:
        self.ends_count += 1

    def _drained(self) -> None:
        self.drained_count += 1

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.005)


@asynccontextmanager
async def linked(
    directory: Path, program: str, hear: Callable[[bytes], None] | None = None, *, at_once: int = 64
) -> AsyncIterator[Linked]:
    made = Linked(directory, program, hear, at_once)
    made.link.start()
    try:
        yield made
    finally:
        await made.link.stop()
    assert not made.link.alive
    assert made.link.pid is None


@pytest.mark.parametrize("words", ["b'\\xff\\xff\\xff\\xff'", "struct.pack('<I', 2**31)"])
async def test_who_speaks_another_language_is_replaced(tmp_path: Path, words: str) -> None:
    async with linked(tmp_path, f"link.sendall({words}); time.sleep(60)") as made:
        await made.until(lambda: made.link.restart_count >= 2)
        assert made.starts_count - 1 <= made.ends_count <= made.starts_count


async def test_a_listener_that_raises_costs_one_frame_and_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def hear(body: bytes) -> None:
        if body == b"2":
            raise ValueError("ours")
        heard.append(body)

    async with linked(tmp_path, "say(b'1', b'2', b'3'); time.sleep(60)", hear) as made:
        await made.until(lambda: len(heard) == 2)
        assert (heard, made.link.restart_count) == ([b"1", b"3"], 0)
    assert [r.getMessage() for r in caplog.records] == ["test worker: what it said could not be taken"]


async def test_what_was_read_is_taken_before_the_end(tmp_path: Path) -> None:
    async with linked(tmp_path, "say(*(b'%d' % n for n in range(50))); time.sleep(60)", at_once=1) as made:
        async with asyncio.timeout(20):
            while not made.heard:  # noqa: ASYNC110 - at every turn of the loop
                await asyncio.sleep(0)
        assert len(made.heard) < 50
    assert made.heard == [b"%d" % n for n in range(50)]
    assert made.ends_count == 0


async def test_the_last_words_of_a_worker_are_taken_before_its_end_is_told(tmp_path: Path) -> None:
    async with linked(tmp_path, "say(*(b'%d' % n for n in range(50))); sys.exit(3)", at_once=1) as made:
        await made.until(lambda: made.ends_count)
        assert made.heard[:50] == [b"%d" % n for n in range(50)]


async def test_what_does_not_fit_waits_and_the_end_of_the_wait_is_told(tmp_path: Path) -> None:
    program = """
time.sleep(0.3)
want = 8 * 2**20 + 3
got = 0
while got < want:
    got += len(link.recv(1 << 20))
say(b"%d" % got)
time.sleep(60)
"""
    async with linked(tmp_path, program) as made:
        await made.until(lambda: made.link.alive)
        assert made.link.send(bytes(8 * 2**20), b"abc")
        assert made.link.waiting_bytes > 0
        assert not made.link.drained
        await made.until(lambda: made.heard)
        assert made.heard == [b"%d" % (8 * 2**20 + 3)]
        assert (made.link.drained, made.drained_count, made.link.restart_count) == (True, 1, 0)


async def test_who_cannot_be_started_is_tried_again_and_nothing_can_be_sent(tmp_path: Path) -> None:
    made = Linked(tmp_path, "", None, 1)
    made.link._worker = Worker((str(tmp_path / "nothing-there"),), "test worker", LOG, 0.01, 0.05)
    made.link.start()
    await made.until(lambda: made.link.restart_count >= 2)
    assert (made.link.alive, made.link.drained, made.link.send(b"x")) == (False, False, False)
    assert (made.starts_count, made.ends_count >= 2) == (0, True)
    await made.link.stop()
