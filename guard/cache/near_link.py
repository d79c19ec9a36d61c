"""The worker process of the semantic cache, kept alive: started, listened to, started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

import msgspec

from guard.cache.near_frames import FromWorker, ToWorker, decode_from_worker, frame
from guard.checks.frames import Splitter
from slo.clock import Clock

log = logging.getLogger("guard.cache")

OUT_BYTES = 4 * 2**20
"""Bytes that may wait to be written; a worker that does not read is as good as none."""

BACKOFF_MIN_S, BACKOFF_MAX_S = 1.0, 30.0
RECEIVE_BYTES = 1 << 16


class NearLink:
    """One worker behind a socket pair.

    Args:
        on_message: told of each message, on the loop. on_start: told when a new worker listens; it knows nothing yet.
        command: argv without the number of the socket; tests put their own here. on_drained: told when everything that
        had to wait for the worker has been written.
    """

    def __init__(
        self,
        on_message: Callable[[FromWorker], None],
        on_start: Callable[[], None],
        clock: Clock,
        *,
        command: tuple[str, ...] | None = None,
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_message, self._on_start, self._clock = on_message, on_start, clock
        self._on_drained = on_drained
        self._command = command or (sys.executable, "-m", "guard.cache.near_worker")
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._splitter = Splitter()
        self._out = bytearray()
        self._writing = False
        self._task: asyncio.Task[None] | None = None
        self.restart_count = 0

    @property
    def alive(self) -> bool:
        """Whether a worker listens."""
        return self._socket is not None

    @property
    def drained(self) -> bool:
        """Whether a worker listens and nothing waits to be written to it."""
        return self._socket is not None and not self._out

    @property
    def pid(self) -> int | None:
        """Process id of the worker."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self) -> None:
        """Start and keep alive; does not wait."""
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name="semantic worker")

    async def stop(self) -> None:
        """End the worker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._disconnect()
        if self._process is not None and self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), 2.0)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def send(self, message: ToWorker) -> bool:
        """False when there is no worker, or it does not keep up."""
        if self._socket is None or len(self._out) > OUT_BYTES:
            return False
        self._out += frame(message)
        if not self._writing:
            self._write()
        return self._socket is not None

    async def _supervise(self) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            began_s = self._clock.now_s()
            try:
                await self._spawn()
                assert self._process is not None
                status = await self._process.wait()
                log.warning("worker of the semantic cache ended with status %s; starting another", status)
            except OSError as error:
                log.warning("worker of the semantic cache cannot be started: %s", error.strerror)
            self._disconnect()
            if self._clock.now_s() - began_s > 60.0:
                backoff_s = BACKOFF_MIN_S
            await self._clock.sleep(backoff_s)
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
            self.restart_count += 1

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            # A session of its own: Ctrl-C in the terminal is for the guard, which then ends the worker in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, str(theirs.fileno()), pass_fds=(theirs.fileno(),), start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._splitter, self._out = ours, Splitter(), bytearray()
        asyncio.get_running_loop().add_reader(ours, self._read)
        self._on_start()

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        try:
            for body in self._splitter.feed(data):
                self._on_message(decode_from_worker(body))
        except (msgspec.DecodeError, ValueError):
            self._disconnect()  # not our worker's language

    def _write(self) -> None:
        if self._socket is None:
            return
        try:
            count = self._socket.send(self._out)
            del self._out[:count]
        except BlockingIOError:
            pass
        except OSError:
            self._disconnect()
            return
        waiting = bool(self._out)
        if waiting != self._writing:
            self._writing = waiting
            loop = asyncio.get_running_loop()
            if waiting:
                loop.add_writer(self._socket, self._write)
            else:
                loop.remove_writer(self._socket)
                self._on_drained()

    def _disconnect(self) -> None:
        """Close our end; the worker leaves when it notices."""
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
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                pass  # it ended by itself between the two lines
