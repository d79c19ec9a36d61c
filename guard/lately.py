"""A bounded map that forgets what came first, at a third of the price of an `OrderedDict`: two plain dicts in turn."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lately(Generic[K, V]):
    """At most `count` entries; of those set last, at least half as many are there.

    When the younger dict holds half of them it becomes the older one, and the older one goes as a whole: no queue has
    to be kept, and nothing is looked for. Setting makes an entry young again, reading does not.

    >>> lately = Lately[str, int](4)
    >>> for number, name in enumerate("abacd"):
    ...     lately[name] = number
    >>> lately.get("a"), lately.get("b"), lately.get("d"), len(lately)
    (2, 1, 4, 4)
    >>> lately["e"] = 5
    >>> lately.get("a"), lately.get("c"), len(lately)
    (None, 3, 3)
    """

    __slots__ = ("_half_count", "_old", "_young")

    def __init__(self, count: int) -> None:
        if count < 2:
            raise ValueError(f"count {count}: give 2 or more")
        self._half_count = count // 2
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __setitem__(self, key: K, value: V) -> None:
        young = self._young
        if key not in young:
            self._old.pop(key, None)
            if len(young) >= self._half_count:
                self._old = young
                young = self._young = {}
        young[key] = value

    def get(self, key: K) -> V | None:
        """The value, None when it is not there, or not any more."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def discard(self, key: K) -> None:
        """Forget one, if it is there."""
        if self._young.pop(key, None) is None:
            self._old.pop(key, None)

    def items(self) -> Iterator[tuple[K, V]]:
        """All of them, in no order."""
        yield from self._young.items()
        yield from self._old.items()
