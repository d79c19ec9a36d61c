"""What the cache costs the event loop, without sockets: key, lookup and replay: `python -m bench.cache_key`.

CPU microseconds, the best of seven rounds: what the code needs, not what a busy machine adds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from guard.cache.flight import Turn
from guard.cache.service import AnswerCache
from guard.cache.types import Entry
from guard.ports import Capture, Route
from guard.replay import replay
from guard.wire.http1 import read_request_head
from slo.types import Exchange, Outcome
from tests.cache_kit import PASSED, memory_cache
from tests.faults.scripted_upstream import chat_stream, completion

ROUTE = Route("chat", "/v1/chat/completions", "openai-chat")
HEAD = read_request_head(
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: guard\r\nauthorization: Bearer sk-1\r\nuser-agent: OpenAI/Python\r\n"
    b"x-stainless-lang: python\r\nx-guard-tenant: acme\r\ncontent-type: application/json\r\naccept: application/json"
)


def best_us(work: Callable[[], Any], count: int = 1000) -> float:
    """CPU time of one call, microseconds."""
    rounds = []
    for _ in range(7):
        began_s = time.process_time()
        for _ in range(count):
            work()
        rounds.append((time.process_time() - began_s) / count)
    return round(min(rounds) * 1e6, 1)


def body(size: int, *, stream: bool = False, temperature: float = 0.0) -> bytes:
    """A chat request of about `size` bytes, half of it Chinese."""
    words = "How many days of leave do I have? \u8acb\u554f\u7279\u4f11\u6709\u5e7e\u5929\uff1f "
    text = (words * (1 + size // 60))[: size // 2]
    asked = {"model": "m-1", "temperature": temperature, "messages": [{"role": "user", "content": text}]}
    return json.dumps({**asked, "stream": stream}, ensure_ascii=False).encode()


class _Asker:
    exchange_id = b"e2"
    entry: Entry | None = None

    def cache_hit(self, entry: Entry) -> None:
        self.entry = entry

    def cache_missed(self) -> None:
        raise AssertionError("a miss")


def _turn(cache: AnswerCache, raw: bytes) -> Turn | None:
    return cache.turn(HEAD, raw, ROUTE, release="r1", epoch=1)


def _kept(cache: AnswerCache, raw: bytes, answer: bytes, *, stream: bool) -> None:
    turn = _turn(cache, raw)
    assert turn is not None
    kind = b"text/event-stream" if stream else b"application/json"
    exchange = Exchange("e1", time.monotonic() + 1e9, "chat", "r1", "stable", Outcome.OK, 200, findings=PASSED)
    cache.offer(turn.request, exchange, Capture(ROUTE, raw, answer, ((b"content-type", kind),), stream, False))
    cache.checked(exchange)


def main() -> int:
    """Print one JSON object."""
    cache = memory_cache()
    figures: dict[str, float] = {}
    for size in (1_000, 10_000):
        raw = body(size)
        figures[f"turn_and_key_{size // 1000}kB_us"] = best_us(lambda raw=raw: _turn(cache, raw))
    sampled = body(1_000, temperature=0.7)
    figures["bypassed_1kB_us"] = best_us(lambda: _turn(cache, sampled))
    for name, stream, answer in (
        ("json", False, completion("Seven days. " * 20)),
        ("stream_100_events", True, chat_stream(["word "] * 97, usage=True)),
    ):
        raw = body(1_000, stream=stream)
        _kept(cache, raw, answer, stream=stream)

        def hit(raw: bytes = raw) -> None:
            turn, asker = _turn(cache, raw), _Asker()
            assert turn is not None
            turn.ask(asker)
            assert asker.entry is not None
            replay(asker.entry, True, 1e9)

        figures[f"hit_{name}_us"] = best_us(hit)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
