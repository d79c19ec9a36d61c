"""The store that replicas share. A Redis that is down, slow, full, read-only or wrong costs hits, never an answer.

    get      one GET within the budget, no retry; five failures in a row open the breaker, then nobody waits at all
    put      queued, bounded, tried once; what does not arrive is counted
    revoke   a signed line in a stream that every replica reads once a second, and again from its beginning after
             each interruption; until it has been read nothing is served from Redis. However long it is, reading gets
             to its end: the time limit is that of a page, and what broke off goes on at its place

What comes back is held against its envelope (`envelope`) and against the guard's own list (`revocations`), so a
restored snapshot or an evicted key brings back nothing that was taken back.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from guard.cache.breaker import Breaker
from guard.cache.envelope import Crosstalk, InvalidValue, seal, unseal
from guard.cache.ports import Counters, Found
from guard.cache.redis_link import Links, failure_word, write_failure_word
from guard.cache.revocations import Revocations
from guard.cache.types import CacheKey, Entry, Removed, Revocation, StoreStats
from slo.clock import Clock

log = logging.getLogger("sft-guard.cache")

PROBE_EVERY_S = 1.0
PROBE_BUDGET_S = 0.25
WRITE_QUEUE_COUNT = 512
WRITE_QUEUE_BYTES = 16 * 2**20
WRITERS = 2
STREAM_LENGTH = 20_000
PAGE_COUNT = 500
_SLACK_BYTES = 16 * 1024  # of an envelope around its answer


class RedisStore:
    """See `ports.Store`; `start` and `stop` on the loop it is used on.

    Args:
        make_link: a new connection to Redis. prefix: begins every key, for example `sft:faq-bot:`.
        apply: told of each line that another replica wrote.
    """

    def __init__(
        self,
        make_link: Callable[[], Any],
        secret: bytes,
        prefix: str,
        revocations: Revocations,
        apply: Callable[[Revocation], object],
        counters: Counters,
        clock: Clock,
        *,
        budget_s: float = 0.02,
        write_budget_s: float = 0.5,
        connections: int = 16,
        max_entry_bytes: int = 256 * 1024,
        probe_every_s: float = PROBE_EVERY_S,
    ) -> None:
        self._secret, self._prefix = secret, prefix.encode()
        self._revocations, self._apply = revocations, apply
        self._counters, self._clock = counters, clock
        self._budget_s, self._write_budget_s, self._probe_every_s = budget_s, write_budget_s, probe_every_s
        self._max_bytes = max_entry_bytes + _SLACK_BYTES
        self.reads = Links(make_link, connections)
        self._writes = Links(make_link, WRITERS + 1)
        self.breaker = Breaker()
        self.breaker.trip()  # until the first line of the stream has been read
        self._queue: asyncio.Queue[tuple[bytes | str | int, ...]] = asyncio.Queue(WRITE_QUEUE_COUNT)
        self._queued_bytes = 0
        self._unshared: deque[Revocation] = deque()
        self._read_to = b""  # id of the last line read; "" before the first
        self._seen: set[Revocation] | None = set()  # lines read since all must be read again; None: all have been
        self._doubted = False  # whether the stream may be another one than the one in which `_read_to` was read
        self._share_count = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._lookups: set[asyncio.Task[None]] = set()
        self._said = ""

    # Life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to use Redis; one that does not answer now is used from when it does."""
        await self.beat()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._write_on()) for _ in range(WRITERS)]
        self._tasks.append(loop.create_task(self._beat_on()))

    async def stop(self) -> None:
        """Give up what is under way and close everything."""
        self.breaker.trip()
        for task in (*self._tasks, *self._lookups):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._lookups, return_exceptions=True)
        await self.reads.close()
        await self._writes.close()

    # Store -----------------------------------------------------------------------------------------------------------

    def get(self, key: CacheKey, found: Found) -> None:
        if self.breaker.open:
            found(None, "open")
        elif self.reads.full:
            found(None, "busy")
        else:
            _Lookup(self, key, found).start(self._budget_s)

    def put(self, entry: Entry) -> bool:
        name, life_ms = self._name(entry.key), max(1, int(entry.ttl_s * 1000))
        return self._enqueue("SET", name, seal(entry, self._secret), "PX", life_ms)

    def discard(self, key: CacheKey, reason: Removed) -> None:
        self._enqueue("UNLINK", self._name(key))

    def revoke(self, revocation: Revocation) -> int | None:
        if revocation.kind == "key":
            self._enqueue("UNLINK", self._prefix + b"a:" + revocation.value.encode())
        return None

    def share(self, revocation: Revocation) -> None:
        """Tell the other replicas; kept until Redis has taken it."""
        self._unshared.append(revocation)
        while len(self._unshared) > STREAM_LENGTH:
            self._unshared.popleft()

    def stats(self) -> StoreStats:
        return StoreStats("redis", None, None, None, "open" if self.breaker.open else "ok")

    # Lookups ---------------------------------------------------------------------------------------------------------

    def _name(self, key: CacheKey) -> bytes:
        return self._prefix + b"a:" + key.digest.hex().encode()

    async def read(self, key: CacheKey) -> Entry | None:
        """The entry in Redis. Raises what `Links.call` raises; `InvalidValue` values are removed."""

        def opened(reply: Any) -> Entry | None:
            if reply is None:
                return None
            if not isinstance(reply, bytes) or len(reply) > self._max_bytes:
                raise InvalidValue("not a value of ours")
            return unseal(reply, key, self._secret)

        began_s = self._clock.now_s()
        try:
            return await self.reads.call("GET", self._name(key), read=opened)
        except Crosstalk:
            self._counters.inc("sft_cache_crosstalk_total", {})
            log.error("redis: a reply answers another request; the connection is closed. Is a proxy between?")
            self.discard(key, Removed.INVALID)
            raise
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            self._invalid(key)
            raise InvalidValue("another type") from error
        except InvalidValue:
            self._invalid(key)
            raise
        finally:
            self._counters.observe("sft_cache_redis_duration_seconds", {"op": "get"}, self._clock.now_s() - began_s)

    def _invalid(self, key: CacheKey) -> None:
        self._counters.inc("sft_cache_invalid_total", {})
        self.discard(key, Removed.INVALID)

    # Writes ----------------------------------------------------------------------------------------------------------

    def _enqueue(self, *command: bytes | str | int) -> bool:
        if self.breaker.open:
            self._dropped("open")
            return False
        size_bytes = _size_bytes(command)
        if self._queue.full() or self._queued_bytes + size_bytes > WRITE_QUEUE_BYTES:
            self._dropped("busy")
            return False
        self._queued_bytes += size_bytes
        self._queue.put_nowait(command)
        return True

    def _dropped(self, word: str) -> None:
        self._counters.inc("sft_cache_write_dropped_total", {"reason": word})

    async def _write_on(self) -> None:
        while True:
            command = await self._queue.get()
            self._queued_bytes -= _size_bytes(command)
            if self.breaker.open:
                self._dropped("open")
                continue
            began_s = self._clock.now_s()
            try:
                async with asyncio.timeout(self._write_budget_s):
                    await self._writes.call(*command, read=bool)
            except Exception as error:  # Whatever it is, it costs this write and nothing else.
                word = write_failure_word(error)
                self._dropped(word)
                if word not in ("full", "readonly", "denied"):  # of these reads know nothing
                    self._failed(word)
            op = str(command[0]).lower()
            self._counters.observe("sft_cache_redis_duration_seconds", {"op": op}, self._clock.now_s() - began_s)

    def _failed(self, word: str) -> None:
        was_open = self.breaker.open
        self.breaker.failed()
        if self._seen is None:
            self._read_all_again()  # it may come back with an older stream
        self._doubted = True
        if word in ("closed", "refused"):
            self.reads.distrust()
            self._writes.distrust()
        if self.breaker.open and not was_open:
            log.warning("redis: %s; the cache goes on without it and tries again every %g s", word, PROBE_EVERY_S)

    # The stream of what was taken back -------------------------------------------------------------------------------

    async def _beat_on(self) -> None:
        while True:
            await self._clock.sleep(self._probe_every_s)
            await self.beat()

    async def beat(self) -> None:
        """Probe, read what others took back, tell what we did. Closes the breaker when all of it worked."""
        try:
            if self.breaker.open:
                async with asyncio.timeout(PROBE_BUDGET_S):
                    await self._writes.call("PING", read=bool)
            await self._read_lines()
            if self.breaker.open:
                self.breaker.close()
                log.info("redis: in use")
        except Exception as error:  # Redis is foreign; the beat must go on.
            word = failure_word(error)
            if isinstance(error, ResponseError) and word in ("auth", "error") and str(error) != self._said:
                self._said = str(error)
                log.error("redis: %s; see `sft-guard doctor`", error)
            self._failed(word)
            return
        await self._share_lines()

    def _read_all_again(self) -> None:
        self._read_to, self._seen, self._doubted = b"", set(), False

    async def _read_lines(self) -> None:
        while True:
            seen, place = self._seen, self._read_to
            doubted, self._doubted = self._doubted and place != b"", False
            page = await self._page((b"" if doubted else b"(") + place if place else b"-")
            if self._seen is not seen:
                continue  # an interruption meanwhile
            if doubted and (not page or bytes(page[0][0]) != place):
                # An older stream, without the line at which reading broke off: it has to tell everything.
                self._read_all_again()
                continue
            for line_id, fields in page[1:] if doubted else page:
                line = self._opened(fields)
                if line is not None:
                    if seen is not None:
                        seen.add(line)
                    if self._revocations.is_news(line):
                        self._apply(line)
                self._read_to = bytes(line_id)
            if len(page) < PAGE_COUNT and not self._doubted:
                break
        if self._seen is not None:
            # A restored snapshot has forgotten lines that replicas which start from now on need.
            known, self._seen = self._seen | set(self._unshared), None
            oldest_s = self._clock.wall_s() - self._revocations.horizon_s
            for line in self._revocations.lines():
                if line.wall_s > oldest_s and line not in known:
                    self.share(line)

    async def _page(self, start: bytes) -> list[Any]:
        async with asyncio.timeout(PROBE_BUDGET_S if self.breaker.open else self._write_budget_s):
            return await self._writes.call(
                "XRANGE", self._prefix + b"revoked", start, b"+", "COUNT", PAGE_COUNT, read=list
            )

    async def _share_lines(self) -> None:
        while self._unshared:
            line = self._unshared[0]
            payload = msgspec.msgpack.encode((line.kind, line.value, line.wall_s))
            signed = hmac.digest(self._secret, b"revoked" + payload, sha256) + payload
            try:
                async with asyncio.timeout(self._write_budget_s):
                    await self._writes.call(
                        "XADD", self._prefix + b"revoked", *self._trimming(), "*", "l", signed, read=bool
                    )
            except Exception as error:  # It stays in the queue; the other replicas hear of it when Redis takes it.
                self._dropped(write_failure_word(error))
                return
            self._unshared.popleft()

    def _trimming(self) -> tuple[str | int, ...]:
        """Bounds of the stream, by length and by age in turns: a command takes one of them."""
        self._share_count += 1
        # By the clock that is behind, ours or that of Redis: the other one may be wrong.
        newest_s = min(self._clock.wall_s(), int(self._read_to.partition(b"-")[0] or 0) / 1000)
        oldest_ms = int((newest_s - self._revocations.horizon_s) * 1000)
        return ("MINID", "~", oldest_ms) if self._share_count % 2 and oldest_ms > 0 else ("MAXLEN", "~", STREAM_LENGTH)

    def _opened(self, fields: Any) -> Revocation | None:
        """A line of the stream; None when none of us has written it."""
        try:
            signed = bytes(fields[1])
            payload = signed[32:]
            if not hmac.compare_digest(signed[:32], hmac.digest(self._secret, b"revoked" + payload, sha256)):
                raise ValueError("signature")
            return Revocation(*msgspec.msgpack.decode(payload, type=tuple[str, str, float]))  # type: ignore[arg-type]
        except (ValueError, IndexError, TypeError, msgspec.DecodeError):
            self._counters.inc("sft_cache_invalid_total", {})
            return None


