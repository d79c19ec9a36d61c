"""What each layer of the guard costs per request: `python -m bench.proxy_ladder`, CPU time of one process, no sockets.

The real data path and the real recorders, between transports that only count bytes: what is left out is the kernel
(four system calls a request) and the event loop's own turn. Rows are cumulative, rounds are interleaved, so that a busy
machine falls on all rows alike; printed is the median of each row and its step over the row before.
`--profile ROW` prints where the time of one row goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guard.listener import ClientConnection
from guard.ports import Capture
from guard.settings import load_settings
from guard.upstream import UpstreamConnection
from guard.wiring import Guard
from slo.types import Exchange

GUARD_YAML = """service: bench
state_dir: {state}
slo: slo.yaml
routes:
  - {{name: chat, path: /v1/chat/completions, adapter: openai-chat}}
versions:
  v1: {{upstreams: ["http://127.0.0.1:1"], model: gpt-4o-mini}}
release: {{stable: v1}}
checks: {{embedder: none}}
"""
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("path alone", ()),
    ("+ metrics", ("prometheus",)),
    ("+ windows", ("windows",)),
    ("+ last exchanges, users, labels", ("quality", "recent", "labels")),
    ("+ exchange log", ("exchange_log",)),
)
CHECKED, REFUSED = "+ handed to the checks", "the same, checks full"


class Wire:
    """A transport that takes everything at once."""

    def __init__(self) -> None:
        self.byte_count = self.write_count = 0

    def write(self, data: bytes) -> None:
        self.byte_count += len(data)
        self.write_count += 1

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is buffered."""

    def abort(self) -> None:
        """Nobody is there."""

    close = pause_reading = resume_reading = write_eof = abort


class _Connected:
    """The dial of a connection that is there already."""

    def uncount(self) -> None:
        """It was never counted."""


class Silent:
    """A sink that counts."""

    def __init__(self) -> None:
        self.count = 0

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        self.count += 1


def with_new_id(raw: bytes, number: int) -> bytes:
    """The same message with a request id of its own, so that no head comes again."""
    line, rest = raw.split(b"\r\n", 1)
    return b"%s\r\nx-request-id: req-%06d\r\n%s" % (line, number, rest)


