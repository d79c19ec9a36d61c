"""Readings from this process: every exchange is counted here once when it ends and once when its checks are done.

    served(exchange)  -> availability, latency, errors, cost, cache   (end of the answer)
    checked(exchange) -> hallucination, similarity, zero-hit          (seconds later)
    feedback(...)     -> thumbs

Counted per release, and once more per set of routes that an objective is limited to. What an exchange says is decided
in `slo.indicators`; here it is only kept, with three corrections: repeated bad events of one session within 10 s count
once, no tenant has more than a fifth of the weight (`slo.fair_share`), and at most `MAX_RELEASES` releases are kept.

Readings, gauges and dumps may be asked for from any thread; counting and all changes belong to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from slo.clock import Clock
from slo.comparison import Span
from slo.drafts import with_findings
from slo.evaluation import current_value
from slo.fair_share import CAP_RATIO
from slo.history import Point
from slo.indicators import LATENCY, THUMBS_UP, Vote, checked_votes, served_votes
from slo.metric_names import INDICATORS, Indicator
from slo.sources.books import NO_TALLY, Book, ReleaseBooks, Routes, Tally
from slo.sources.lives import Lives
from slo.sources.together import PlainAnswers, is_plain
from slo.sources.trial import Trial, TrialSetup
from slo.thresholds import RELATIVE, limit_for
from slo.types import CacheStatus, Exchange, Finding, Outcome, Reading, Slo
from slo.windows import Windows, join_parts

MAX_RELEASES = 8
GAUGE_WINDOW_S = 3600.0
GAUGE_MIN_EVENTS = 20
GAUGE_MIN_COVERAGE_RATIO = 0.5
DUMP_VERSION = 1

_HIT, _OK = CacheStatus.HIT, Outcome.OK
_EXACT = tuple(i for i in INDICATORS.values() if i.exact)


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
        max_releases: int = MAX_RELEASES,
    ) -> None:
        self._max_releases = max_releases
        self.slos = slos
        self._clock = clock
        self._cap_ratio = tenant_cap_ratio
        self._latency_limits = _written_limits(slos)
        self._releases: dict[str, ReleaseBooks] = {}
        self.trial: Trial | None = None
        self.lives = Lives(clock)
        self.set_limits(limits or {})

    # Counting

    def served(self, exchange: Exchange) -> None:
        """Count an exchange at its end, its checks not yet known."""
        self.served_many((exchange,))

    def served_many(self, exchanges: Iterable[Exchange]) -> None:
        """`served` for all that ended at about this moment."""
        now_s = self._clock.now_s()
        plain: dict[tuple[str, str], PlainAnswers] = {}
        try:
            for exchange in exchanges:
                if self.lives and self.lives.is_former(exchange):
                    continue
                release = self._release(exchange.release, now_s)
                share = release.share_served
                weight = share.weight(exchange.tenant, now_s) if share is not None else 1.0
                if weight == 1.0 and self.trial is None and is_plain(exchange):
                    key = (exchange.release, exchange.route)
                    answers = plain.get(key)
                    if answers is None:
                        answers = plain[key] = PlainAnswers()
                    answers.add(exchange)
                elif weight > 0.0:
                    self._count(release, served_votes(exchange), exchange, now_s, weight)
        finally:  # what was taken is counted, whatever comes after it
            for (name, route), answers in plain.items():
                answers.count(self._release(name, now_s), route, now_s)

    def checked(self, exchange: Exchange) -> None:
        """Count what the checks said; `exchange.findings` are filled in."""
        votes = checked_votes(exchange)
        if not votes or self.lives.is_former(exchange):
            return
        now_s = self._clock.now_s()
        release = self._release(exchange.release, now_s)
        share = release.share_checked
        weight = share.weight(exchange.tenant, now_s) if share is not None else 1.0
        if weight > 0.0:
            self._count(release, votes, exchange, now_s, weight)

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """`checked` for many exchanges nobody looked at: `findings` hold for each, and none is judged."""
        votes: list[Vote] | None = None
        now_s = self._clock.now_s()
        weights: dict[tuple[str, str], tuple[Exchange, float]] = {}
        for exchange in exchanges:
            if exchange.outcome is not _OK or exchange.cache is _HIT:
                continue  # as in `checked_votes`
            if self.lives.is_former(exchange):
                continue
            if votes is None:
                votes = checked_votes(with_findings(exchange, findings))
                assert all(bad is None for _, bad, _ in votes)
            share = self._release(exchange.release, now_s).share_checked
            weight = share.weight(exchange.tenant, now_s) if share is not None else 1.0
            key = (exchange.release, exchange.route)
            known = weights.get(key)
            weights[key] = (exchange, weight) if known is None else (exchange, known[1] + weight)
        for (release, _), (exchange, weight) in weights.items():
            if weight > 0.0 and votes:
                self._count(self._release(release, now_s), votes, exchange, now_s, weight)

    def feedback(self, release: str, up: bool) -> None:
        """Count one thumb. Thumbs carry no route, so objectives limited to routes do not see them."""
        self.note(THUMBS_UP, release, not up)

    def note(self, indicator: str, release: str, bad: bool) -> None:
        """Count one event that comes apart from its exchange: a thumb, a question asked again, an intent's answer."""
        now_s = self._clock.now_s()
        self._release(release, now_s).books[()].window(indicator).add(now_s, bad, 1)

    def _count(self, release: ReleaseBooks, votes: list[Vote], exchange: Exchange, now_s: float, weight: float) -> None:
        session, route = exchange.session, exchange.route
        trial = self.trial
        # A cache hit was not generated by this release now: it says nothing of canary against stable.
        arm = trial.arm_of(exchange.release) if trial is not None and exchange.cache is not _HIT else None
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
                    for objective, (limit, counted) in book.over.items():
                        over = value > limit
                        if not (over and release.repeated(f"{routes}{objective}", session, now_s)):
                            counted.add(now_s, weight if over else 0.0, weight)
                            if arm is not None and trial is not None:
                                trial.count_latency(arm, objective, value, weight, session)
                elif bad and release.repeated(f"{routes}{name}", session, now_s):
                    continue
                windows = book.windows.get(name)
                if windows is None:
                    windows = book.window(name)
                windows.add(now_s, weight if bad else 0.0, weight, value)
                if arm is not None and trial is not None:
                    trial.count(arm, routes, name, bad, weight, value, session)

    def _release(self, name: str, now_s: float) -> ReleaseBooks:
        found = self._releases.get(name)
        if found is None:
            if len(self._releases) >= self._max_releases:
                kept = list(self._releases.items())
                self._releases.pop(min(kept, key=lambda item: item[1].counted_s)[0], None)
            found = self._releases[name] = self._new_release(now_s)
        found.counted_s = now_s
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
            if slo.name in self._latency_limits:
                limits[slo.name] = self._latency_limits[slo.name]
        return found

    def forget(self, release: str, life: int | None = None) -> None:
        """Drop all that was counted of a release: a canary started again is not judged by its previous life.

        life: its number, the same on every replica. Whoever keeps our counters elsewhere cannot drop its windows: they
        go on under another name.
        """
        self.lives.begin(release, life)
        self._releases.pop(release, None)
        if self.trial is not None and self.trial.arm_of(release) is not None:
            self.trial = None

    def set_limits(self, limits: Mapping[str, float | None]) -> None:
        """Set the limits of latency objectives that come from a baseline, seconds by objective name.

        On a change the requests over the limit are counted again from the latency bins, 1 % accurate, so that nothing
        counted against an old limit is held against a release. None: no limit, nothing is over it.
        """
        latencies = {slo.name for slo in self.slos if INDICATORS[slo.indicator].kind == "latency"}
        given = {name: limit for name, limit in limits.items() if name in latencies}
        wanted = {n: limit for n, limit in {**self._latency_limits, **given}.items() if limit is not None}
        if wanted != self._latency_limits:
            self._latency_limits = wanted
            self._limit_books()

    def replace_objectives(self, slos: tuple[Slo, ...]) -> None:
        """Take other objectives. What was counted stays; limits that are new are counted anew from the latency bins.

        An objective that stays as it is keeps the limit its baseline gave it. Routes that no objective named before
        start empty.
        """
        unchanged = {slo.name for slo in self.slos if slo in slos}
        kept = {name: limit for name, limit in self._latency_limits.items() if name in unchanged}
        self.slos = slos
        self._latency_limits = {**kept, **_written_limits(slos)}
        for release in list(self._releases.values()):  # another thread may be reading: the whole table is replaced
            release.books = {routes: release.books.get(routes) or Book(routes) for routes in self._limits_of_routes()}
        self._limit_books()

    def _limit_books(self) -> None:
        limits = self._limits_of_routes()
        for release in list(self._releases.values()):
            for routes, book in release.books.items():
                book.limit(limits[routes])
        if self.trial is not None:
            self.trial.objectives(self.slos, self._latency_limits)

    # Asking

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        releases = list(self._releases.values())
        books = [book for release in releases for book in list(release.books.values())]
        yield "windows", sum(len(book.windows) + len(book.unjudged) + len(book.over) for book in books)
        yield "troubled_sessions", sum(len(release.repeats) for release in releases)

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
            return over[1].reading(now_s, length_s) if over else Reading(0, 0)
        windows = book.windows.get(slo.indicator)
        reading = windows.reading(now_s, length_s) if windows else Reading(0, 0)
        ratio = book.coverage_ratio(slo.indicator, now_s, length_s, reading.count)
        return replace(reading, coverage_ratio=ratio) if ratio != 1.0 else reading

    def tally(self, slo: Slo, release: str) -> Tally:
        """Return all that this process counted for an objective and release; an unknown release has zeros."""
        known = self._releases.get(release)
        book = known.books.get(slo.routes) if known else None
        if book is None:
            return NO_TALLY
        if INDICATORS[slo.indicator].kind == "latency":
            over = book.over.get(slo.name)
            windows = over[1] if over else None
        else:
            windows = book.windows.get(slo.indicator)
        bad, count, value_sum, value_sq_sum = windows.totals() if windows else (0.0, 0.0, 0.0, 0.0)
        unjudged = book.unjudged.get(slo.indicator)
        return Tally(bad, count, unjudged.totals()[1] if unjudged else 0.0, value_sum, value_sq_sum)

    def history(self, slo: Slo, release: str, length_s: float) -> tuple[Point, ...]:
        """Return an objective of one release over time, oldest first; spans without events are left out."""
        known = self._releases.get(release)
        book = known.books.get(slo.routes) if known else None
        if book is None:
            return ()
        kind = INDICATORS[slo.indicator].kind
        over = book.over.get(slo.name)
        windows = (over[1] if over else None) if kind == "latency" else book.windows.get(slo.indicator)
        if windows is None:
            return ()
        wall_s = self._clock.wall_s()
        return tuple(
            Point(wall_s - age_s, bad, count, total / count if kind == "mean" else None)
            for age_s, bad, count, total in windows.history(self._clock.now_s(), length_s)
        )

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

    # Canary against stable

    def compare(self, setup: TrialSetup | None) -> None:
        """Count for this rollout from now on, and go on with what was counted for it; None: there is none."""
        now_s = self._clock.now_s()
        if setup is None:
            self.trial = None
        elif self.trial is not None and _is_same(self.trial.setup, setup):
            self.trial.go_on(setup, now_s)
        else:
            self.trial = Trial(setup, now_s)
            self.trial.objectives(self.slos, self._latency_limits)

    def spans(self, slo: Slo) -> tuple[Span, ...]:
        """Return what the rollout under comparison has counted for an objective, () without one."""
        return self.trial.spans(slo.name) if self.trial is not None else ()

    def alarm(self, objective: str) -> list[float] | None:
        """Return what is remembered of an objective of a promoted version, to be changed in place; None without one."""
        return self.trial.alarms.setdefault(objective, []) if self.trial is not None else None

    # Surviving a restart

    def dump_pieces(self) -> Iterator[dict[str, Any]]:
        """Yield JSON-able state in small pieces: a head, parts of windows, and a tail with their number.

        Windows only, with ages, and the wall time to know later how long we were away. What is too old to be read is
        left out. Each piece is made when it is asked for and takes about a millisecond to encode; counting may go on
        in between, and what is counted meanwhile may be in it or not. Releases come in the order they were counted.
        """
        now_s = self._clock.now_s()
        yield {"v": DUMP_VERSION, "wall_s": self._clock.wall_s(), "lives": dict(self.lives.numbers)}
        piece_count = 0
        for name, release in sorted(self._releases.items(), key=lambda item: item[1].counted_s):
            for book in list(release.books.values()):
                for piece in book.pieces(now_s):
                    yield {"release": name, **piece}
                    piece_count += 1
        if self.trial is not None:
            for piece in self.trial.pieces(now_s):
                yield {"trial": piece}
                piece_count += 1
        yield {"piece_count": piece_count}

    def dump(self) -> dict[str, Any]:
        """Return the state in one piece."""
        return _joined(self.dump_pieces())

    def load_pieces(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Take over the windows of an earlier process from all its pieces, in order. A whole dump is one piece, too.

        Raises:
            ValueError: not pieces of this version, or some are missing; nothing is taken over then.
        """
        try:
            dump = _joined(pieces)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a dump of windows ({type(error).__name__}: {error})") from error
        self.load(dump)

    def load(self, dump: Mapping[str, Any]) -> None:
        """Take over the windows of an earlier process. A wall clock that ran backwards counts as no time away.

        Raises:
            ValueError: not a dump of this version; nothing is taken over then.
        """
        now_s = self._clock.now_s()
        limits = self._limits_of_routes()
        try:
            if dump["v"] != DUMP_VERSION:
                raise ValueError(f"windows of version {dump['v']}, this program keeps version {DUMP_VERSION}")
            away_s = max(0.0, self._clock.wall_s() - float(dump["wall_s"]))
            loaded: dict[str, ReleaseBooks] = {}
            for name, books in list(dump["releases"].items())[-self._max_releases :]:
                release = ReleaseBooks({routes: Book(routes) for routes in limits}, self._cap_ratio, now_s)
                for saved in books:
                    book = release.books.get(tuple(saved["routes"]))
                    if book is not None:
                        book.load(saved, now_s, away_s)
                for routes, book in release.books.items():
                    book.limit(limits[routes])
                loaded[str(name)] = release
            trial = Trial.load(dump.get("trial", ()), now_s, away_s)
            lives = {str(name): int(life) for name, life in dump.get("lives", {}).items()}
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a dump of windows ({type(error).__name__}: {error})") from error
        self._releases, self.trial, self.lives.numbers = loaded, trial, lives
        if trial is not None:
            trial.objectives(self.slos, self._latency_limits)


def _is_same(one: TrialSetup, other: TrialSetup) -> bool:
    return (one.key, one.canary, one.stable) == (other.key, other.canary, other.stable)


def _joined(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the dump that these pieces make.

    Raises:
        ValueError: pieces are missing. KeyError, TypeError, AttributeError, IndexError: not pieces.
    """
    several = iter(pieces)
    head = next(several, None)
    if head is None:
        raise ValueError("no dump of windows: empty")
    if "releases" in head:
        return dict(head)
    dump: dict[str, Any] = {"v": head["v"], "wall_s": head["wall_s"], "lives": head.get("lives", {}), "releases": {}}
    if dump["v"] != DUMP_VERSION:
        return dump  # whoever loads it says so; its pieces may be of any form
    parts: dict[tuple[str, Routes, str, str], list[Mapping[str, Any]]] = {}
    piece_count = 0
    for piece in several:
        if "piece_count" in piece:
            break
        if "trial" in piece:
            dump.setdefault("trial", []).append(piece["trial"])
        else:
            where = (piece["release"], tuple(piece["routes"]), piece["part"], piece["name"])
            parts.setdefault(where, []).append(piece)
        piece_count += 1
    else:
        raise ValueError(f"torn dump of windows: ends after {piece_count} pieces")
    if piece_count != piece["piece_count"]:
        raise ValueError(f"torn dump of windows: {piece_count} pieces of {piece['piece_count']}")
    books: dict[tuple[str, Routes], dict[str, Any]] = {}
    for (release, routes, part, name), found in parts.items():
        book = books.get((release, routes))
        if book is None:
            book = books[release, routes] = {"routes": list(routes), "windows": {}, "unjudged": {}, "over": {}}
            dump["releases"].setdefault(release, []).append(book)
        windows = join_parts(each["windows"] for each in found)
        book[part][name] = [found[0]["limit"], windows] if part == "over" else windows
    return dump


def _written_limits(slos: tuple[Slo, ...]) -> dict[str, float]:
    """Limits of latency objectives that need nothing but the file."""
    limits = {
        slo.name: limit_for(slo).value
        for slo in slos
        if INDICATORS[slo.indicator].kind == "latency" and slo.threshold.form not in RELATIVE
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
