"""What the guard did during a simulation, for tests and tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from guard.release.state import Effects, Phase, ReleaseState
from slo.actions import reason_code
from slo.types import Action, ActionKind, State, Verdict


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that was done, or first wanted, at `t_s` of the simulation.

    kind: rollback, shed, promoted, advanced, drained, alert, or hold (the reason to hold changed). code: first word of
    the reason. canary: name of the version in question. rules: objectives that led to it.
    """

    t_s: float
    kind: str
    code: str
    canary: str
    weight: float
    rules: tuple[str, ...]
    reason: str
    verdicts: tuple[Verdict, ...] = ()


@dataclass(slots=True)
class Record:
    """All deeds, and counters that need no list.

    evaluations: verdicts asked for with a release that could be rolled back. held_s: seconds by reason to hold while a
    canary was in traffic. first_breach_s: rule -> when it first fired on the release in question.
    """

    deeds: list[Deed] = field(default_factory=list)
    ticks: int = 0
    evaluations: int = 0
    held_s: dict[str, float] = field(default_factory=dict)
    first_breach_s: dict[str, float] = field(default_factory=dict)
    _said: tuple[str, ...] = ()

    def of(self, *kinds: str) -> list[Deed]:
        """Deeds of these kinds, in order."""
        return [deed for deed in self.deeds if deed.kind in kinds]

    def first(self, *kinds: str) -> Deed | None:
        """The first deed of these kinds."""
        return next((deed for deed in self.deeds if deed.kind in kinds), None)

    def note(
        self, t_s: float, step_s: float, before: ReleaseState, after: ReleaseState, action: Action, effects: Effects,
        verdicts: tuple[Verdict, ...],
    ) -> None:  # fmt: skip
        """Keep one tick."""
        self.ticks += 1
        rules = tuple(dict.fromkeys(v.slo.name for v in action.verdicts))
        code = reason_code(action.reason)
        self._count(t_s, step_s, before, action, code, rules, verdicts)
        for kind in _kinds(before, after, action, effects):
            name = before.canary or before.stable
            self.deeds.append(Deed(t_s, kind, code, name, after.canary_ratio, rules, action.reason, action.verdicts))
        said = (code, *rules) if code in ("breach", "shared_upstream", "no_target", "after_promotion") else (code,)
        if action.kind is ActionKind.HOLD and said != self._said:
            weight = after.canary_ratio
            self.deeds.append(Deed(t_s, "hold", code, before.canary, weight, rules, action.reason, action.verdicts))
        self._said = said if action.kind is ActionKind.HOLD else ()

    def _count(
        self, t_s: float, step_s: float, before: ReleaseState, action: Action, code: str, rules: tuple[str, ...],
        verdicts: tuple[Verdict, ...],
    ) -> None:  # fmt: skip
        if before.in_traffic or (before.phase is Phase.PROMOTED and before.previous):
            self.evaluations += len(verdicts)
        if before.in_traffic and action.kind is ActionKind.HOLD:
            cause = f"{code}: {', '.join(rules)}" if code in ("unknown", "pending", "breach", "kept") else code
            self.held_s[cause] = self.held_s.get(cause, 0.0) + step_s
        for verdict in verdicts:
            if verdict.firing and verdict.state is State.BREACH:
                self.first_breach_s.setdefault(verdict.slo.name, t_s)


def _kinds(before: ReleaseState, after: ReleaseState, action: Action, effects: Effects) -> list[str]:
    kinds = ["alert" for _ in effects.alerts]
    if effects.rollback is not None:
        kinds.append("rollback")
    elif effects.promoted:
        kinds.append("promoted")
    elif action.kind is ActionKind.SHED and effects.exposure:
        kinds.append("shed")
    elif effects.exposure and after.canary_ratio > before.canary_ratio:
        kinds.append("advanced")
    elif effects.exposure and before.in_traffic and not after.in_traffic:
        kinds.append("drained")
    return kinds
