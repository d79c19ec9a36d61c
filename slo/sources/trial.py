"""What canary and stable did since a rollout began, counted as the answers end: the numbers behind `slo.comparison`.

Sums only, of bounded size: per objective and arm for at most `MAX_SPANS` spans of the rollout. It belongs to the thread
that counts; readings may be asked for from any.

Beside the windows, because a window forgets and a test over a whole rollout must not; and because what counts is
another thing: cache hits say nothing about a release, and a session's bad events are one (`Cell.bad_sessions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slo.comparison import ArmSums, Pair, Span
from slo.confidence import guess
from slo.metric_names import INDICATORS
from slo.types import Slo

SPAN_S = 3600.0
"""A new span begins every hour, and when the weight changes: harm may begin late (`slo.sequential`)."""
MAX_SPANS = 12
MAX_SESSIONS = 4096
"""Sessions with a bad event that are remembered per objective and arm. Forgotten ones would count once more."""
SAVED_SESSIONS = 1024
EXPECTED_EVENTS = 2.0
"""How many scores an expected one weighs in the guesses. Few: a right one gains half a percent of the width of the
bounds, a wrong one that weighed 20 would cost a third of it."""

CANARY, STABLE = 0, 1
Row = list[float]


@dataclass(frozen=True, slots=True)
class TrialSetup:
    """Who is compared. key: the same for as long as it is the same rollout. canary "": stable alone, after promotion.

    canary, stable: release ids. weight: the canary's planned share of the sessions now.
    expected: indicator and the score that an evaluation found for the canary before: its first guess. The bounds hold
    whatever is guessed, as long as it is guessed beforehand; a good guess makes them narrow sooner.
    """

    key: str
    canary: str
    stable: str
    weight: float
    expected: tuple[tuple[str, float], ...] = ()


class Cell:
    """Sums of one arm for one objective in the present span, and what outlives spans: the guess and the sessions."""

    __slots__ = ("bad", "bad_sessions", "count", "seen_count", "seen_total", "sessions", "spread", "total")

    def __init__(self, earlier: Cell | None = None) -> None:
        self.count = self.bad = self.bad_sessions = self.total = self.spread = 0.0
        self.seen_count: float = earlier.seen_count if earlier else 0.0
        self.seen_total: float = earlier.seen_total if earlier else 0.0
        self.sessions: dict[str, None] = earlier.sessions if earlier else {}

    def expect(self, score: float) -> None:
        """Guess this before anything was seen."""
        if not self.seen_count:
            self.seen_count, self.seen_total = EXPECTED_EVENTS, EXPECTED_EVENTS * score

    def add(self, bad: bool, weight: float, value: float | None, session: str) -> None:
        """Count one event; the count first, so that a reader never sees more bad events than events."""
        self.count += weight
        if value is not None:
            expected = guess(self.seen_total, self.seen_count)
            self.spread += weight * (value - expected) ** 2
            self.total += weight * value
            self.seen_count += weight
            self.seen_total += weight * value
        if bad:
            self.bad += weight
            if not session:  # every answer is a session of its own
                self.bad_sessions += weight
            elif session not in self.sessions:
                if len(self.sessions) >= MAX_SESSIONS:
                    del self.sessions[next(iter(self.sessions))]
                self.sessions[session] = None
                self.bad_sessions += weight

    def sums(self) -> ArmSums:
        """A copy, frozen. Read from the last added to the first, so that bad <= count."""
        bad_sessions, bad = self.bad_sessions, self.bad
        return ArmSums(self.count, bad, bad_sessions, self.total, self.spread)


class _Ledger:
    """One objective. limit: of a latency objective, seconds; terms: how the file says to obtain it.

    A limit from a baseline follows the hour of the week. Counts against two limits cannot be added up, and both arms
    are counted against the same one, so the first that is known holds for the whole rollout; other terms begin anew.
    """

    __slots__ = ("cells", "closed", "limit", "terms")

    def __init__(self, terms: str, limit: float | None) -> None:
        self.terms, self.limit = terms, limit
        self.cells = (Cell(), Cell())
        self.closed: dict[int, dict[float, Pair]] = {}  # number of the span -> weight -> sums


class Trial:
    """One rollout under comparison."""

    def __init__(self, setup: TrialSetup, now_s: float) -> None:
        self.setup = setup
        self.number = 0
        self.span_started_s = now_s
        self._ledgers: dict[str, _Ledger] = {}
        self._by_indicator: dict[tuple[tuple[str, ...], str], tuple[_Ledger, ...]] = {}
        self.alarms: dict[str, list[float]] = {}  # what `slo.detection` remembers, by objective

    def arm_of(self, release: str) -> int | None:
        """CANARY, STABLE, or None for a release that is not compared."""
        if release == self.setup.stable:
            return STABLE
        return CANARY if release == self.setup.canary else None

    def objectives(self, slos: Iterable[Slo], limits: Mapping[str, float]) -> None:
        """Compare exactly these from now on; limits: seconds of latency objectives. What still fits is kept."""
        kept: dict[str, _Ledger] = {}
        by_indicator: dict[tuple[tuple[str, ...], str], tuple[_Ledger, ...]] = {}
        for slo in slos:
            if slo.canary is None:
                continue
            terms, known = _terms(slo), self._ledgers.get(slo.name)
            ledger = kept[slo.name] = known if known and known.terms == terms else _Ledger(terms, None)
            for indicator, score in self.setup.expected:
                if indicator == slo.indicator:
                    ledger.cells[CANARY].expect(score)
            if ledger.limit is None:
                ledger.limit = limits.get(slo.name)
            where = (slo.routes, slo.indicator)
            by_indicator[where] = (*by_indicator.get(where, ()), ledger)
        self._ledgers, self._by_indicator = kept, by_indicator

    def count(
        self, arm: int, routes: tuple[str, ...], name: str, bad: bool, weight: float, value: float | None, session: str
    ) -> None:
        """Count one vote for an indicator."""
        for ledger in self._by_indicator.get((routes, name), ()):
            ledger.cells[arm].add(bad, weight, value, session)

    def count_latency(self, arm: int, objective: str, value_s: float, weight: float, session: str) -> None:
        """Count one exchange for a latency objective, against the limit of this rollout."""
        ledger = self._ledgers.get(objective)
        if ledger is not None and ledger.limit is not None:
            ledger.cells[arm].add(value_s > ledger.limit, weight, None, session)

    def go_on(self, setup: TrialSetup, now_s: float) -> None:
        """The weight now, and the time: begins a new span when it is due."""
        if setup.weight == self.setup.weight and now_s - self.span_started_s < SPAN_S:
            return
        for ledger in self._ledgers.values():
            pair = _pair(ledger)
            if pair != Pair():
                ledger.closed.setdefault(self.number, {})[self.setup.weight] = pair
                ledger.cells = (Cell(ledger.cells[CANARY]), Cell(ledger.cells[STABLE]))
        self.setup, self.number, self.span_started_s = setup, self.number + 1, now_s
        for ledger in self._ledgers.values():
            _merge(ledger.closed, self.number)

    def spans(self, objective: str) -> tuple[Span, ...]:
        """Everything counted for an objective, oldest first; the present span last."""
        ledger = self._ledgers.get(objective)
        if ledger is None:
            return ()
        closed = [Span(number, dict(by_weight)) for number, by_weight in sorted(ledger.closed.items())]
        return (*closed, Span(self.number, {self.setup.weight: _pair(ledger)}))

    # Surviving a restart

    def pieces(self, now_s: float) -> Iterator[dict[str, Any]]:
        """Yield JSON-able state, one piece an objective."""
        for name, ledger in list(self._ledgers.items()):
            rows = [
                [number, weight, arm, *_row(sums)]
                for number, by_weight in sorted(ledger.closed.items())
                for weight, pair in list(by_weight.items())
                for arm, sums in ((CANARY, pair.canary), (STABLE, pair.stable))
            ]
            setup = self.setup
            yield {
                "key": setup.key, "canary": setup.canary, "stable": setup.stable, "weight": setup.weight,
                "number": self.number, "age_s": round(now_s - self.span_started_s, 3),
                "name": name, "terms": ledger.terms, "limit": ledger.limit, "rows": rows,
                "cells": [[*_row(c.sums()), c.seen_count, c.seen_total] for c in ledger.cells],
                "sessions": [list(c.sessions)[-SAVED_SESSIONS:] for c in ledger.cells],
                "alarm": self.alarms.get(name, []),
            }  # fmt: skip

    @classmethod
    def load(cls, pieces: Iterable[Mapping[str, Any]], now_s: float, away_s: float) -> Trial | None:
        """Return the trial of `pieces`, None when there were none. Follow with `objectives`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, IndexError: not pieces of a trial.
        """
        trial: Trial | None = None
        for piece in pieces:
            if trial is None:
                key, canary, stable = (str(piece[word]) for word in ("key", "canary", "stable"))
                trial = cls(TrialSetup(key, canary, stable, float(piece["weight"])), now_s)
                trial.number = int(piece["number"])
                trial.span_started_s = now_s - float(piece["age_s"]) - away_s
            limit = piece["limit"]
            ledger = _Ledger(str(piece.get("terms", "")), None if limit is None else float(limit))
            for number, weight, arm, *numbers in piece["rows"]:
                by_weight = ledger.closed.setdefault(int(number), {})
                loaded = _sums(numbers)
                pair = Pair(canary=loaded) if arm == CANARY else Pair(stable=loaded)
                by_weight[float(weight)] = by_weight.get(float(weight), Pair()) + pair
            for cell, saved, sessions in zip(ledger.cells, piece["cells"], piece["sessions"], strict=True):
                sums = _sums(saved[:5])
                cell.count, cell.bad, cell.bad_sessions = sums.count, sums.bad, sums.bad_sessions
                cell.total, cell.spread = sums.total, sums.spread
                cell.seen_count, cell.seen_total = float(saved[5]), float(saved[6])
                cell.sessions.update(dict.fromkeys(str(session) for session in sessions))
            trial._ledgers[str(piece["name"])] = ledger
            if piece["alarm"]:
                trial.alarms[str(piece["name"])] = [float(number) for number in piece["alarm"]]
        return trial


def _terms(slo: Slo) -> str:
    """What a limit that is counted against depends on in the file; "" where nothing is counted against one."""
    if INDICATORS[slo.indicator].kind != "latency":
        return ""
    return f"{slo.indicator} {slo.threshold.form} {sorted(slo.threshold.params.items())}"


def _pair(ledger: _Ledger) -> Pair:
    canary, stable = ledger.cells
    return Pair(canary.sums(), stable.sums())


def _merge(closed: dict[int, dict[float, Pair]], newest: int) -> None:
    """Keep few enough spans: merge the neighbours that lie closest together for their age; never into the newest.

    So starting points get rarer with age, and there is always one of about the age that any harm has.
    """
    while len(closed) >= MAX_SPANS:
        numbers = [*sorted(closed), newest]
        places = range(len(numbers) - 2)
        place = min(places, key=lambda i: (numbers[i + 2] - numbers[i]) / (newest - numbers[i] + 1))
        older, younger = closed[numbers[place]], closed.pop(numbers[place + 1])
        for weight, pair in younger.items():
            older[weight] = older.get(weight, Pair()) + pair


def _row(sums: ArmSums) -> Row:
    return [sums.count, sums.bad, sums.bad_sessions, sums.total, sums.spread]


def _sums(row: Iterable[float]) -> ArmSums:
    count, bad, bad_sessions, total, spread = (float(number) for number in row)
    if not 0 <= bad_sessions <= bad <= count or spread < 0:
        raise ValueError(f"sums {[count, bad, bad_sessions]} have more bad events than events")
    return ArmSums(count, bad, bad_sessions, total, spread)
