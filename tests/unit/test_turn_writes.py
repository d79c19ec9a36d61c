"""Writes of one turn of the loop: their order, what may not wait, an answer that comes before its question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from guard.limits import Egress
from guard.ports import Endpoint, Limits, Reason, Timeouts
from guard.turn_writes import AT_ONCE_BYTES, TurnWrites
from guard.upstream import UpstreamConnection, Upstreams

pytestmark = pytest.mark.anyio


async def test_writes_of_a_turn_keep_their_order_and_go_out_at_its_end() -> None:
    writes, seen = TurnWrites(), []
    writes.add(lambda data: seen.append((1, data)), b"a")
    writes.add(lambda data: seen.append((2, data)), b"b")
    writes.add(lambda data: seen.append((1, data)), b"c")
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [(1, b"a"), (2, b"b"), (1, b"c")]


async def test_a_large_write_does_not_wait_and_overtakes_nothing() -> None:
    writes, seen = TurnWrites(), []
    large = b"x" * AT_ONCE_BYTES
    writes.add(seen.append, b"head")
    writes.add(seen.append, large)
    assert seen == [b"head", large]
    await asyncio.sleep(0)
    assert len(seen) == 2


async def test_a_write_that_fails_costs_the_others_nothing() -> None:
    writes, seen = TurnWrites(), []
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def broken(data: bytes) -> None:
        raise RuntimeError("closed under us")

    writes.add(broken, b"a")
    writes.add(seen.append, b"b")
    await asyncio.sleep(0)
    assert seen == [b"b"]
    assert len(told) == 1


class _Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.written += pieces

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


class _Dial:
    def uncount(self) -> None:
        """Not counted here."""


class _Caller:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_head(self, head: Any) -> None:
        self.told.append(head.status)

    def on_body(self, data: bytes) -> None:
        self.told.append(data)

    def on_complete(self, read_at_s: float) -> None:
        self.told.append("complete")

    def on_broken(self, reason: Reason, *, answered: bool) -> None:
        self.told.append((reason, answered))

    def flush(self, read_at_s: float) -> None:
        """Nothing is written here."""


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def _connection() -> tuple[UpstreamConnection, _Wire]:
    shared = Upstreams(Limits(), Timeouts(), lambda: 0.0, Egress())
    connection = UpstreamConnection(shared.pool(Endpoint("http", "127.0.0.1", 1)), _Dial())  # type: ignore[arg-type]
    wire = _Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    return connection, wire


@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
async def test_an_answer_before_its_question_was_sent(reused: bool) -> None:
    connection, wire = _connection()
    connection.reused = reused
    caller = _Caller()
    connection.send(caller, b"quest", b"ion", to_head=False)  # type: ignore[arg-type]
    connection.data_received(ANSWER)
    if reused:  # left over from somebody else's question: taken for a connection that was closed meanwhile
        assert caller.told == [(Reason.UPSTREAM_CUT, False)]
        assert wire.aborted
        await asyncio.sleep(0)
        assert wire.written == []
    else:
        assert caller.told == [200, b"hi", "complete"]
        assert wire.written == [b"question"]


async def test_a_question_nobody_waits_for_any_more_is_not_sent() -> None:
    connection, wire = _connection()
    connection.send(_Caller(), b"quest", b"ion", to_head=False)  # type: ignore[arg-type]
    connection.abandon()
    await asyncio.sleep(0)
    assert wire.written == []


async def test_a_large_question_goes_out_at_once_after_what_was_asked_before_it() -> None:
    connection, wire = _connection()
    seen = wire.written
    connection._pool.shared.writes.add(seen.append, b"earlier")
    body = b"x" * AT_ONCE_BYTES
    connection.send(_Caller(), b"head", body, to_head=False)  # type: ignore[arg-type]
    assert seen == [b"earlier", b"head", body]
    assert not connection.unsent
