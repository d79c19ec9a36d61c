"""What the cache needs from others and what others may plug into it, as Protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from guard.cache.types import CacheKey, CacheRequest, Entry, Removed, Revocation, StoreStats


class Found(Protocol):
    """Told the result of a lookup, once. entry None: nothing. failure: a word of the closed fail-open set, or ""."""

    def __call__(self, entry: Entry | None, failure: str) -> None: ...


class Store(Protocol):
    """Where entries are. Nothing here raises or blocks: a store that is broken knows nothing and takes nothing."""

    def get(self, key: CacheKey, found: Found) -> None:
        """Tell `found` before this returns when the store is local, within the lookup budget when it is not."""
        ...

    def put(self, entry: Entry) -> bool:
        """Keep it, if there is room; False: it was not taken (a shared store may still drop it later, counted)."""
        ...

    def discard(self, key: CacheKey, reason: Removed) -> None:
        """Forget one entry."""
        ...

    def revoke(self, revocation: Revocation) -> int | None:
        """Forget what it names; the number of entries, None when the store cannot know."""
        ...

    def stats(self) -> StoreStats:
        """Counts of now."""
        ...


class Listener(Protocol):
    """Told what happens in the cache, on the event loop: microseconds, no waiting, no raising."""

    def hit(self, request: CacheRequest, entry: Entry, exchange_id: str, wall_s: float) -> None:
        """An answer was served from `entry` as exchange `exchange_id`."""
        ...

    def missed(self, request: CacheRequest, wall_s: float) -> None:
        """A request that could have been a hit goes to the upstream."""
        ...

    def stored(self, request: CacheRequest, entry: Entry) -> None:
        """An answer passed its checks and was given to the store."""
        ...

    def removed(self, key: CacheKey, reason: Removed) -> None:
        """An entry is gone from a local store (a shared store removes without telling)."""
        ...


class NearAnswers(Protocol):
    """A second opinion after an exact miss: the answer to a question that means the same."""

    def find(self, request: CacheRequest, found: Callable[[Entry | None], None]) -> bool:
        """False: not for this request, go on at once. True: `found` is told within a budget of the finder's own."""
        ...


class Counters(Protocol):
    """Where events are counted; `exporters.prometheus.PrometheusExporter` is one."""

    def inc(self, metric: str, labels: dict[str, str], n: float = 1) -> None: ...

    def observe(self, metric: str, labels: dict[str, str], value: float) -> None: ...
