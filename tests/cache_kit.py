"""A cache without settings: rules for the routes of `path_kit`, counters that remember, checks that say as told."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from guard.cache.key import KeyRules
from guard.cache.memory import MemoryStore
from guard.cache.policy import StorePolicy
from guard.cache.ports import Store
from guard.cache.redis import RedisStore
from guard.cache.redis_link import connection_maker
from guard.cache.revocations import Revocations
from guard.cache.service import AnswerCache, CacheConfig, horizon_s
from guard.ports import Capture
from slo.clock import Clock, SystemClock
from slo.types import CheckResult, Exchange, Finding
from tests.faults.path_kit import Sink

PASSED = (Finding("rules", CheckResult.PASS), Finding("grounding", CheckResult.PASS), Finding("pii", CheckResult.PASS))
FAILED = (Finding("rules", CheckResult.PASS), Finding("grounding", CheckResult.FAIL), Finding("pii", CheckResult.PASS))
BLIND = (Finding("rules", CheckResult.PASS), Finding("grounding", CheckResult.UNAVAILABLE))


class Counted:
    """Counters: (metric, label values) -> sum."""

    def __init__(self) -> None:
        self.sums: Counter[tuple[str, ...]] = Counter()

    def inc(self, metric: str, labels: Mapping[str, str], n: float = 1) -> None:
        self.sums[(metric, *labels.values())] += int(n)

    def observe(self, metric: str, labels: Mapping[str, str], value: float) -> None:
        self.sums[(metric, *labels.values())] += 1


def config(wait_s: float = 2.0, policy: StorePolicy | None = None, **rules: Any) -> CacheConfig:
    """The same rules for the three cached routes."""
    names = ("chat", "responses", "ask")
    policy = policy or StorePolicy(refusals=("could not find",))
    return CacheConfig({n: KeyRules(**rules) for n in names}, dict.fromkeys(names, policy), wait_s)


def memory_cache(
    *, max_bytes: int = 8 * 2**20, clock: Clock | None = None, counters: Counted | None = None, **more: Any
) -> AnswerCache:
    """A cache in memory."""
    clock = clock or SystemClock()

    def store(cache: AnswerCache) -> Store:
        return MemoryStore(max_bytes, clock.now_s, cache.gone)

    return AnswerCache(config(**more), store, counters or Counted(), clock, b"secret of a test")


@dataclass
class CheckedBy(Sink):
    """The sink of a data path whose checks answer at once: `findings` for every answer; None: not yet."""

    cache: AnswerCache | None = None
    findings: tuple[Finding, ...] | None = PASSED
    waiting: list[Exchange] = field(default_factory=list)

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        super().finished(exchange, capture)
        if self.cache is None:
            return
        if capture is None:
            self.cache.checked(exchange, None)
        elif self.findings is None:
            self.waiting.append(exchange)
        else:
            self.cache.checked(replace(exchange, findings=self.findings), None)


class Wall:
    """A clock that stands still until it is moved."""

    def __init__(self, wall_s: float = 1_760_000_000.0) -> None:
        self._now_s, self._wall_s = 1000.0, wall_s

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._wall_s

    async def sleep(self, delay_s: float) -> None:
        raise AssertionError("nothing waits here")

    def move(self, by_s: float) -> None:
        self._now_s += by_s
        self._wall_s += by_s

    def set_back(self, by_s: float) -> None:
        self._wall_s -= by_s


@dataclass
class RedisServer:
    """A real Redis of a test."""

    port: int
    directory: Path
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            if self.tell("PING").startswith((b"+PONG", b"-NOAUTH")):
                return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def tell(self, *words: str | bytes) -> bytes:
        """One command, its raw reply; b"" when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                raw = [w.encode() if isinstance(w, str) else w for w in words]
                sock.sendall(b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in raw))
                return sock.recv(1 << 20)
        except OSError:
            return b""


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A Redis on a port of its own; skips where the Debian package redis-server is missing."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian package redis-server)")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="sft-guard-redis-") as directory:
        server = RedisServer(port, Path(directory), options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


REDIS_SECRET = b"a secret that all replicas of a test share"


@dataclass
class RedisCache:
    """A cache on a Redis, in use."""

    cache: AnswerCache
    store: RedisStore
    counters: Counted

    def counted(self, metric: str, *values: str) -> int:
        return self.counters.sums[(metric, *values)]

    @property
    def passed(self) -> dict[str, int]:
        """Passages past Redis, by reason."""
        return {name[2]: n for name, n in self.counters.sums.items() if name[0] == "sft_guard_failopen_total"}


@asynccontextmanager
async def redis_cache(
    port: int, *, username: str = "", password: str | None = None, wait_s: float = 2.0, **more: Any
) -> AsyncIterator[RedisCache]:
    """Made, started and stopped."""
    counters, clock, rules = Counted(), SystemClock(), config(wait_s)
    revocations = Revocations(horizon_s(rules))
    make = connection_maker(
        host="127.0.0.1", port=port, db=0, username=username, password=password, tls=False, connect_s=1.0
    )
    stores: list[RedisStore] = []

    def store(cache: AnswerCache) -> Store:
        stores.append(
            RedisStore(make, REDIS_SECRET, "sft:test:", revocations, cache.revoked, counters, clock, **more)
        )  # fmt: skip
        return stores[0]

    cache = AnswerCache(
        rules, store, counters, clock, b"pepper", revocations=revocations, on_revocation=lambda r: stores[0].share(r)
    )
    await stores[0].start()
    try:
        yield RedisCache(cache, stores[0], counters)
    finally:
        await stores[0].stop()
