"""The hottest keys of all tenants and routes, in bounded memory. Pure: time comes in as a number.

Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005)
over weights that halve every `half_life_s`, so that what was hot last week makes room for what is hot now.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
N = TypeVar("N")

_REBASE_EXPONENT = 64.0
_SLACK_COUNT = 64


@dataclass(frozen=True, slots=True)
class Hot(Generic[K, V]):
    """One hot key. count: at most by `error` too high, decayed to now. value: what was last seen with it."""

    key: K
    count: float
    error: float
    value: V


@dataclass(slots=True)
class _Counter(Generic[V]):
    """number: of its insertion, so that a key that went and came back is told from its former self."""

    weight: float
    error: float
    value: V
    number: int


@dataclass(slots=True)
class _Group(Generic[K, V]):
    """heap: (weight when it was looked at, number, key), coldest first; weights grow meanwhile, and counters go."""

    counters: dict[K, _Counter[V]] = field(default_factory=dict)
    heap: list[tuple[float, int, K]] = field(default_factory=list)


class HotGroups(Generic[K, V]):
    """The keys that were seen most, lately: at most `key_count` of a group (tenant and route), `total_count` of all.

    A group that is full gives up its own coldest key, so that one group's many questions push out nobody else's; when
    all is full, the coldest of all goes, whosesoever it is. While no group is full, a key whose share of the (decayed)
    stream is above 1 / total_count is always among them; while not all is full, one whose share of the stream of its
    group is above 1 / key_count.

    >>> hot = HotGroups[str, None](2, 2, half_life_s=3600.0)
    >>> for key in "aababc":
    ...     hot.seen("tenant", key, None, 0.0)
    >>> [(h.key, h.count, h.error) for h in hot.hottest(0.0)]
    [('a', 3.0, 0.0), ('c', 3.0, 2.0)]
    """

    __slots__ = ("_base_s", "_count", "_groups", "_half_life_s", "_heap", "_key_count", "_number", "_total_count")

    def __init__(self, key_count: int, total_count: int, *, half_life_s: float) -> None:
        self._key_count, self._total_count, self._half_life_s = key_count, total_count, half_life_s
        self._groups: dict[Hashable, _Group[K, V]] = {}
        self._heap: list[tuple[float, int, tuple[Hashable, K]]] = []
        self._base_s = 0.0
        self._count = self._number = 0

    def __len__(self) -> int:
        return self._count

    def seen(self, group: Hashable, key: K, value: V, now_s: float) -> None:
        """Count one occurrence. Times may stand still or jump forward, never matter when they go back a little."""
        exponent = (now_s - self._base_s) / self._half_life_s
        if exponent > _REBASE_EXPONENT:
            self._rebase(now_s)
            exponent = 0.0
        # Forward decay: instead of shrinking all weights with time, the new one counts for more.
        weight = 2.0**exponent
        counter = self._find((group, key))
        if counter is not None:
            counter.weight += weight
            counter.value = value
            return
        least = self._make_room(group)
        self._number += 1
        self._count += 1
        held = self._groups.setdefault(group, _Group())
        held.counters[key] = _Counter(least + weight, least, value, self._number)
        heappush(held.heap, (least + weight, self._number, key))
        heappush(self._heap, (least + weight, self._number, (group, key)))
        # What went by the other heap is still in this one.
        if len(held.heap) > 2 * len(held.counters) + _SLACK_COUNT:
            held.heap = _heap_of(held.counters)
        if len(self._heap) > 2 * self._count + _SLACK_COUNT:
            self._heap = self._heap_of_all()

    def learn(self, group: Hashable, key: K, value: V) -> None:
        """Something new about a key, without an occurrence; nothing when it is not among them."""
        if (counter := self._find((group, key))) is not None:
            counter.value = value

    def hottest(self, now_s: float, *, least_count: float = 0.0) -> list[Hot[K, V]]:
        """Of all groups, hottest first.

        least_count: occurrences (decayed, without the possible error) below which a key is left out.
        """
        scale = 2.0 ** -((now_s - self._base_s) / self._half_life_s)
        found = [
            Hot(key, c.weight * scale, c.error * scale, c.value)
            for held in self._groups.values()
            for key, c in held.counters.items()
            if (c.weight - c.error) * scale >= least_count
        ]
        return sorted(found, key=lambda h: -h.count)

    def _find(self, name: tuple[Hashable, K]) -> _Counter[V] | None:
        held = self._groups.get(name[0])
        return held.counters.get(name[1]) if held is not None else None

    def _make_room(self, group: Hashable) -> float:
        """Remove a key when there is none; its weight, by which the key that takes its place may be undercounted."""
        held = self._groups.get(group)
        if held is not None and len(held.counters) >= self._key_count:
            return self._drop((group, _coldest(held.heap, held.counters.get)))
        if self._count >= self._total_count:
            return self._drop(_coldest(self._heap, self._find))
        return 0.0

    def _drop(self, name: tuple[Hashable, K]) -> float:
        group, key = name
        held = self._groups[group]
        self._count -= 1
        weight = held.counters.pop(key).weight
        if not held.counters:
            del self._groups[group]
        return weight

    def _rebase(self, now_s: float) -> None:
        scale = 2.0 ** -((now_s - self._base_s) / self._half_life_s)
        self._base_s = now_s
        for group, held in list(self._groups.items()):
            for key, counter in list(held.counters.items()):
                counter.weight *= scale
                counter.error *= scale
                if counter.weight < 1e-9:
                    self._drop((group, key))
            held.heap = _heap_of(held.counters)
        self._heap = self._heap_of_all()

    def _heap_of_all(self) -> list[tuple[float, int, tuple[Hashable, K]]]:
        return _heap_of({(group, key): c for group, held in self._groups.items() for key, c in held.counters.items()})


def _heap_of(counters: dict[N, _Counter[V]]) -> list[tuple[float, int, N]]:
    heap = [(c.weight, c.number, name) for name, c in counters.items()]
    heapify(heap)
    return heap


def _coldest(heap: list[tuple[float, int, N]], find: Callable[[N], _Counter[V] | None]) -> N:
    """Name of the counter that weighs least; the heap knows every counter, and none as heavier than it is."""
    while True:
        weight, number, name = heap[0]
        counter = find(name)
        if counter is None or counter.number != number:
            heappop(heap)
        elif counter.weight > weight:
            heapreplace(heap, (counter.weight, number, name))
        else:
            return name