def request_bytes(body_bytes: int, *, stream: bool) -> bytes:
    """One request as the official Python client sends it."""
    words = "The limited warranty covers parts and labour for twenty-four months. "
    asked: dict[str, Any] = {"model": "gpt-4o-mini", "temperature": 0.2, "max_tokens": 256, "user": "tenant-1"}
    asked["messages"] = [
        {"role": "system", "content": "Answer from the passages only."},
        {"role": "user", "content": (words * (body_bytes // len(words) + 1))[: max(0, body_bytes - 220)]},
    ]
    if stream:
        asked["stream"] = True
        asked["stream_options"] = {"include_usage": True}
    body = json.dumps(asked).encode()
    names = ("Lang: python", "Package-Version: 2.54.0", "OS: Linux", "Arch: x64", "Runtime: CPython", "Async: false")
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", "Connection: keep-alive"]
    lines += ["Accept: application/json", "Accept-Encoding: identity", "Content-Type: application/json"]
    lines += ["User-Agent: OpenAI/Python 2.54.0", "Authorization: Bearer sk-bench-0123456789abcdef"]
    lines += [f"X-Stainless-{name}" for name in names] + [f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer_pieces(*, stream: bool) -> list[bytes]:
    """The upstream's answer, in the pieces in which it is read."""
    usage = {"prompt_tokens": 480, "completion_tokens": 150, "total_tokens": 630}
    head = b"HTTP/1.1 200 OK\r\nserver: bench\r\ndate: Thu, 26 Nov 2026 00:00:00 GMT\r\nconnection: keep-alive\r\n"
    if not stream:
        message = {"role": "assistant", "content": "It covers parts and labour for two years [1]. " * 14}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "usage": usage}
        body = json.dumps({**answer, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        return [b"%scontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (head, len(body), body)]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    events = [{**chunk, "choices": [{"index": 0, "delta": {"content": "word " * 16}}]}] * 50
    events.append({**chunk, "choices": [], "usage": usage})
    lines = [b"data: %s\n\n" % json.dumps(event).encode() for event in events] + [b"data: [DONE]\n\n"]
    pieces = [b"%x\r\n%s\r\n" % (len(line), line) for line in lines] + [b"0\r\n\r\n"]
    return [head + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", *pieces]


class Bench:
    """One data path with a client and an upstream connection on counting transports."""

    def __init__(self, guard: Guard, connections: int = 32) -> None:
        self.guard, self.path = guard, guard.data_path
        self.recorders = dict(guard.fanout._recorders)
        self.sink = self.path.sink
        pool = self.path.plan(next(iter(guard.settings.targets.values()))).next_pool(None)
        self.pairs: list[ClientConnection] = []
        for _ in range(connections):
            client = ClientConnection(self.path)
            client.connection_made(Wire())  # type: ignore[arg-type]
            self.pairs.append(client)
        self.upstream = UpstreamConnection(pool, _Connected())  # type: ignore[arg-type]
        self.upstream.connection_made(Wire())  # type: ignore[arg-type]
        pool.put(self.upstream)

    def choose(self, names: tuple[str, ...], *, checks: bool, full: bool) -> None:
        """Which layers are there."""
        self.guard.fanout._recorders = tuple((n, r) for n, r in self.recorders.items() if n in names)
        pipeline = self.guard.pipeline
        assert pipeline is not None
        if full:
            pipeline._loop = asyncio.get_running_loop()  # gives up in batches, as when it is started
        if not names:
            self.path.sink = Silent()
            return
        self.path.sink = self.sink
        self.sink._pipeline = pipeline if checks else None  # type: ignore[attr-defined]
        pipeline._waiting.clear()
        pipeline._bytes = pipeline._limits.pending_bytes if full else 0

    def end_turn(self) -> None:
        """What the loop does at the end of a turn: it belongs to the requests of the turn."""
        self.path.writes.flush()
        if self.path.sink is self.sink:
            self.sink.flush()  # type: ignore[attr-defined]
            pipeline = self.guard.pipeline
            assert pipeline is not None
            pipeline._tell_given_up()

    async def run(
        self, count: int, request: bytes, pieces: list[bytes], drain: Callable[[], None], *, new_heads: bool = False
    ) -> float:
        """CPU microseconds per request."""
        self.path.upstreams.sweep(self.path.now_s())
        upstream, pairs, writes = self.upstream, self.pairs, self.path.writes
        end_turn = self.end_turn
        self.plain = request, pieces[0]
        spent_s = 0.0
        done = 0
        while done < count:
            if new_heads:
                request = with_new_id(self.plain[0], done)
                pieces = [with_new_id(self.plain[1], done), *pieces[1:]]
            started_s = time.thread_time()
            for client in pairs:
                client.data_received(request)
                writes.flush()
                for piece in pieces:
                    upstream.data_received(piece)
            end_turn()
            spent_s += time.thread_time() - started_s
            done += len(pairs)
            await asyncio.sleep(0)
            drain()
        return 1e6 * spent_s / done


async def ladder(asked: argparse.Namespace) -> int:
    """Measure and print."""
    request, pieces = request_bytes(asked.body, stream=asked.stream), answer_pieces(stream=asked.stream)
    with tempfile.TemporaryDirectory(prefix="sft-ladder-") as scratch:
        config = Path(scratch) / "guard.yaml"
        config.write_text(GUARD_YAML.format(state=Path(scratch) / "state"))
        (Path(scratch) / "slo.yaml").write_text("service: bench\npreset: support-faq\n")
        guard = Guard(load_settings(config))
        bench = Bench(guard)
        rows: list[tuple[str, tuple[str, ...], bool, bool]] = []
        names: tuple[str, ...] = ()
        for title, more in STEPS:
            names += more
            rows.append((title, names, False, False))
        everything = tuple(bench.recorders)
        rows += [(CHECKED, everything, True, False), (REFUSED, everything, True, True)]
        if asked.profile:
            rows = [row for row in rows if row[0] == asked.profile]
        found: dict[str, list[float]] = {row[0]: [] for row in rows}
        profile = cProfile.Profile()
        for number in range(asked.rounds + 1):
            for title, some, checks, full in rows:
                bench.choose(some, checks=checks, full=full)
                emptied = (lambda: None) if full or not checks else bench_drain(guard)
                if asked.profile and number:
                    profile.enable()
                took_us = await bench.run(asked.count, request, pieces, emptied, new_heads=asked.new_heads)
                if asked.profile and number:
                    profile.disable()
                if number:  # the first round warms up
                    found[title].append(took_us)
        if asked.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        report(found)
        await guard.stop(drain=False)
    return 0


def bench_drain(guard: Guard) -> Callable[[], None]:
    """What the worker does when it keeps up: the jobs are gone."""
    pipeline = guard.pipeline
    assert pipeline is not None

    def drain() -> None:
        pipeline._waiting.clear()
        pipeline._bytes = 0

    return drain


def report(found: dict[str, list[float]]) -> None:
    """One line per row."""
    before = 0.0
    print(f"{'layers':<34}{'us a request':>14}{'step':>9}{'  min-max'}")
    for title, took in found.items():
        middle = statistics.median(took)
        step = f"{middle - before:+.1f}" if before else ""
        print(f"{title:<34}{middle:>14.1f}{step:>9}  {min(took):.1f}-{max(took):.1f}")
        before = middle


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="requests per row and round")
    parser.add_argument("--rounds", type=int, default=9, help="rounds over all rows")
    parser.add_argument("--body", type=int, default=2048, help="bytes of a request body")
    parser.add_argument("--stream", action="store_true", help="streams of 50 events instead of JSON answers")
    parser.add_argument(
        "--new-heads", action="store_true", help="a request id of its own in each turn: nothing repeats"
    )
    parser.add_argument("--profile", default="", metavar="ROW", help="print a profile of this row only")
    return asyncio.run(ladder(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
