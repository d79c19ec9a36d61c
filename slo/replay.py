"""Back-testing: any rules over recorded traffic in virtual time, judged by the functions that judge live. Pure.

    Traffic + rules ─► sieve (moments that matter) ─► evaluation.judge, evaluation.advance ─► firings, time in states

Every moment is a whole number of ticks; what the sidecar would have said at it depends on what ended before it. While
nothing is held, a moment that cannot be a breach changes nothing (`advance` then returns what it was given), so those
moments are only counted; all others are judged one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from slo.artefact import Baseline, hour_of_week
from slo.evaluation import NOT_HELD, advance, judge
from slo.indicators import LATENCY
from slo.metric_names import INDICATORS
from slo.screening import ASK, OK, sieve
from slo.thresholds import Known, Limit, limit_for
from slo.traffic import Life, Quantity, Track, Traffic, reach
from slo.types import Reading, Slo, State, Verdict

WEEK_HOURS = 168
_MONDAY_S = 96 * 3600.0  # hour 0 of the week; Unix time began on a Thursday


@dataclass(frozen=True, slots=True)
class Rule:
    """An objective with its limit: one for all time, or one for each hour of the week (form `previous`)."""

    slo: Slo
    limits: tuple[Limit, ...]

    def limit_at(self, wall_s: float) -> Limit:
        """The limit at a moment."""
        return self.limits[0] if len(self.limits) == 1 else self.limits[hour_of_week(wall_s)]

    @property
    def quantity(self) -> Quantity:
        """What must be counted for this rule."""
        if INDICATORS[self.slo.indicator].kind != "latency":
            return Quantity(self.slo.indicator, self.slo.routes)
        over = tuple(limit.value for limit in self.limits if limit.value is not None)
        return Quantity(LATENCY, self.slo.routes, over if len(over) == len(self.limits) else ())


@dataclass(frozen=True, slots=True)
class Firing:
    """One time a rule would have fired. Times are Unix seconds.

    since_s: when the breach that led to it was first found (`for` ran from there). end_s: None when it was still firing
    as the release's traffic ended. The verdict is that of the first firing evaluation; worst is the one with the
    highest bad share (or the mean furthest past the limit) while it fired.
    """

    rule: Rule
    release: str
    arm: str
    since_s: float
    start_s: float
    end_s: float | None
    verdict: Verdict
    worst: Verdict


@dataclass(slots=True)
class Lane:
    """One rule on one life of a release: what it would have said. Seconds of each state add up to the judged time."""

    rule: Rule
    life: Life
    ok_s: float = 0.0
    breach_s: float = 0.0
    unknown_s: float = 0.0
    firing_s: float = 0.0
    firings: list[Firing] = field(default_factory=list)
    judged_count: int = 0


def rules_of(
    slos: Sequence[Slo], baseline: Baseline | None = None, previous: Baseline | None = None
) -> tuple[Rule, ...]:
    """Return the rules with their limits. Baselines count as valid for all of the log, whenever they were made.

    A past month is judged by a baseline made after it, or by one that has expired since: what is asked here is what the
    rule says, not whether its baseline is fresh.
    """
    timeless = Known(0.0, _timeless(baseline), _timeless(previous))
    rules = []
    for slo in slos:
        if slo.threshold.form == "previous" and previous is not None:
            hours = (replace(timeless, wall_s=_MONDAY_S + hour * 3600.0) for hour in range(WEEK_HOURS))
            rules.append(Rule(slo, tuple(limit_for(slo, known) for known in hours)))
        else:
            rules.append(Rule(slo, (limit_for(slo, timeless),)))
    return tuple(rules)


def _timeless(baseline: Baseline | None) -> Baseline | None:
    return baseline and replace(baseline, created_wall_s=0.0, expires_wall_s=float("inf"))


def replay(
    traffic: Traffic,
    rules: Sequence[Rule],
    every_s: float = 10.0,
    on_lane: Callable[[Lane], None] = lambda lane: None,
) -> list[Lane]:
    """Return what every rule would have said of every release, evaluated every `every_s` (a multiple of the tick)."""
    lanes = []
    for life in traffic.lives:
        for rule in rules:
            lane = run_lane(traffic, rule, life, every_s)
            on_lane(lane)
            lanes.append(lane)
    return lanes


def moments_of(life: Life, every_s: float, tick_s: float) -> range:
    """Return the moments at which a release is judged: from the one after its first tick to that after its last."""
    step = round(every_s / tick_s)
    first = -(-(life.first + 1) // step) * step
    last = -(-(life.last + 1) // step) * step
    return range(first, last + 1, step)


def run_lane(traffic: Traffic, rule: Rule, life: Life, every_s: float = 10.0) -> Lane:
    """Judge one rule on one life."""
    track = traffic.track(life.release, rule.quantity)
    return run_track(track, rule, life, moments_of(life, every_s, traffic.tick_s), every_s, traffic.tick_s)


def run_track(
    track: Track, rule: Rule, life: Life, moments: range, every_s: float, tick_s: float, *, first_only: bool = False
) -> Lane:
    """Judge one rule on one track at these moments. first_only: stop as the first firing begins."""
    marks = _marks(rule, track, moments, tick_s)
    lane = Lane(rule, life)
    held, place, end = NOT_HELD, 0, len(moments)
    begun: _Open | None = None
    while place < end:
        if held is NOT_HELD:
            found = marks.find(ASK, place)
            until = end if found < 0 else found
            well = marks.count(OK, place, until)
            lane.ok_s += well * every_s
            lane.unknown_s += (until - place - well) * every_s
            place = until
            if place >= end:
                break
        moment = moments[place]
        now_s = moment * tick_s
        was = held
        held, verdict = advance(held, verdict_at(tick_s, rule, life.release, track, moment), now_s)
        lane.judged_count += 1
        _count_state(lane, verdict, every_s)
        if verdict.firing and begun is None:
            since_s = was.since_s if was.since_s is not None else now_s
            begun = _Open(since_s, now_s, verdict, verdict)
            if first_only:
                break
        elif verdict.firing and begun is not None:
            begun.see(verdict)
        elif begun is not None:
            lane.firings.append(begun.closed(rule, life, now_s))
            begun = None
        place += 1
    if begun is not None:
        lane.firings.append(begun.closed(rule, life, None))
    return lane


def verdict_at(tick_s: float, rule: Rule, release: str, track: Track, moment: int) -> Verdict:
    """What `judge` says at a moment. A wall clock stands just before the moment, so its bucket is the last full one."""

    def read(length_s: float) -> Reading:
        return track.reading(reach(moment, length_s, tick_s), moment)

    return judge(rule.slo, release, read, rule.limit_at(_just_before(moment, tick_s)))


def _just_before(moment: int, tick_s: float) -> float:
    return (moment - 1) * tick_s


def _marks(rule: Rule, track: Track, moments: range, tick_s: float) -> bytearray:
    """The sieve; with limits by hour of the week, in runs of moments of one hour."""
    if len(rule.limits) == 1:
        return sieve(rule.slo, rule.limits[0], track, moments, tick_s)
    marks = bytearray()
    for part in _by_hour(moments, tick_s):
        marks += sieve(rule.slo, rule.limit_at(_just_before(part[0], tick_s)), track, part, tick_s)
    return marks


def _by_hour(moments: range, tick_s: float) -> Iterator[range]:
    begin = 0
    for place in range(1, len(moments) + 1):
        if place == len(moments) or (
            _just_before(moments[place], tick_s) // 3600 != _just_before(moments[begin], tick_s) // 3600
        ):
            yield moments[begin:place]
            begin = place


def _count_state(lane: Lane, verdict: Verdict, every_s: float) -> None:
    if verdict.state is State.BREACH:
        lane.breach_s += every_s
    elif verdict.state is State.OK:
        lane.ok_s += every_s
    else:
        lane.unknown_s += every_s
    if verdict.firing:
        lane.firing_s += every_s


@dataclass(slots=True)
class _Open:
    """A firing that goes on."""

    since_s: float
    start_s: float
    verdict: Verdict
    worst: Verdict

    def see(self, verdict: Verdict) -> None:
        if verdict.state is State.BREACH and badness(verdict) > badness(self.worst):
            self.worst = verdict

    def closed(self, rule: Rule, life: Life, end_s: float | None) -> Firing:
        return Firing(
            rule, life.release, life.arm, self.since_s, self.start_s, end_s, self.verdict, self.worst
        )  # fmt: skip


def badness(verdict: Verdict) -> float:
    """How bad a verdict's reading is, to compare two of one rule: the bad share, or the mean, larger is worse."""
    reading = verdict.reading
    if reading is None or not reading.count:
        return 0.0
    indicator = INDICATORS[verdict.slo.indicator]
    if indicator.kind == "mean":
        mean = reading.value_sum / reading.count
        return -mean if indicator.worse == "down" else mean
    return reading.bad_count / reading.count
