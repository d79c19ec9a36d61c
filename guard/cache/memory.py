"""The store inside the process: least recently used goes first, bounded by bytes, with indexes for taking answers back.

Eviction is cachetools' LRU over sizes; this module adds what it cannot know: which entries an exchange, a document, a
release or a tenant has, and when an entry's life is over.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import Cache, LRUCache

from guard.cache.ports import Found
from guard.cache.types import CacheKey, Entry, Removed, Revocation, StoreStats

Gone = Callable[[CacheKey, Removed], None]
_NAMED = {
    "exchange": Removed.FLAGGED,
    "document": Removed.DOCUMENT,
    "release": Removed.RELEASE,
    "tenant": Removed.TENANT,
    "key": Removed.KEY,
    "all": Removed.ALL,
}


class _Sized(LRUCache[bytes, tuple[Entry, float]]):
    """LRU over (entry, end of life on the monotonic clock) that tells what it pushes out."""

    def __init__(self, max_bytes: int, evicted: Callable[[Entry], None]) -> None:
        super().__init__(max_bytes, getsizeof=lambda item: item[0].size_bytes)
        self._evicted = evicted

    def popitem(self) -> tuple[bytes, tuple[Entry, float]]:
        digest, item = super().popitem()
        self._evicted(item[0])
        return digest, item


class MemoryStore:
    """See `ports.Store`. now_s: monotonic seconds. gone: told of each entry that leaves, and why."""

    def __init__(self, max_bytes: int, now_s: Callable[[], float], gone: Gone) -> None:
        self._now_s, self._gone = now_s, gone
        self._entries = _Sized(max_bytes, self._evicted)
        self._of: dict[tuple[str, str], set[bytes]] = {}

    def get(self, key: CacheKey, found: Found) -> None:
        found(self.peek(key), "")

    def peek(self, key: CacheKey) -> Entry | None:
        """The entry, if it lives."""
        item = self._entries.get(key.digest)
        if item is None:
            return None
        entry, ends_s = item
        if self._now_s() >= ends_s:
            self.discard(key, Removed.EXPIRED)
            return None
        # A digest is its key; that is checked all the same, because the price of being wrong is somebody else's answer.
        return entry if entry.key == key else None

    def put(self, entry: Entry) -> bool:
        if entry.size_bytes > self._entries.maxsize:
            return False
        self.discard(entry.key, Removed.REPLACED)
        self._entries[entry.key.digest] = (entry, self._now_s() + entry.ttl_s)
        for name in _names(entry):
            self._of.setdefault(name, set()).add(entry.key.digest)
        return True

    def discard(self, key: CacheKey, reason: Removed) -> None:
        item = self._entries.pop(key.digest, None)
        if item is not None:
            self._forget(item[0], reason)

    def revoke(self, revocation: Revocation) -> int | None:
        if revocation.kind == "all":
            digests = list(self._entries)
        elif revocation.kind == "key":
            digests = [digest for digest in self._entries if digest.hex() == revocation.value]
        else:
            digests = list(self._of.get((revocation.kind, revocation.value), ()))
        for digest in digests:
            self.discard(self._peek(digest)[0].key, _NAMED[revocation.kind])
        return len(digests)

    def expire(self, at_most: int = 2_000) -> int:
        """Drop entries whose life is over, among the `at_most` least recently used; the number of them."""
        now_s = self._now_s()
        over = []
        for number, digest in enumerate(self._entries):
            if number >= at_most:
                break
            entry, ends_s = self._peek(digest)
            if now_s >= ends_s:
                over.append(entry.key)
        for key in over:
            self.discard(key, Removed.EXPIRED)
        return len(over)

    def entries(self) -> list[Entry]:
        """All of them; for commands and tests."""
        return [self._peek(digest)[0] for digest in self._entries]

    def stats(self) -> StoreStats:
        cache = self._entries
        return StoreStats("memory", len(cache), int(cache.currsize), int(cache.maxsize))

    def _peek(self, digest: bytes) -> tuple[Entry, float]:
        """Without counting as a use."""
        item: tuple[Entry, float] = Cache.__getitem__(self._entries, digest)
        return item

    def _evicted(self, entry: Entry) -> None:
        self._forget(entry, Removed.EVICTED)

    def _forget(self, entry: Entry, reason: Removed) -> None:
        for name in _names(entry):
            digests = self._of.get(name)
            if digests is not None:
                digests.discard(entry.key.digest)
                if not digests:
                    del self._of[name]
        self._gone(entry.key, reason)


def _names(entry: Entry) -> list[tuple[str, str]]:
    """By what an entry can be taken back. An unknown document is the document ""."""
    space = entry.key.namespace
    documents = ("",) if entry.document_ids is None else entry.document_ids
    return [
        ("exchange", entry.exchange_id),
        ("release", space.release),
        ("tenant", space.tenant),
        *(("document", document) for document in documents),
    ]
