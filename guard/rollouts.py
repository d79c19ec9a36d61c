"""Recorded rollouts decided again: what the guard would have done with each canary of the log, and when.

Rules are judged on the recorded sums (`slo.replay`), canary and stable are compared by the same counting as live
(`MemorySource` with a trial, fed with every answer), and `slo.actions.decide` decides at every evaluation, until it
rolls back: then the canary would have been gone. The log holds no plan: the weight is the canary's share of the answers
of each hour, and a stage's minimum hold and events count as satisfied, so ADVANCE means that nothing speaks against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.comparing import comparisons
from slo.actions import ReleaseSnapshot, decide, reason_code
from slo.backtest import iso
from slo.clock import HandClock
from slo.evaluation import NOT_HELD, Held, advance
from slo.replay import Rule, moments_of, verdict_at
from slo.sources.memory import MemorySource
from slo.sources.trial import TrialSetup
from slo.traffic import Life, Traffic
from slo.types import Action, ActionKind, Exchange, Verdict
from slo.wording import show_duration


@dataclass(frozen=True, slots=True)
class Decision:
    """The first time that an action with this kind and reason was decided on."""

    wall_s: float
    action: Action

    @property
    def code(self) -> str:
        """First word of the reason."""
        return reason_code(self.action.reason)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One canary of the log beside the stable release of that time."""

    canary: Life
    stable: Life
    begin_s: float
    end_s: float
    decisions: tuple[Decision, ...]

    @property
    def rolled_back_s(self) -> float | None:
        """When it would have been rolled back, Unix seconds."""
        return next((d.wall_s for d in self.decisions if d.action.kind is ActionKind.ROLL_BACK), None)


def pairs_of(traffic: Traffic) -> Iterator[tuple[Life, Life]]:
    """Yield each canary with the stable release that overlaps it longest; canaries without one are left out."""
    for canary in traffic.lives:
        if canary.arm != "canary":
            continue
        beside = [
            (min(canary.last, life.last) - max(canary.first, life.first), life)
            for life in traffic.lives
            if life.arm == "stable" and life.release != canary.release
        ]
        together = [pair for pair in beside if pair[0] >= 0]
        if together:
            yield canary, max(together, key=lambda pair: (pair[0], pair[1].exchange_count))[1]


def decide_rollout(
    traffic: Traffic,
    rules: Sequence[Rule],
    canary: Life,
    stable: Life,
    exchanges: Iterable[Exchange],
    shares: Mapping[int, float],
    every_s: float,
    on_exchange: Callable[[int], None] = lambda count: None,
) -> Rollout:
    """Decide at every evaluation of the canary's life.

    exchanges: of both releases from the begin of that life, in the order in which they ended. shares: the canary's
    share by hour, Unix seconds // 3600.
    """
    tick_s = traffic.tick_s
    clock = HandClock(canary.first * tick_s)
    slos = tuple(rule.slo for rule in rules)
    source = MemorySource(slos, clock, {rule.slo.name: rule.limits[0].value for rule in rules})
    waiting = iter(exchanges)
    upcoming = next(waiting, None)
    held: dict[tuple[str, str], Held] = {}
    decisions: list[Decision] = []
    seen_count = 0
    for moment in moments_of(canary, every_s, tick_s):
        now_s = moment * tick_s
        weight = shares.get(int((now_s - tick_s) // 3600), 0.0)
        source.compare(TrialSetup("rollout", canary.release, stable.release, round(weight, 3)))
        while upcoming is not None and upcoming.wall_s + upcoming.duration_s < now_s:
            clock.at_s = upcoming.wall_s + upcoming.duration_s
            source.served(upcoming)
            source.checked(upcoming)
            seen_count += 1
            if seen_count % 100_000 == 0:
                on_exchange(seen_count)
            upcoming = next(waiting, None)
        clock.at_s = now_s
        ours, theirs = (
            _verdicts(traffic, rules, life, moment, now_s, held) for life in (canary, stable)
        )  # fmt: skip
        compared = comparisons(ours, theirs, source, round(weight, 3), "")
        snapshot = ReleaseSnapshot(has_canary=True, weight=weight, hold_satisfied=True, events_satisfied=True)
        decision = Decision(now_s, decide(compared, theirs, snapshot))
        known = {(d.action.kind, d.code) for d in decisions}
        if (decision.action.kind, decision.code) not in known:
            decisions.append(decision)
        if decision.action.kind is ActionKind.ROLL_BACK:
            break
    return Rollout(canary, stable, canary.first * tick_s, (canary.last + 1) * tick_s, tuple(decisions))


def _verdicts(
    traffic: Traffic, rules: Sequence[Rule], life: Life, moment: int, now_s: float, held: dict[tuple[str, str], Held]
) -> tuple[Verdict, ...]:
    found = []
    for rule in rules:
        key = (life.release, rule.slo.name)
        track = traffic.track(life.release, rule.quantity)
        verdict = verdict_at(traffic.tick_s, rule, life.release, track, moment)
        held[key], verdict = advance(held.get(key, NOT_HELD), verdict, now_s)
        found.append(verdict)
    return tuple(found)


def as_json(rollouts: Sequence[Rollout]) -> list[dict[str, Any]]:
    """Return the rollouts for `--json`."""
    return [
        {
            "canary": one.canary.release,
            "stable": one.stable.release,
            "from": iso(one.begin_s),
            "to": iso(one.end_s),
            "rolled_back": None if one.rolled_back_s is None else iso(one.rolled_back_s),
            "rolled_back_after_s": None if one.rolled_back_s is None else one.rolled_back_s - one.begin_s,
            "decisions": [
                {"at": iso(d.wall_s), "action": d.action.kind.value, "code": d.code, "reason": d.action.reason}
                for d in one.decisions
            ],
        }
        for one in rollouts
    ]


def as_text(rollouts: Sequence[Rollout]) -> str:
    """Return the rollouts as lines."""
    lines = ["", "rollouts:"]
    for one in rollouts:
        lines.append(
            f"  canary {one.canary.release} beside {one.stable.release}, {iso(one.begin_s)} to {iso(one.end_s)}"
        )
        for decision in one.decisions:
            after = show_duration(max(0.0, round(decision.wall_s - one.begin_s)))
            lines.append(f"    after {after}: {decision.action.kind.value}, {decision.action.reason[:300]}")
    if len(lines) == 2:
        lines.append("  none: no canary in the log that a stable release answered beside")
    return "\n".join(lines)
