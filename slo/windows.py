"""Rolling windows: rings of small buckets that merge. 10 s buckets up to 1 h, 5 min up to 24 h, 1 h up to 30 d.

An event is added to one open 10 s bucket only; when that closes it is merged into the two coarser rings. So adding
costs well under a microsecond, whatever the window, and a reading goes on from the one before (`slo.running`). What is
closed lies in flat arrays that are whole from the first event on (`slo.rings`).

Latencies keep, beside counts and sums, logarithmic bins (1 % relative accuracy, the key mapping of DDSketch). A plain
dict of bin counts is used instead of the library's dense store because a ring holds some 1,400 small buckets and a
quantile merges hundreds of them; of a bucket that is done the bins are packed, to a few hundredths.

Resolution is honest: a window of n buckets covers between n - 1 and n bucket widths, ending now; its length is rounded
up to whole buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import ceil, floor, log2
from typing import Any

from ddsketch.mapping import LogarithmicMapping

from slo.rings import Bucket, Ring
from slo.running import SPARE, Running, Sums
from slo.types import Reading

FINE_S, MIDDLE_S, COARSE_S = 10.0, 300.0, 3600.0
RINGS: tuple[tuple[float, float], ...] = ((FINE_S, 3600.0), (MIDDLE_S, 86_400.0), (COARSE_S, 30 * 86_400.0))
"""(bucket width, longest window) of each ring, seconds."""

MAX_LENGTH_S = RINGS[-1][1]
PART_CELLS = 4000
"""Numbers in one part of a dump, about: one is made and encoded in a millisecond, so nobody waits for the whole."""

_MAPPING = LogarithmicMapping(0.01)
# The library's key written out (ceil of the logarithm to base gamma): three calls less per event.
BINS_PER_DOUBLING = 1.0 / log2(_MAPPING.gamma)
MIN_BIN_VALUE = 1e-9  # smaller durations and costs are told apart by nobody


class Windows:
    """Bad events, events, sums and (on wish) quantiles of one quantity of one release."""

    __slots__ = ("_closed", "_index", "_open", "_quantiles", "_rings", "_running", "_until_s")

    def __init__(self, *, quantiles: bool = False) -> None:
        self._quantiles = quantiles
        self._rings = tuple(
            Ring(ceil(longest_s / width_s) + SPARE + 2, quantiles=quantiles) for width_s, longest_s in RINGS
        )
        self._running = tuple(Running() for _ in RINGS)
        self._open = self._new()
        self._index: int | None = None  # number of the open 10 s bucket; None before the first event
        self._until_s = float("-inf")  # end of the open bucket
        self._closed = Bucket(None)  # everything counted here in closed buckets, however old

    def _new(self) -> Bucket:
        return Bucket({} if self._quantiles else None)

    def add(self, now_s: float, bad: float, count: float, value: float | None = None) -> None:
        """Count `count` events at `now_s`, `bad` of them bad; `value` is the mean value of these events.

        Weights below 1 (a tenant over its share) are allowed. Time that runs backwards by a little, as between two
        threads, is counted in the open bucket.
        """
        if now_s >= self._until_s:
            self._turn(now_s)
        bucket = self._open
        bucket.count += count
        bucket.bad += bad
        if value is not None:
            bucket.total += value * count
            bucket.squares += value * value * count
            bins = bucket.bins
            if isinstance(bins, dict):  # of what is open they are
                key = ceil(log2(value if value > MIN_BIN_VALUE else MIN_BIN_VALUE) * BINS_PER_DOUBLING)
                bins[key] = bins.get(key, 0.0) + count

    def add_values(self, now_s: float, values: Sequence[float]) -> None:
        """As `add(now_s, 0, 1, value)` for each of `values`."""
        if now_s >= self._until_s:
            self._turn(now_s)
        bucket = self._open
        bucket.count += len(values)
        bucket.total += sum(values)
        bucket.squares += sum([value * value for value in values])
        bins = bucket.bins
        if isinstance(bins, dict):
            for value in values:
                key = ceil(log2(value if value > MIN_BIN_VALUE else MIN_BIN_VALUE) * BINS_PER_DOUBLING)
                bins[key] = bins.get(key, 0.0) + 1.0

    def _turn(self, now_s: float) -> None:
        """Open the bucket of `now_s`: close the old one, and forget what no window reaches any more."""
        index = floor(now_s / FINE_S)
        if self._index is not None and self._open.count:
            closed, start_s = self._open, self._index * FINE_S
            self._closed.merge(closed)
            self._open = self._new()
            for ring, (width_s, _) in zip(self._rings, RINGS, strict=True):
                ring.add(floor(start_s / width_s), closed)
        self._index = index
        self._until_s = (index + 1) * FINE_S
        for ring, (width_s, longest_s) in zip(self._rings, RINGS, strict=True):
            ring.forget(_oldest(now_s, width_s, longest_s) - SPARE)

    def _span(self, now_s: float, length_s: float, *, bins: bool) -> tuple[Sums, tuple[Bucket, ...]]:
        """Sums of what is settled, and the buckets that may yet grow. Any thread may ask.

        When a bucket was closed in between, it is asked again: it would be counted twice or not at all.
        """
        place, width_s, bucket_count = _ring_of(length_s)
        first = floor(now_s / width_s) - bucket_count
        ring = self._rings[place]
        while True:
            index, still = self._index, self._open
            if index is None:
                return Sums(first, first, 0), ()
            newest = ring.newest
            growing: tuple[Bucket, ...] = ()
            if newest is None or newest <= first:
                settled = Sums(first, first, 0)
            else:
                settled = self._running[place].sums(ring, length_s, first, newest, bins=bins)
                last = ring.get(newest)
                growing = (last,) if last is not None else ()
            if still.count and floor(index * FINE_S / width_s) > first:
                growing = (*growing, still)
            if index == self._index:
                return settled, growing

    def reading(self, now_s: float, length_s: float, *, coverage_ratio: float = 1.0) -> Reading:
        """Return what happened in the last `length_s` (> 0, at most 30 d). Weighted counts are rounded once, here."""
        settled, growing = self._span(now_s, length_s, bins=False)
        count, bad, total, squares = settled.count, settled.bad, settled.total, settled.squares
        for bucket in growing:
            count += bucket.count
            bad += bucket.bad
            total += bucket.total
            squares += bucket.squares
        whole = round(count)
        if whole != count and count:  # keep mean and variance when weights made the count a fraction
            total, squares = total * whole / count, squares * whole / count
        return Reading(min(round(bad), whole), whole, total, squares, coverage_ratio)

    def totals(self) -> tuple[float, float, float, float]:
        """Return (bad, count, sum of values, sum of squares) of all that was added here since this was made.

        Only ever grows; what was taken over from a dump or a recount is not in it. Costs the hot path nothing.
        """
        closed, still = self._closed, self._open
        return (
            closed.bad + still.bad,
            closed.count + still.count,
            closed.total + still.total,
            closed.squares + still.squares,
        )

    def _begin_totals(self) -> None:
        """What stands in the open bucket was counted elsewhere."""
        still = self._open
        self._closed.bad, self._closed.count = -still.bad, -still.count
        self._closed.total, self._closed.squares = -still.total, -still.squares

    def history(self, now_s: float, length_s: float) -> list[tuple[float, float, float, float]]:
        """Return (age of its start in seconds, bad, count, sum of values) of every bucket with events, oldest first."""
        place = next((i for i, (_, longest_s) in enumerate(RINGS) if length_s <= longest_s), len(RINGS) - 1)
        width_s, longest_s = RINGS[place]
        first = _oldest(now_s, width_s, min(length_s, longest_s))
        rows = {
            number: [bucket.bad, bucket.count, bucket.total]
            for number, bucket in list(self._rings[place].items())
            if number > first and bucket.count
        }
        if self._index is not None and self._open.count:
            number = floor(self._index * FINE_S / width_s)
            if number > first:
                row = rows.setdefault(number, [0.0, 0.0, 0.0])
                for at, more in enumerate((self._open.bad, self._open.count, self._open.total)):
                    row[at] += more
        return [(now_s - number * width_s, *row) for number, row in sorted(rows.items())]  # type: ignore[misc]

    def quantile(self, now_s: float, length_s: float, q: float) -> float | None:
        """Return the q-quantile of the values within 1 %, None when there are none.

        Raises:
            ValueError: these windows keep no quantiles.
        """
        if not self._quantiles:
            raise ValueError("made without quantiles: use Windows(quantiles=True)")
        settled, growing = self._span(now_s, length_s, bins=True)
        merged = Bucket(dict(settled.bins.items()) if settled.bins else {})
        for bucket in growing:
            merged.merge(bucket)
        return quantile_of_bins(dict(merged.bins.items()) if merged.bins else {}, q)

    def recounted(self, limit: float) -> Windows:
        """Return windows of the same events whose bad ones are those with a value over `limit`, at bin accuracy.

        For a limit that changed: what was counted against the old one must not be held against the new one.
        """
        counted = Windows()
        counted._index, counted._until_s = self._index, self._until_s
        first = bin_key(limit) - 2
        while _MAPPING.value(first) <= limit:
            first += 1
        for mine, theirs in zip(self._rings, counted._rings, strict=True):
            for number, bucket in mine.items():
                theirs.add(number, _plain(bucket, first))
        counted._open = _plain(self._open, first)
        counted._begin_totals()
        return counted

    def dump(self, now_s: float) -> dict[str, Any]:
        """Return JSON-able state. Times are ages relative to `now_s`: a monotonic origin means nothing elsewhere.

        What no window reaches any more is left out.
        """
        return {**self._part(), **join_parts(self.parts(now_s))}

    def parts(self, now_s: float, max_cells: int = PART_CELLS) -> Iterator[dict[str, Any]]:
        """Yield the dump in parts of about `max_cells` numbers, each a dump by itself; none when nothing is readable.

        Another thread may count meanwhile: what is still being added to is copied before the first part.
        """
        rings, newest, still_open = self._snapshot(now_s)
        part, cells = self._part(), 0
        for row in still_open:
            part["open"].append(row)
            cells += _cells(row)
        for place, (width_s, longest_s) in enumerate(RINGS):
            oldest = _oldest(now_s, width_s, longest_s)
            last = rings[place].newest
            for number, bucket in rings[place].items():
                if number <= oldest:
                    continue
                row = newest[place] if number == last else _row(now_s - number * width_s, bucket)
                part["rings"][place].append(row)
                cells += _cells(row)
                if cells >= max_cells:
                    yield part
                    part, cells = self._part(), 0
        if cells:
            yield part

    def _part(self) -> dict[str, Any]:
        return {"quantiles": self._quantiles, "rings": [[] for _ in RINGS], "open": []}

    def _snapshot(self, now_s: float) -> tuple[list[Ring], list[list[Any]], list[list[Any]]]:
        """(copy of each ring, row of the newest of each or an empty one, row of the open bucket if any).

        Only the open and the newest buckets ever change, and the open one becomes part of the newest: their rows
        belong together. When a bucket was closed in between, they are taken again.
        """
        while True:
            index = self._index
            still_open = []
            if index is not None and self._open.count and floor(index * FINE_S / COARSE_S) > _oldest(now_s, *RINGS[-1]):
                still_open = [_row(now_s - index * FINE_S, self._open)]
            rings, newest = [ring.copy() for ring in self._rings], []
            for ring, (width_s, _) in zip(rings, RINGS, strict=True):
                last = ring.newest
                bucket = None if last is None else ring.get(last)
                newest.append([] if last is None or bucket is None else _row(now_s - last * width_s, bucket))
            if index == self._index:
                return rings, newest, still_open

    @classmethod
    def load(cls, dump: dict[str, Any], now_s: float, away_s: float = 0.0) -> Windows:
        """Return the windows of a dump, `away_s` seconds after it was taken.

        A foreign clock has other bucket borders: a bucket lands in the one its start falls into, so ages are right
        to one bucket width.

        Raises:
            ValueError, KeyError, TypeError: not a dump.
        """
        windows = cls(quantiles=bool(dump["quantiles"]))
        windows._turn(now_s)
        for ring, (width_s, longest_s), rows in zip(windows._rings, RINGS, dump["rings"], strict=True):
            oldest = _oldest(now_s, width_s, longest_s)
            numbered = sorted(((_number(now_s, row, away_s, width_s), row) for row in rows), key=lambda pair: pair[0])
            for number, row in numbered:
                if number > oldest:
                    ring.add(number, _bucket(row, windows._quantiles))
        for row in dump["open"]:
            bucket = _bucket(row, windows._quantiles)
            number = _number(now_s, row, away_s, FINE_S)
            if number == windows._index:
                windows._open.merge(bucket)
            else:
                for ring, (width_s, longest_s) in zip(windows._rings, RINGS, strict=True):
                    place = floor(number * FINE_S / width_s)
                    if place > _oldest(now_s, width_s, longest_s):
                        ring.add(place, bucket)
        windows._begin_totals()
        return windows


def join_parts(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the dump that was taken in these parts, {} when there were none.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: not parts of a dump.
    """
    joined: dict[str, Any] = {}
    for part in parts:
        if not joined:
            joined = {"quantiles": part["quantiles"], "rings": [[] for _ in RINGS], "open": []}
        for rows, more in zip(joined["rings"], part["rings"], strict=True):
            rows.extend(more)
        joined["open"].extend(part["open"])
    return joined


