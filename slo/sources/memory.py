"""Readings from this process: every exchange is counted here once when it ends and once when its checks are done.

    served(exchange)  -> availability, latency, errors, cost, cache   (end of the answer)
    checked(exchange) -> hallucination, similarity, zero-hit          (seconds later)
    feedback(...)     -> thumbs

Here it is counted; where it is kept stands in `slo.sources.shelf` and `slo.sources.books`, what is asked of it in
`slo.sources.asking`, how a dump is put together in `slo.sources.pieces`.

Counted per release, and once more per set of routes that an objective is limited to. What an exchange says is decided
in `slo.indicators`; here it is only kept, with three corrections: repeated bad events of one session within 10 s count
once, no tenant has more than a fifth of the weight (`slo.fair_share`), and at most `MAX_RELEASES` releases are kept.

Readings, gauges and dumps may be asked for from any thread; counting and all changes belong to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from slo.clock import Clock
from slo.comparison import Span
from slo.drafts import with_findings
from slo.fair_share import CAP_RATIO
from slo.history import Point
from slo.indicators import LATENCY, THUMBS_UP, Vote, checked_votes, served_votes
from slo.sources.asking import Asking
from slo.sources.books import ReleaseBooks, Tally
from slo.sources.lives import Lives
from slo.sources.pieces import DUMP_VERSION, joined
from slo.sources.shelf import Shelf
from slo.sources.together import PlainAnswers, is_plain
from slo.sources.trial import Trial, TrialSetup
from slo.types import CacheStatus, Exchange, Finding, Outcome, Reading, Slo
from slo.windows import Windows

MAX_RELEASES = 8

_HIT, _OK = CacheStatus.HIT, Outcome.OK


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
        self.shelf = Shelf(slos, tenant_cap_ratio, max_releases)
        self._asking = Asking(self.shelf, clock)
        self._clock = clock
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
                release = self.shelf.release(exchange.release, now_s)
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
                answers.count(self.shelf.release(name, now_s), route, now_s)

    def checked(self, exchange: Exchange) -> None:
        """Count what the checks said; `exchange.findings` are filled in."""
        votes = checked_votes(exchange)
        if not votes or self.lives.is_former(exchange):
            return
        now_s = self._clock.now_s()
        release = self.shelf.release(exchange.release, now_s)
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
            share = self.shelf.release(exchange.release, now_s).share_checked
            weight = share.weight(exchange.tenant, now_s) if share is not None else 1.0
            key = (exchange.release, exchange.route)
            known = weights.get(key)
            weights[key] = (exchange, weight) if known is None else (exchange, known[1] + weight)
        for (release, _), (exchange, weight) in weights.items():
            if weight > 0.0 and votes:
                self._count(self.shelf.release(release, now_s), votes, exchange, now_s, weight)

    def feedback(self, release: str, up: bool) -> None:
        """Count one thumb. Thumbs carry no route, so objectives limited to routes do not see them."""
        self.note(THUMBS_UP, release, not up)

    def note(self, indicator: str, release: str, bad: bool) -> None:
        """Count one event that comes apart from its exchange: a thumb, a question asked again, an intent's answer."""
        now_s = self._clock.now_s()
        self.shelf.release(release, now_s).books[()].window(indicator).add(now_s, bad, 1)

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

    def forget(self, release: str, life: int | None = None) -> None:
        """Drop all that was counted of a release: a canary started again is not judged by its previous life.

        life: its number, the same on every replica. Whoever keeps our counters elsewhere cannot drop its windows: they
        go on under another name.
        """
        self.lives.begin(release, life)
        self.shelf.releases.pop(release, None)
        if self.trial is not None and self.trial.arm_of(release) is not None:
            self.trial = None

    def set_limits(self, limits: Mapping[str, float | None]) -> None:
        """Set the limits of latency objectives that come from a baseline, seconds by objective name.

        On a change the requests over the limit are counted again from the latency bins, 1 % accurate, so that nothing
        counted against an old limit is held against a release. None: no limit, nothing is over it.
        """
        if self.shelf.set_limits(limits):
            self._limit_trial()

    def replace_objectives(self, slos: tuple[Slo, ...]) -> None:
        """Take other objectives. What was counted stays; limits that are new are counted anew from the latency bins.

        An objective that stays as it is keeps the limit its baseline gave it. Routes that no objective named before
        start empty.
        """
        self.shelf.replace_objectives(slos)
        self._limit_trial()

    def _limit_trial(self) -> None:
        if self.trial is not None:
            self.trial.objectives(self.shelf.slos, self.shelf.limits)

    # Asking: see `slo.sources.asking`

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        return self.shelf.held()

    def releases(self) -> tuple[str, ...]:
        """Releases that have counted anything."""
        return tuple(self.shelf.releases)

    def reading(self, slo: Slo, release: str, length_s: float | None = None) -> Reading:
        """Return the reading of an objective for one release; of its own window unless `length_s` is given."""
        return self._asking.reading(slo, release, length_s)

    def tally(self, slo: Slo, release: str) -> Tally:
        """Return all that this process counted for an objective and release."""
        return self._asking.tally(slo, release)

    def history(self, slo: Slo, release: str, length_s: float) -> tuple[Point, ...]:
        """Return an objective of one release over time, oldest first."""
        return self._asking.history(slo, release, length_s)

    def objective_value(self, slo: Slo, release: str) -> float | None:
        """Return the present value of an objective in inside units, None while unknown."""
        return self._asking.objective_value(slo, release)

    def gauges(self) -> list[tuple[str, str, float]]:
        """Return (metric, release, value at the border) of the six exact gauges; absent while unknown."""
        return self._asking.gauges()

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
            self.trial.objectives(self.shelf.slos, self.shelf.limits)

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
        lives, began = dict(self.lives.numbers), dict(self.lives.began_wall_s)
        yield {"v": DUMP_VERSION, "wall_s": self._clock.wall_s(), "lives": lives, "began": began}
        piece_count = 0
        for piece in self.shelf.pieces(now_s):
            yield piece
            piece_count += 1
        if self.trial is not None:
            for piece in self.trial.pieces(now_s):
                yield {"trial": piece}
                piece_count += 1
        yield {"piece_count": piece_count}

    def dump(self) -> dict[str, Any]:
        """Return the state in one piece."""
        return joined(self.dump_pieces())

    def load_pieces(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Take over the windows of an earlier process from all its pieces, in order. A whole dump is one piece, too.

        Raises:
            ValueError: not pieces of this version, or some are missing; nothing is taken over then.
        """
        try:
            dump = joined(pieces)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a dump of windows ({type(error).__name__}: {error})") from error
        self.load(dump)

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
            loaded = self.shelf.loaded(dump["releases"], now_s, away_s)
            trial = Trial.load(dump.get("trial", ()), now_s, away_s)
            lives = {str(name): int(life) for name, life in dump.get("lives", {}).items()}
            began = {str(name): float(wall_s) for name, wall_s in dump.get("began", {}).items()}
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a dump of windows ({type(error).__name__}: {error})") from error
        self.shelf.releases, self.trial = loaded, trial
        self.lives.numbers, self.lives.began_wall_s = lives, began
        if trial is not None:
            trial.objectives(self.shelf.slos, self.shelf.limits)


def _is_same(one: TrialSetup, other: TrialSetup) -> bool:
    return (one.key, one.canary, one.stable) == (other.key, other.canary, other.stable)
