"""Readings from this process: every exchange is counted here once when it ends and once when its checks are done.

    served(exchange)  -> availability, latency, errors, cost, cache   (end of the answer)
    checked(exchange) -> hallucination, similarity, zero-hit          (seconds later)
    feedback(...)     -> thumbs

Counted per release, and once more per set of routes that an objective is limited to. What an exchange says is decided
in `slo.indicators`; here it is only kept, with three corrections: repeated bad events of one session within 10 s count
once, no tenant has more than a fifth of the weight (`slo.fair_share`), and at most `MAX_RELEASES` releases are kept.

Readings and gauges may be asked for from any thread; counting belongs to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slo.clock import Clock
from slo.evaluation import current_value
from slo.fair_share import CAP_RATIO, FairShare
from slo.indicators import LATENCY, THUMBS_UP, Vote, checked_votes, served_votes
from slo.metric_names import INDICATORS, Indicator
from slo.thresholds import RELATIVE, limit_for
from slo.types import Exchange, Reading, Slo
from slo.windows import Windows

MAX_RELEASES = 8
GAUGE_WINDOW_S = 3600.0
GAUGE_MIN_EVENTS = 20
GAUGE_MIN_COVERAGE_RATIO = 0.5
REPEAT_S = 10.0
MAX_RETRIES = 3
MAX_REPEATS = 4096
DUMP_VERSION = 1

_EXACT = tuple(i for i in INDICATORS.values() if i.exact)


class _Book:
    """All windows of one release over one set of routes."""

    __slots__ = ("latency_limits", "over", "routes", "unjudged", "windows")

    def __init__(self, routes: tuple[str, ...], latency_limits: Mapping[str, float]) -> None:
        self.routes = routes
        self.windows: dict[str, Windows] = {}  # by indicator, and LATENCY
        self.unjudged: dict[str, Windows] = {}  # what should have been judged and was not
        self.latency_limits = dict(latency_limits)  # objective -> seconds
        self.over = {name: Windows() for name in latency_limits}  # objective -> requests over its limit

    def window(self, name: str) -> Windows:
        found = self.windows.get(name)
        if found is None:
            found = self.windows[name] = Windows(quantiles=name == LATENCY)
        return found

    def coverage_ratio(self, name: str, now_s: float, length_s: float, count: int) -> float:
        missed = self.unjudged.get(name)
        if missed is None:
            return 1.0
        missed_count = missed.reading(now_s, length_s).count
        return count / (count + missed_count) if count + missed_count else 1.0


class _Release:
    """Everything kept of one release."""

    __slots__ = ("books", "repeats", "share_checked", "share_served", "sweep_again_s")

    def __init__(self, books: dict[tuple[str, ...], _Book], cap_ratio: float | None) -> None:
        self.books = books
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


class MemorySource:
    """Counts exchanges and answers readings.

    limits: seconds by name for latency objectives whose limit is not written in the file (see `set_limits`).
    tenant_cap_ratio: None switches the cap off.
    """

    def __init__(
        self,
        slos: tuple[Slo, ...],
        clock: Clock,
        limits: Mapping[str, float | None] | None = None,
        *,
        tenant_cap_ratio: float | None = CAP_RATIO,
    ) -> None:
        self.slos = slos
        self._clock = clock
        self._cap_ratio = tenant_cap_ratio
        self._latency_limits = {name: limit for name, limit in _written_limits(slos).items() if limit is not None}
        self._releases: dict[str, _Release] = {}
        self.set_limits(limits or {})

    # Counting

    def served(self, exchange: Exchange) -> None:
        """Count an exchange at its end, its checks not yet known."""
        release = self._release(exchange.release)
        now_s = self._clock.now_s()
        share = release.share_served
        weight = share.weight(exchange.tenant, now_s) if share is not None else 1.0
        if weight > 0.0:
            self._count(release, served_votes(exchange), exchange, now_s, weight)

    def checked(self, exchange: Exchange) -> None:
        """Count what the checks said; `exchange.findings` are filled in."""
        votes = checked_votes(exchange)
        if not votes:
            return
        release = self._release(exchange.release)
        now_s = self._clock.now_s()
        share = release.share_checked
        weight = share.weight(exchange.tenant, now_s) if share is not None else 1.0
        if weight > 0.0:
            self._count(release, votes, exchange, now_s, weight)

    def feedback(self, release: str, up: bool) -> None:
        """Count one thumb. Thumbs carry no route, so objectives limited to routes do not see them."""
        now_s = self._clock.now_s()
        self._release(release).books[()].window(THUMBS_UP).add(now_s, not up, 1)

    def _count(self, release: _Release, votes: list[Vote], exchange: Exchange, now_s: float, weight: float) -> None:
        session, route = exchange.session, exchange.route
        for book in release.books.values():
            routes = book.routes
            if routes and route not in routes:
                continue
            for name, bad, value in votes:
                if bad is None:
                    missed = book.unjudged.get(name)
                    if missed is None:
                        missed = book.unjudged[name] = Windows()
                    missed.add(now_s, 0, weight)
                    continue
                if name is LATENCY:
                    assert value is not None
                    for objective, limit in book.latency_limits.items():
                        over = value > limit
                        if not (over and release.repeated(f"{routes}{objective}", session, now_s)):
                            book.over[objective].add(now_s, weight if over else 0.0, weight)
                elif bad and release.repeated(f"{routes}{name}", session, now_s):
                    continue
                windows = book.windows.get(name)
                if windows is None:
                    windows = book.window(name)
                windows.add(now_s, weight if bad else 0.0, weight, value)

    def _release(self, name: str) -> _Release:
        found = self._releases.get(name)
        if found is None:
            if len(self._releases) >= MAX_RELEASES:
                del self._releases[next(iter(self._releases))]  # the one that has been known longest
            found = self._releases[name] = _Release(self._new_books(), self._cap_ratio)
        return found

    def _new_books(self) -> dict[tuple[str, ...], _Book]:
        groups = {(): {}} | {slo.routes: {} for slo in self.slos}  # type: dict[tuple[str, ...], dict[str, float]]
        for slo in self.slos:
            if slo.name in self._latency_limits:
                groups[slo.routes][slo.name] = self._latency_limits[slo.name]
        return {routes: _Book(routes, limits) for routes, limits in groups.items()}

    def set_limits(self, limits: Mapping[str, float | None]) -> None:
        """Set the limits of latency objectives that come from a baseline, seconds by objective name.

        On a change the requests over the limit are counted again from the latency bins, 1 % accurate, so that nothing
        counted against an old limit is held against a release. None: no limit, nothing is over it.
        """
        for slo in self.slos:
            if slo.name not in limits or INDICATORS[slo.indicator].kind != "latency":
                continue
            limit = limits[slo.name]
            if limit == self._latency_limits.get(slo.name):
                continue
            if limit is None:
                self._latency_limits.pop(slo.name)
            else:
                self._latency_limits[slo.name] = limit
            for release in self._releases.values():
                book = release.books[slo.routes]
                if limit is None:
                    book.latency_limits.pop(slo.name, None)
                    book.over.pop(slo.name, None)
                else:
                    book.over[slo.name] = book.window(LATENCY).recounted(limit)
                    book.latency_limits[slo.name] = limit

    def replace_objectives(self, slos: tuple[Slo, ...]) -> None:
        """Take other objectives; what was counted stays, and is counted anew for routes and limits that are new."""
        saved = self.dump()
        self.slos = slos
        self._latency_limits = {name: limit for name, limit in _written_limits(slos).items() if limit is not None}
        self.load(saved)

    # Asking

    def releases(self) -> tuple[str, ...]:
        """Releases that have counted anything."""
        return tuple(self._releases)

    def reading(self, slo: Slo, release: str, length_s: float | None = None) -> Reading:
        """Return the reading of an objective for one release; of its own window unless `length_s` is given.

        An unknown release reads zero events: silence.
        """
        known = self._releases.get(release)
        book = known.books.get(slo.routes) if known else None
        if book is None:
            return Reading(0, 0)
        length_s = slo.window.length_s if length_s is None else length_s
        now_s = self._clock.now_s()
        if INDICATORS[slo.indicator].kind == "latency":
            over = book.over.get(slo.name)
            return over.reading(now_s, length_s) if over else Reading(0, 0)
        windows = book.windows.get(slo.indicator)
        reading = windows.reading(now_s, length_s) if windows else Reading(0, 0)
        ratio = book.coverage_ratio(slo.indicator, now_s, length_s, reading.count)
        return replace(reading, coverage_ratio=ratio) if ratio != 1.0 else reading

    def objective_value(self, slo: Slo, release: str) -> float | None:
        """Return the present value of an objective in inside units (x `indicator.scale` at the border).

        Latency: the quantile, seconds, within 1 %. None while unknown: fewer than 20 events or half coverage.
        """
        return self._value(INDICATORS[slo.indicator], release, slo.routes, slo.window.length_s)

    def gauges(self) -> list[tuple[str, str, float]]:
        """Return (metric, release, value at the border) of the six exact gauges; absent while unknown."""
        found = []
        for indicator in _EXACT:
            own = (s.window.length_s for s in self.slos if s.indicator == indicator.name and not s.routes)
            length_s = next(own, GAUGE_WINDOW_S)
            for release in list(self._releases):
                value = self._value(indicator, release, (), length_s)
                if value is not None:
                    found.append((indicator.name, release, value * indicator.scale))
        return found

    def _value(self, indicator: Indicator, release: str, routes: tuple[str, ...], length_s: float) -> float | None:
        known = self._releases.get(release)
        book = known.books.get(routes) if known else None
        name = LATENCY if indicator.kind == "latency" else indicator.name
        windows = book.windows.get(name) if book else None
        if book is None or windows is None:
            return None
        now_s = self._clock.now_s()
        reading = windows.reading(now_s, length_s)
        if reading.count < GAUGE_MIN_EVENTS:
            return None
        if book.coverage_ratio(name, now_s, length_s, reading.count) < GAUGE_MIN_COVERAGE_RATIO:
            return None
        if indicator.quantile is not None:
            return windows.quantile(now_s, length_s, indicator.quantile)
        return current_value(indicator, reading)

    # Surviving a restart

    def dump(self) -> dict[str, Any]:
        """Return JSON-able state: windows only, their ages, and the wall time to know later how long we were away."""
        now_s = self._clock.now_s()
        return {
            "v": DUMP_VERSION,
            "wall_s": self._clock.wall_s(),
            "releases": {
                name: [
                    {
                        "routes": list(book.routes),
                        "windows": {n: w.dump(now_s) for n, w in list(book.windows.items())},
                        "unjudged": {n: w.dump(now_s) for n, w in list(book.unjudged.items())},
                        "over": {n: [book.latency_limits[n], w.dump(now_s)] for n, w in list(book.over.items())},
                    }
                    for book in release.books.values()
                ]
                for name, release in list(self._releases.items())
            },
        }

    def load(self, dump: Mapping[str, Any]) -> None:
        """Take over the windows of an earlier process. A wall clock that ran backwards counts as no time away.

        Raises:
            ValueError: not a dump of this version; nothing is taken over then.
        """
        now_s = self._clock.now_s()
        try:
            if dump["v"] != DUMP_VERSION:
                raise ValueError(f"windows of version {dump['v']}, this program keeps version {DUMP_VERSION}")
            away_s = max(0.0, self._clock.wall_s() - float(dump["wall_s"]))
            loaded: dict[str, _Release] = {}
            for name, books in list(dump["releases"].items())[-MAX_RELEASES:]:
                release = loaded[str(name)] = _Release(self._new_books(), self._cap_ratio)
                for saved in books:
                    book = release.books.get(tuple(saved["routes"]))
                    if book is not None:
                        _load_book(book, saved, now_s, away_s)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a dump of windows ({type(error).__name__}: {error})") from error
        self._releases = loaded


def _load_book(book: _Book, saved: Mapping[str, Any], now_s: float, away_s: float) -> None:
    for name, windows in saved["windows"].items():
        if name == LATENCY or name in INDICATORS:
            book.windows[name] = Windows.load(windows, now_s, away_s)
    for name, windows in saved["unjudged"].items():
        if name in INDICATORS:
            book.unjudged[name] = Windows.load(windows, now_s, away_s)
    for name, limit in book.latency_limits.items():
        before = saved["over"].get(name)
        if before is not None and before[0] == limit:
            book.over[name] = Windows.load(before[1], now_s, away_s)
        elif LATENCY in book.windows:  # a new objective or a new limit: count again from the bins
            book.over[name] = book.windows[LATENCY].recounted(limit)


def _written_limits(slos: tuple[Slo, ...]) -> dict[str, float | None]:
    """Limits of latency objectives that need nothing but the file."""
    return {
        slo.name: limit_for(slo).value
        for slo in slos
        if INDICATORS[slo.indicator].kind == "latency" and slo.threshold.form not in RELATIVE
    }
