"""The hottest keys of each tenant and route, in bounded memory. Pure: time comes in as a number.

Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005)
over weights that halve every `half_life_s`, so that what was hot last week makes room for what is hot now.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_REBASE_EXPONENT = 64.0


@dataclass(frozen=True, slots=True)
class Hot(Generic[K, V]):
    """One hot key. count: at most by `error` too high, decayed to now. value: what was last seen with it."""

    key: K
    count: float
    error: float
    value: V


@dataclass(slots=True)
class _Counter(Generic[V]):
    weight: float
    error: float
    value: V


class HotKeys(Generic[K, V]):
    """The `capacity_count` keys that were seen most, lately.

    A key whose share of the (decayed) stream is above 1 / capacity_count is always among them.

    >>> hot = HotKeys[str, None](2, half_life_s=3600.0)
    >>> for key in "aababc":
    ...     hot.seen(key, None, 0.0)
    >>> [(h.key, h.count, h.error) for h in hot.hottest(0.0)]
    [('a', 3.0, 0.0), ('c', 3.0, 2.0)]
    """

    __slots__ = ("_base_s", "_capacity_count", "_counters", "_half_life_s")

    def __init__(self, capacity_count: int, *, half_life_s: float) -> None:
        self._capacity_count, self._half_life_s = capacity_count, half_life_s
        self._counters: dict[K, _Counter[V]] = {}
        self._base_s = 0.0

    def __len__(self) -> int:
        return len(self._counters)

    def seen(self, key: K, value: V, now_s: float) -> None:
        """Count one occurrence. Times may stand still or jump forward, never matter when they go back a little."""
        exponent = (now_s - self._base_s) / self._half_life_s
        if exponent > _REBASE_EXPONENT:
            self._rebase(now_s)
            exponent = 0.0
        # Forward decay: instead of shrinking all weights with time, the new one counts for more.
        weight = 2.0**exponent
        counter = self._counters.get(key)
        if counter is not None:
            counter.weight += weight
            counter.value = value
        elif len(self._counters) < self._capacity_count:
            self._counters[key] = _Counter(weight, 0.0, value)
        else:
            coldest = min(self._counters, key=lambda k: self._counters[k].weight)
            least = self._counters.pop(coldest).weight
            self._counters[key] = _Counter(least + weight, least, value)

    def hottest(self, now_s: float, *, least_count: float = 0.0) -> list[Hot[K, V]]:
        """Hottest first.

        least_count: occurrences (decayed, without the possible error) below which a key is left out.
        """
        scale = 2.0 ** -((now_s - self._base_s) / self._half_life_s)
        found = [Hot(k, c.weight * scale, c.error * scale, c.value) for k, c in self._counters.items()]
        return sorted((h for h in found if h.count - h.error >= least_count), key=lambda h: -h.count)

    def learn(self, key: K, value: V) -> None:
        """Something new about a key, without an occurrence; nothing when it is not among them."""
        if (counter := self._counters.get(key)) is not None:
            counter.value = value

    def _rebase(self, now_s: float) -> None:
        scale = 2.0 ** -((now_s - self._base_s) / self._half_life_s)
        self._base_s = now_s
        for key, counter in list(self._counters.items()):
            counter.weight *= scale
            counter.error *= scale
            if counter.weight < 1e-9:
                del self._counters[key]


class HotGroups(Generic[K, V]):
    """`HotKeys` per group (tenant and route); the group heard of longest ago goes when there are too many."""

    __slots__ = ("_capacity_count", "_group_count", "_groups", "_half_life_s")

    def __init__(self, capacity_count: int, group_count: int, *, half_life_s: float) -> None:
        self._capacity_count, self._group_count, self._half_life_s = capacity_count, group_count, half_life_s
        self._groups: OrderedDict[Hashable, HotKeys[K, V]] = OrderedDict()

    def seen(self, group: Hashable, key: K, value: V, now_s: float) -> None:
        """Count one occurrence in its group."""
        keys = self._groups.get(group)
        if keys is None:
            keys = self._groups[group] = HotKeys(self._capacity_count, half_life_s=self._half_life_s)
            if len(self._groups) > self._group_count:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(group)
        keys.seen(key, value, now_s)

    def learn(self, group: Hashable, key: K, value: V) -> None:
        """Something new about a key, without an occurrence."""
        if (keys := self._groups.get(group)) is not None:
            keys.learn(key, value)

    def hottest(self, now_s: float, *, least_count: float = 0.0) -> list[Hot[K, V]]:
        """Of all groups, hottest first."""
        found = [hot for keys in self._groups.values() for hot in keys.hottest(now_s, least_count=least_count)]
        return sorted(found, key=lambda h: -h.count)
