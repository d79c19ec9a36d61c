"""Serves the admin application inside the running event loop, beside the data listener.

h11 reads the requests: it refuses oversized heads and bad framing that httptools lets through. What neither has is a
deadline for the head, so a connection that takes too long over one is closed here. Signals belong to the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from slo.errors import ConfigError

HEAD_BYTES = 64 * 1024
HEAD_S = 10.0
KEEP_ALIVE_S = 30
CONNECTIONS_COUNT = 200
BACKLOG_COUNT = 128
STOP_S = 5


class HeadDeadline(H11Protocol):
    """H11 with a deadline from the first moment of a request head to its end."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.trailing_data[0]:  # part of a next head came along with the last request
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """A head is awaited while the client owes one and nothing of ours is being answered."""
        owed = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        if owed and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._too_slow)
        elif not owed:
            self._unwatch()

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn that leaves the signal handlers of the process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminHandle:
    """A running admin listener."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], listener: socket.socket) -> None:
        self._server = server
        self._task = task
        self._listener = listener
        self.host, self.port = listener.getsockname()[:2]

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    async def close(self) -> None:
        """Stop taking requests, let the ones in flight end (at most `STOP_S`), and free the port. May be repeated."""
        self._server.should_exit = True
        try:
            await asyncio.wait_for(asyncio.shield(self._task), STOP_S + 5)
        except TimeoutError:
            self._task.cancel()
        finally:
            self._listener.close()


async def serve_admin(app: Any, host: str, port: int) -> AdminHandle:
    """Listen and serve until `close()`. Port 0 takes a free one; `handle.port` says which.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=HeadDeadline,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the address that the throttle counts is that of the socket
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=CONNECTIONS_COUNT,
        backlog=BACKLOG_COUNT,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="admin listener")
    while not server.started:
        if task.done():
            listener.close()
            task.result()
            raise ConfigError("listen.admin", f"{host}:{port}", "the admin listener ended at once; see the log")
        await asyncio.sleep(0.001)
    return AdminHandle(server, task, listener)


def _listen(host: str, port: int) -> socket.socket:
    """Bind here rather than in uvicorn, which would end the process when the port is taken."""
    if not 0 <= port <= 65_535:  # getaddrinfo would take it modulo 65,536
        raise ConfigError("listen.admin", f"{host}:{port}", "write a port from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("listen.admin", f"{host}:{port}", f"write an address of this machine ({error})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG_COUNT)
    except OSError as error:
        listener.close()
        cure = {
            errno.EADDRINUSE: "another program listens there; choose another port or stop it",
            errno.EACCES: "ports under 1024 need rights; choose another port",
        }.get(error.errno or 0, f"write an address of this machine ({error.strerror})")
        raise ConfigError("listen.admin", f"{host}:{port}", cure) from error
    return listener
