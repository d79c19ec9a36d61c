"""What is no longer valid, whatever a store still holds. Pure.

A shared store may bring back what was removed (a restored snapshot, a replica that lost its last writes, an index key
that was evicted). So every entry is held against this list after reading, and the list is the guard's own: bounded,
kept for as long as an entry can live, and safe when it overflows, because then everything older than the oldest line
that was dropped is void.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from guard.cache.types import Entry, Removed, Revocation

KEPT_COUNT = 50_000


class Revocations:
    """Lines of the list, newest last. horizon_s: longest life of an entry; older lines can name nothing any more."""

    def __init__(self, horizon_s: float, kept_count: int = KEPT_COUNT) -> None:
        self.horizon_s = horizon_s
        self._kept_count = kept_count
        self._lines: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self.floor_wall_s = float("-inf")
        """Everything asked at or before this moment is void."""
        self._floor_sequence = 0
        self.sequence = 0
        """Grows with each line; what is under way remembers it, so that no clock is needed to see what came since."""

    def is_news(self, revocation: Revocation) -> bool:
        """Whether a line says anything that is not known."""
        if revocation.kind == "all":
            return revocation.wall_s > self.floor_wall_s
        known = self._lines.get((revocation.kind, revocation.value))
        return revocation.wall_s > (self.floor_wall_s if known is None else known[0])

    def add(self, revocation: Revocation) -> bool:
        """Take a line; False when it says nothing new."""
        if not self.is_news(revocation):
            return False
        key, wall_s = (revocation.kind, revocation.value), revocation.wall_s
        self.sequence += 1
        if revocation.kind == "all":
            self.floor_wall_s, self._floor_sequence = wall_s, self.sequence
            return True
        self._lines[key] = (wall_s, self.sequence)
        self._lines.move_to_end(key)
        while len(self._lines) > self._kept_count:
            _, (oldest_s, _) = self._lines.popitem(last=False)
            self.floor_wall_s = max(self.floor_wall_s, oldest_s)
        return True

    def prune(self, wall_s: float) -> None:
        """Forget lines that no living entry can be older than."""
        while self._lines:
            key, (at_s, _) = next(iter(self._lines.items()))
            if at_s > wall_s - self.horizon_s:
                return
            del self._lines[key]

    def forbids(self, entry: Entry, since: int | None = None) -> Removed | None:
        """Why an entry must not be served; None when nothing speaks against it.

        since: `sequence` when its question was asked, for an answer of this process: whatever was revoked later counts,
        also when the wall clock was set back meanwhile.
        """
        asked_s = entry.asked_wall_s
        if asked_s <= self.floor_wall_s or (since is not None and self._floor_sequence > since):
            return Removed.ALL
        if not self._lines:
            return None
        if ("exchange", entry.exchange_id) in self._lines:
            return Removed.FLAGGED
        namespace = entry.key.namespace
        for kind, value in (
            ("release", namespace.release), ("tenant", namespace.tenant), ("key", entry.key.text),
        ):  # fmt: skip
            if self._void(kind, value, asked_s, since):
                return Removed(kind)
        # Of an answer whose sources are unknown any document may be one.
        documents = ("",) if entry.document_ids is None else entry.document_ids
        if any(self._void("document", document, asked_s, since) for document in documents):
            return Removed.DOCUMENT
        return None

    def _void(self, kind: str, value: str, asked_s: float, since: int | None) -> bool:
        line = self._lines.get((kind, value))
        return line is not None and (asked_s <= line[0] or (since is not None and line[1] > since))

    def lines(self) -> Iterable[Revocation]:
        """All of them, oldest first, the floor among them."""
        if self.floor_wall_s > float("-inf"):
            yield Revocation("all", "", self.floor_wall_s)
        for (kind, value), (wall_s, _) in self._lines.items():
            yield Revocation(kind, value, wall_s)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._lines)
