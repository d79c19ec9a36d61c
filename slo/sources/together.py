"""Whole, fresh answers that ended at about the same moment, counted together: the usual case at a third of the price.

Nothing about them is bad, nothing is weighed, no trial is under way: then counts may be added up before they are added
to the windows. Everything else is counted one by one in `slo.sources.memory`, and both say the same.
"""

from __future__ import annotations

from slo.indicators import AVAILABILITY, COST, HTTP_ERRORS, LATENCY, LLM_ERRORS
from slo.sources.books import Book, ReleaseBooks
from slo.types import CacheStatus, Exchange, Outcome
from slo.windows import Windows

_OK, _BYPASS = Outcome.OK, CacheStatus.BYPASS
_ALL_GOOD = (HTTP_ERRORS, AVAILABILITY, LLM_ERRORS)


def is_plain(exchange: Exchange) -> bool:
    """Whether nothing about this end needs a look of its own: a 200 that no cache had a part in."""
    return exchange.outcome is _OK and exchange.cache is _BYPASS and exchange.status < 400 and not exchange.reason


class PlainAnswers:
    """Such answers of one release on one route."""

    __slots__ = ("costs_usd", "durations_s", "sessions", "unpriced_count")

    def __init__(self) -> None:
        self.durations_s: list[float] = []
        self.sessions: list[str] = []
        self.costs_usd: list[float] = []
        self.unpriced_count = 0

    def add(self, exchange: Exchange) -> None:
        """One more."""
        self.durations_s.append(exchange.duration_s)
        self.sessions.append(exchange.session)
        if exchange.cost_usd is None:
            self.unpriced_count += 1
        else:
            self.costs_usd.append(exchange.cost_usd)

    def count(self, release: ReleaseBooks, route: str, now_s: float) -> None:
        """Add all of them, as `served_votes` has it: to each book that this route belongs to."""
        for routes, book in release.books.items():
            if not routes or route in routes:
                self._count_in(book, release, now_s)

    def _count_in(self, book: Book, release: ReleaseBooks, now_s: float) -> None:
        durations_s = self.durations_s
        for name in _ALL_GOOD:
            book.window(name).add(now_s, 0.0, len(durations_s))
        book.window(LATENCY).add_values(now_s, durations_s)
        if self.costs_usd:
            book.window(COST).add_values(now_s, self.costs_usd)
        if self.unpriced_count:
            missed = book.unjudged.get(COST)
            if missed is None:
                missed = book.unjudged[COST] = Windows()
            missed.add(now_s, 0, self.unpriced_count)
        slowest_s = max(durations_s)
        for objective, (limit_s, counted) in book.over.items():
            if slowest_s <= limit_s:
                counted.add(now_s, 0.0, len(durations_s))
                continue
            what = f"{book.routes}{objective}"
            for duration_s, session in zip(durations_s, self.sessions, strict=True):
                over = duration_s > limit_s
                if not (over and release.repeated(what, session, now_s)):
                    counted.add(now_s, float(over), 1.0)
