"""The books of the latest releases, and the limits that latencies are counted against in them.

One thread adds releases and changes objectives; any may read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slo.metric_names import INDICATORS
from slo.sources.books import Book, ReleaseBooks, Routes
from slo.thresholds import RELATIVE, limit_for
from slo.types import Slo


class Shelf:
    """Books by release, at most `max_releases`: the one that was counted longest ago gives way.

    slos: the objectives now. limits: seconds by name of a latency objective, of those that have one.
    cap_ratio: largest weight of one tenant, None without a cap.
    """

    def __init__(self, slos: tuple[Slo, ...], cap_ratio: float | None, max_releases: int) -> None:
        self.slos = slos
        self.limits = _written_limits(slos)
        self.releases: dict[str, ReleaseBooks] = {}
        self.max_releases = max_releases
        self._cap_ratio = cap_ratio

    def release(self, name: str, now_s: float) -> ReleaseBooks:
        """The books of a release that something is counted of now, made when there are none."""
        found = self.releases.get(name)
        if found is None:
            if len(self.releases) >= self.max_releases:
                kept = list(self.releases.items())
                self.releases.pop(min(kept, key=lambda item: item[1].counted_s)[0], None)
            found = self.releases[name] = self._new_release(now_s)
        found.counted_s = now_s
        return found

    def book(self, slo: Slo, release: str) -> Book | None:
        """The book that an objective is read from; None: nothing was counted of this release."""
        known = self.releases.get(release)
        return known.books.get(slo.routes) if known else None

    def set_limits(self, limits: Mapping[str, float | None]) -> bool:
        """Set the limits of latency objectives that come from a baseline; None: no limit. Whether any has changed."""
        latencies = {slo.name for slo in self.slos if INDICATORS[slo.indicator].kind == "latency"}
        given = {name: limit for name, limit in limits.items() if name in latencies}
        wanted = {n: limit for n, limit in {**self.limits, **given}.items() if limit is not None}
        if wanted == self.limits:
            return False
        self.limits = wanted
        self._limit_books()
        return True

    def replace_objectives(self, slos: tuple[Slo, ...]) -> None:
        """Take other objectives. What was counted stays; routes that no objective named before start empty."""
        unchanged = {slo.name for slo in self.slos if slo in slos}
        kept = {name: limit for name, limit in self.limits.items() if name in unchanged}
        self.slos = slos
        self.limits = {**kept, **_written_limits(slos)}
        for release in list(self.releases.values()):  # another thread may be reading: the whole table is replaced
            release.books = {routes: release.books.get(routes) or Book(routes) for routes in self._limits_of_routes()}
        self._limit_books()

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        releases = list(self.releases.values())
        books = [book for release in releases for book in list(release.books.values())]
        yield "windows", sum(len(book.windows) + len(book.unjudged) + len(book.over) for book in books)
        yield "troubled_sessions", sum(len(release.repeats) for release in releases)

    def pieces(self, now_s: float) -> Iterator[dict[str, Any]]:
        """Yield everything readable in small JSON-able pieces; releases in the order they were counted."""
        for name, release in sorted(self.releases.items(), key=lambda item: item[1].counted_s):
            for book in list(release.books.values()):
                for piece in book.pieces(now_s):
                    yield {"release": name, **piece}

    def loaded(
        self, saved: Mapping[str, Sequence[Mapping[str, Any]]], now_s: float, away_s: float
    ) -> dict[str, ReleaseBooks]:
        """Return the latest releases of a dump, `away_s` seconds after it was taken; nothing here changes.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, IndexError: no saved books.
        """
        limits = self._limits_of_routes()
        found: dict[str, ReleaseBooks] = {}
        for name, books in list(saved.items())[-self.max_releases :]:
            release = ReleaseBooks({routes: Book(routes) for routes in limits}, self._cap_ratio, now_s)
            for each in books:
                book = release.books.get(tuple(each["routes"]))
                if book is not None:
                    book.load(each, now_s, away_s)
            for routes, book in release.books.items():
                book.limit(limits[routes])
            found[str(name)] = release
        return found

    def _new_release(self, now_s: float) -> ReleaseBooks:
        limits = self._limits_of_routes()
        books = {routes: Book(routes) for routes in limits}
        for routes, book in books.items():
            book.limit(limits[routes])
        return ReleaseBooks(books, self._cap_ratio, now_s)

    def _limits_of_routes(self) -> dict[Routes, dict[str, float]]:
        """Every set of routes that has a book, and the limits of the latency objectives on it."""
        found: dict[Routes, dict[str, float]] = {(): {}}
        for slo in self.slos:
            limits = found.setdefault(slo.routes, {})
            if slo.name in self.limits:
                limits[slo.name] = self.limits[slo.name]
        return found

    def _limit_books(self) -> None:
        limits = self._limits_of_routes()
        for release in list(self.releases.values()):
            for routes, book in release.books.items():
                book.limit(limits[routes])


def _written_limits(slos: tuple[Slo, ...]) -> dict[str, float]:
    """Limits of latency objectives that need nothing but the file."""
    limits = {
        slo.name: limit_for(slo).value
        for slo in slos
        if INDICATORS[slo.indicator].kind == "latency" and slo.threshold.form not in RELATIVE
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
