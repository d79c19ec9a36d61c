"""What is kept of one release: its windows by indicator, once over all routes and once per set of routes a rule names.

A book is dumped in small pieces, each JSON-able, so that whoever saves them never holds anything up for long. A piece
says which windows it is of; the pieces of the same windows are joined when they are read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slo.fair_share import FairShare
from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.types import Slo
from slo.windows import Windows

REPEAT_S = 10.0
MAX_RETRIES = 3
MAX_REPEATS = 4096

Routes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted since the process began: the counters that rules outside the process are made of.

    Weights of tenants over their share make counts fractions. unjudged: what should have been judged and was not.
    """

    bad: float
    count: float
    unjudged: float = 0.0
    value_sum: float = 0.0
    value_sq_sum: float = 0.0


NO_TALLY = Tally(0.0, 0.0)


class Book:
    """All windows of one release over one set of routes.

    windows: by indicator, and LATENCY. unjudged: what should have been judged and was not. over: objective -> (limit
    in seconds, requests over it).
    """

    __slots__ = ("over", "routes", "unjudged", "windows")

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.windows: dict[str, Windows] = {}
        self.unjudged: dict[str, Windows] = {}
        self.over: dict[str, tuple[float, Windows]] = {}

    def window(self, name: str) -> Windows:
        """The windows of an indicator, made when there are none yet."""
        found = self.windows.get(name)
        if found is None:
            found = self.windows[name] = Windows(quantiles=name == LATENCY)
        return found

    def counted(self, slo: Slo) -> Windows | None:
        """The windows of an objective's events, for latency those over its limit; None: nothing was counted."""
        if INDICATORS[slo.indicator].kind == "latency":
            over = self.over.get(slo.name)
            return over[1] if over else None
        return self.windows.get(slo.indicator)

    def limit(self, limits: Mapping[str, float]) -> None:
        """Count requests over exactly these limits (objective -> seconds) from now on.

        Over a new or changed limit those of the past are counted again from the latency bins, 1 % accurate: nothing
        counted against an old limit is held against a release.
        """
        latency = self.windows.get(LATENCY)
        over = {}
        for name, limit in limits.items():
            known = self.over.get(name)
            if known is None or known[0] != limit:
                known = (limit, latency.recounted(limit) if latency else Windows())
            over[name] = known
        self.over = over

    def coverage_ratio(self, name: str, now_s: float, length_s: float, count: int) -> float:
        """Share of what should have been judged that was."""
        missed = self.unjudged.get(name)
        if missed is None:
            return 1.0
        missed_count = missed.reading(now_s, length_s).count
        return count / (count + missed_count) if count + missed_count else 1.0

    def pieces(self, now_s: float) -> Iterator[dict[str, Any]]:
        """Yield everything readable: {routes, part, name, windows}, and the limit for requests over one."""
        every: list[tuple[str, str, float | None, Windows]] = []
        every += (("windows", name, None, windows) for name, windows in list(self.windows.items()))
        every += (("unjudged", name, None, windows) for name, windows in list(self.unjudged.items()))
        every += (("over", name, limit, windows) for name, (limit, windows) in list(self.over.items()))
        for part, name, limit, windows in every:
            for rows in windows.parts(now_s):
                piece: dict[str, Any] = {"routes": list(self.routes), "part": part, "name": name, "windows": rows}
                if limit is not None:
                    piece["limit"] = limit
                yield piece

    def load(self, saved: Mapping[str, Any], now_s: float, away_s: float) -> None:
        """Take over a saved book, `away_s` seconds after it was saved. Follow with `limit`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, IndexError: not a saved book.
        """
        for name, windows in saved["windows"].items():
            if name == LATENCY or name in INDICATORS:
                self.windows[name] = Windows.load(windows, now_s, away_s)
        for name, windows in saved["unjudged"].items():
            if name in INDICATORS:
                self.unjudged[name] = Windows.load(windows, now_s, away_s)
        for name, (limit, windows) in saved["over"].items():
            self.over[name] = (float(limit), Windows.load(windows, now_s, away_s))


class ReleaseBooks:
    """Everything kept of one release. counted_s: when anything was counted last."""

    __slots__ = ("books", "counted_s", "repeats", "share_checked", "share_served", "sweep_again_s")

    def __init__(self, books: dict[Routes, Book], cap_ratio: float | None, counted_s: float) -> None:
        self.books = books
        self.counted_s = counted_s
        self.share_served = FairShare(cap_ratio) if cap_ratio else None
        self.share_checked = FairShare(cap_ratio) if cap_ratio else None
        self.repeats: dict[tuple[str, str], tuple[float, int]] = {}  # (what, session) -> (counted at, retries since)
        self.sweep_again_s = float("-inf")

    def repeated(self, what: str, session: str, now_s: float) -> bool:
        """Whether this is a retry: the same trouble of the same session less than 10 s after it counted.

        Only a few retries are believed. A "session" with more of them is many people behind one name (a bot that
        sends a constant user), and taking them for one would hide an outage.
        """
        if not session:
            return False
        repeats = self.repeats
        key = (what, session)
        at_s, retry_count = repeats.get(key, (float("-inf"), 0))
        if now_s - at_s < REPEAT_S:
            if retry_count >= MAX_RETRIES:
                return False
            repeats[key] = (at_s, retry_count + 1)
            return True
        if len(repeats) >= MAX_REPEATS:
            if now_s >= self.sweep_again_s:  # not at every event: a sweep of a full table takes a millisecond
                self.sweep_again_s = now_s + REPEAT_S
                self.repeats = repeats = {k: seen for k, seen in repeats.items() if now_s - seen[0] < REPEAT_S}
            if len(repeats) >= MAX_REPEATS:  # so many sessions in trouble: none is mistaken for a retry
                return False
        repeats[key] = (now_s, 0)
        return False
