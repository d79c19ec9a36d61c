"""A worker process behind a socket pair, kept alive: started, listened to, started again when it dies.

    send -> waiting bytes -> worker -> frames -> on_body, a few in a turn of the loop

Knows nothing of what is said; the check pipeline and the semantic cache speak through it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from guard.checks.frames import Splitter
from slo.clock import Clock
from slo.codec import NOT_JSON

RECEIVE_BYTES = 1 << 18
LAST_READS = 64
"""A worker that ended may have left so many reads; its last words belong to what it did."""
LONG_LIFE_S = 60.0
"""Whoever lived so long was no bad start: the wait before the next one is the shortest again."""
END_S = 2.0


@dataclass(frozen=True, slots=True)
class Worker:
    """What is kept alive.

    command: argv without the number of the socket. name, log: who says what happens to it, and where. backoff_min_s,
    backoff_max_s: wait before the next one, doubled each time one dies soon. bodies_at_once: frames taken in one turn
    of the loop; a worker that answers what it is asked cannot have many more waiting, so their number has no bound.
    """

    command: tuple[str, ...]
    name: str
    log: logging.Logger
    backoff_min_s: float = 1.0
    backoff_max_s: float = 30.0
    bodies_at_once: int = 64


class WorkerLink:
    """One worker at a time. All is called, and calls, on the loop.

    Args:
        on_start: a new worker listens and knows nothing yet.
        on_body: one of its frames. What is raised of `NOT_JSON` means not our worker's language: what else it said is
        thrown away, another is started. What else is raised costs this frame and a line in the log.
        on_end: it is over, and what it said was taken; or it could not be started. Not told of the end by `stop`.
        on_drained: everything that had to wait for the worker has been written.
    """

    def __init__(
        self,
        worker: Worker,
        clock: Clock,
        *,
        on_start: Callable[[], None],
        on_body: Callable[[bytes], None],
        on_end: Callable[[], None] = lambda: None,
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker, self._clock = worker, clock
        self._on_start, self._on_body, self._on_end, self._on_drained = on_start, on_body, on_end, on_drained
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._splitter = Splitter()
        self._said: deque[bytes] = deque()  # and not yet taken
        self._out = bytearray()
        self._writing = self._hearing_due = self._ending = self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.restart_count = 0
        self.heard_s = 0.0  # when it said anything last, or was started

    # What it is like now ---------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a worker listens."""
        return self._socket is not None

    @property
    def drained(self) -> bool:
        """Whether a worker listens and nothing waits to be written to it."""
        return self._socket is not None and not self._out and not self._ending

    @property
    def waiting_bytes(self) -> int:
        """What it did not read yet."""
        return len(self._out)

    @property
    def pid(self) -> int | None:
        """Process id of the worker."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start one and keep one alive; does not wait."""
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=self._worker.name)
        self._task.add_done_callback(self._unsupervised)

    async def stop(self) -> None:
        """Take what was read, end the worker."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._hear(len(self._said))
        self._disconnect()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), END_S)
            except TimeoutError:
                self.kill()
                await self._process.wait()

    def kill(self) -> None:
        """End this worker; another is started."""
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                pass  # it ended by itself between the two lines

    async def _supervise(self) -> None:
        """Start, wait for its end, wait longer each time it dies soon."""
        worker = self._worker
        backoff_s = worker.backoff_min_s
        while True:
            began_s = self._clock.now_s()
            try:
                await self._spawn()
                assert self._process is not None
                status = await self._process.wait()
                worker.log.warning("%s ended with status %s; starting another", worker.name, status)
            except OSError as error:
                worker.log.warning("%s cannot be started: %s", worker.name, error.strerror)
            self._last_words()
            self._on_end()
            if self._clock.now_s() - began_s > LONG_LIFE_S:
                backoff_s = worker.backoff_min_s
            await self._clock.sleep(backoff_s)
            backoff_s = min(worker.backoff_max_s, backoff_s * 2)
            self.restart_count += 1

    def _unsupervised(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._worker.log.error("%s is not kept alive any more: %r", self._worker.name, error)

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            # A session of its own: Ctrl-C in the terminal is for the guard, which then ends the worker in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._worker.command, str(theirs.fileno()), pass_fds=(theirs.fileno(),), start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._listen(ours)

    def _listen(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self._socket, self._splitter, self._out = ours, Splitter(), bytearray()
        self._said.clear()
        self._ending = False
        self.heard_s = self._clock.now_s()
        asyncio.get_running_loop().add_reader(ours, self._read)
        self._on_start()

    def _last_words(self) -> None:
        """Take what the worker said before its end, then close."""
        self._ending = True
        for _ in range(LAST_READS):
            if self._socket is None:
                break
            self._read()
        self._hear(len(self._said))
        self._disconnect()

    def _disconnect(self) -> None:
        """Close our end; the worker leaves when it notices, and is killed if it is past noticing."""
        link, self._socket = self._socket, None
        if link is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(link)
        if self._writing:
            loop.remove_writer(link)
            self._writing = False
        link.close()
        self._out = bytearray()
        if not self._stopping:
            self.kill()

    # Hearing ---------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE_BYTES)
            self._said += self._splitter.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError):
            data = b""
        if not data:
            self._disconnect()
            return
        self.heard_s = self._clock.now_s()
        self._hear_soon()

    def _hear_soon(self) -> None:
        if self._said and not self._hearing_due:
            self._hearing_due = True
            asyncio.get_running_loop().call_soon(self._hear_on)

    def _hear_on(self) -> None:
        self._hearing_due = False
        self._hear(self._worker.bodies_at_once)
        self._hear_soon()

    def _hear(self, at_most_count: int) -> None:
        """Take what the worker said, oldest first."""
        for _ in range(min(at_most_count, len(self._said))):
            try:
                self._on_body(self._said.popleft())
            except NOT_JSON:
                self._said.clear()
                self._disconnect()  # not our worker's language: start another one
                return
            except Exception:  # whoever listens is foreign code; it never costs the worker its supervision
                self._worker.log.exception("%s: what it said could not be taken", self._worker.name)

    # Telling ---------------------------------------------------------------------------------------------------------

    def send(self, *frames: bytes) -> bool:
        """In one write, as far as it goes. False: no worker listens."""
        if self._socket is None:
            return False
        for data in frames:
            self._out += data
        if not self._writing:
            self._write()
        return True

    def _write(self) -> None:
        link = self._socket
        if link is None or not self._out:
            return
        try:
            sent_bytes = link.send(self._out)
            del self._out[:sent_bytes]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.kill()  # where it is not gone yet; the reader sees the end, after its last words
            return
        loop = asyncio.get_running_loop()
        if self._out and not self._writing:
            self._writing = True
            loop.add_writer(link, self._write)
        elif not self._out and self._writing:
            self._writing = False
            loop.remove_writer(link)
            self._on_drained()