def ring_place(length_s: float) -> int:
    """Return which of `RINGS` answers for a window of this length.

    >>> ring_place(60.0), ring_place(3600.0), ring_place(3601.0), ring_place(30 * 86400.0)
    (0, 0, 1, 2)
    """
    return next((place for place, (_, longest_s) in enumerate(RINGS) if length_s <= longest_s), len(RINGS) - 1)


@lru_cache(maxsize=256)
def _ring_of(length_s: float) -> tuple[int, float, int]:
    """(place, bucket width in seconds, buckets that a window of this length reaches back)."""
    place = ring_place(length_s)
    width_s, longest_s = RINGS[place]
    return place, width_s, ceil(min(length_s, longest_s) / width_s)


def _oldest(now_s: float, width_s: float, length_s: float) -> int:
    """Number of the youngest bucket that a window of `length_s` no longer reaches."""
    return floor(now_s / width_s) - ceil(length_s / width_s)


def _plain(bucket: Bucket, first_key: int) -> Bucket:
    """The bucket without bins, bad where the bin is `first_key` or above."""
    plain = Bucket(None)
    plain.merge(bucket)
    over = sum(count for key, count in bucket.bins.items() if key >= first_key) if bucket.bins else 0.0
    plain.bad = min(over, plain.count)  # fractions added in another order may differ in the last digit
    return plain