def _size_bytes(command: tuple[bytes | str | int, ...]) -> int:
    return sum(len(part) for part in command if isinstance(part, bytes))


class _Lookup:
    """One GET that somebody waits for, until its budget is spent."""

    __slots__ = ("_found", "_key", "_store", "_task", "_timer")

    def __init__(self, store: RedisStore, key: CacheKey, found: Found) -> None:
        self._store, self._key = store, key
        self._found: Found | None = found

    def start(self, budget_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(budget_s, self._late)
        task = self._task = loop.create_task(self._run())
        self._store._lookups.add(task)
        task.add_done_callback(self._store._lookups.discard)

    async def _run(self) -> None:
        try:
            entry = await self._store.read(self._key)
        except Crosstalk:
            self._tell(None, "garbage", broken=True)
        except InvalidValue:
            self._tell(None, "invalid", broken=False)
        except Exception as error:  # Whatever it is, the answer comes from the upstream.
            self._tell(None, failure_word(error), broken=True)
        else:
            self._tell(entry, "", broken=False)

    def _late(self) -> None:
        self._task.cancel()
        self._tell(None, "timeout", broken=True)

    def _tell(self, entry: Entry | None, failure: str, *, broken: bool) -> None:
        found, self._found = self._found, None
        if found is None:
            return  # it was late, and that was told
        self._timer.cancel()
        if broken:
            self._store._failed(failure)
        else:
            self._store.breaker.succeeded()
        found(entry, failure)
