"""Connections to Redis, one command at a time on each; one whose command did not end well is never used again.

The protocol is redis-py's; its pool, its retries and its health checks are not used. A reply that comes after its
asker has gone would otherwise be read by the next asker, as somebody else's answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LinkError
from redis.exceptions import TimeoutError as LinkTimeout

T = TypeVar("T")


class Links:
    """At most `count` commands at a time. make: a new connection, not yet connected."""

    def __init__(self, make: Callable[[], Any], count: int) -> None:
        self._make, self._count = make, count
        self._idle: list[tuple[Any, int]] = []
        self._generation = 0
        self.busy_count = 0
        self.made_count = 0

    def distrust(self) -> None:
        """The server went away: connections from before that are as dead as the one that showed it."""
        self._generation += 1

    @property
    def full(self) -> bool:
        """No further command may be sent now."""
        return self.busy_count >= self._count

    async def call(self, *command: bytes | str | int, read: Callable[[Any], T]) -> T:
        """Send a command; `read` looks at the reply before anybody else may use the connection.

        Raises:
            What redis-py or `read` raises. Only after an error that the server itself told is the connection kept.
        """
        self.busy_count += 1
        sound, generation = False, self._generation
        link = self._make()
        while self._idle:
            idle, of = self._idle.pop()
            if of == generation:
                link = idle
                break
            await drop(idle)
        try:
            if not link.is_connected:
                self.made_count += 1
                await link.connect()
            await link.send_command(*command)
            try:
                result = read(await link.read_response(disable_decoding=True))
            except (AuthenticationError, BusyLoadingError):
                raise
            except ResponseError:
                sound = True
                raise
            sound = True
            return result
        finally:
            self.busy_count -= 1
            if sound and link.is_connected and len(self._idle) < self._count:
                self._idle.append((link, generation))
            else:
                await drop(link)

    async def close(self) -> None:
        """Close what is idle; the rest closes when its command ends."""
        idle, self._idle = self._idle, []
        for link, _ in idle:
            await drop(link)


async def drop(link: Any) -> None:
    """Close a connection without waiting for the other side."""
    try:
        await link.disconnect(nowait=True)
    except (LinkError, LinkTimeout, OSError):
        pass  # it was broken, which is why it goes


def connection_maker(
    *, host: str, port: int, db: int, username: str, password: str | None, tls: bool, connect_s: float
) -> Callable[[], Any]:
    """Connections that say nothing but what they are told: no retries, no health checks, no names of clients."""

    def make() -> Any:
        kind = SSLConnection if tls else Connection
        return kind(
            host=host, port=port, db=db, username=username or None, password=password, protocol=2, driver_info=None,
            retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=connect_s,
            health_check_interval=0,
        )  # fmt: skip

    return make


def failure_word(error: BaseException) -> str:
    """How it failed, from the closed set of fail-open reasons.

    >>> failure_word(TimeoutError()), failure_word(ConnectionResetError())
    ('timeout', 'closed')
    """
    if isinstance(error, TimeoutError | LinkTimeout):
        return "timeout"
    if isinstance(error, AuthenticationError | NoPermissionError):
        return "auth"
    if isinstance(error, BusyLoadingError):
        return "unavailable"
    if isinstance(error, LinkError | OSError):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ConnectionRefusedError):
                return "refused"
            cause = cause.__cause__ or cause.__context__
        return "refused" if "refused" in str(error).lower() else "closed"
    return "error"


def write_failure_word(error: BaseException) -> str:
    """The same for writes, which fail in ways of their own."""
    if isinstance(error, OutOfMemoryError):
        return "full"
    if isinstance(error, ReadOnlyError):
        return "readonly"
    if isinstance(error, NoPermissionError):
        return "denied"
    if isinstance(error, ResponseError) and not isinstance(error, AuthenticationError):
        return "denied" if str(error).startswith("NOPERM") else "error"
    word = failure_word(error)
    return "error" if word == "unavailable" else word