def quantile_of_bins(bins: dict[int, float], q: float) -> float | None:
    """Return the q-quantile of binned values (bin key -> count), None when there are none. 1 % accurate."""
    rank = q * max(0.0, sum(bins.values()) - 1.0)
    seen, found = 0.0, None
    for key in sorted(bins):
        seen, found = seen + bins[key], key
        if seen > rank:
            break
    return None if found is None else float(_MAPPING.value(found))


def bin_key(value: float) -> int:
    """Return the bin of a value, as `quantile_of_bins` reads it."""
    return ceil(log2(max(value, MIN_BIN_VALUE)) * BINS_PER_DOUBLING)


def _row(age_s: float, bucket: Bucket) -> list[Any]:
    bad = bucket.bad  # before the count: the loop adds to the count first, so bad is never more in the row
    row: list[Any] = [round(age_s, 6), bucket.count, bad, bucket.total, bucket.squares]
    if bucket.bins:
        row.append(sorted(bucket.bins.items()))
    return row


def _cells(row: list[Any]) -> int:
    """Numbers in a row."""
    return len(row) + (2 * len(row[5]) if len(row) > 5 else 0)


def _number(now_s: float, row: list[Any], away_s: float, width_s: float) -> int:
    # Half a millisecond keeps a start that was exactly on a border on its side of it after the subtraction.
    return min(floor((now_s - float(row[0]) - max(0.0, away_s) + 0.0005) / width_s), floor(now_s / width_s))


def _bucket(row: list[Any], quantiles: bool) -> Bucket:
    bins = {int(key): float(count) for key, count in row[5]} if quantiles and len(row) > 5 else {}
    bucket = Bucket(bins if quantiles else None)
    bucket.count, bucket.bad, bucket.total, bucket.squares = (float(number) for number in row[1:5])
    if bucket.count < 0 or not 0 <= bucket.bad <= bucket.count:
        raise ValueError(f"bucket {row[:5]} has more bad events than events")
    return bucket
