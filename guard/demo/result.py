"""What a run of the demo found, for machines and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guard.demo.ledger import ArmTruth

MIN_CANARY_ANSWERS = 100
"""Fewer answers of a healthy canary prove nothing about false alarms."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline. at_s: seconds since the demo began."""

    at_s: float
    what: str


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm while both were in traffic. judged_count, hallucination_ratio: what the guard measured; truth: the
    demo's own count."""

    release: str
    judged_count: int
    hallucination_ratio: float | None
    truth: ArmTruth


@dataclass(frozen=True, slots=True)
class DemoResult:
    """detected_after_s: from the canary's first bad answer to the verdict, None without either."""

    seed: int
    incident: bool
    rolled_back: bool
    detected_after_s: float | None
    webhook_verified: bool
    stable_rolled_back: bool
    next_from_stable: bool
    incident_id: str
    reason: str
    recovery: str  # whether the rollback helped, by the guard's own measure: recovered | not_recovered | unknown | ...
    asked_count: int
    turned_away_count: int
    stable: ArmResult
    canary: ArmResult
    duration_s: float
    timeline: tuple[Moment, ...]
    directory: str = ""

    @property
    def as_expected(self) -> bool:
        """The fault was found, proved and undone; or, without one, nothing was rolled back on enough answers."""
        if self.stable_rolled_back:
            return False
        if self.incident:
            return self.rolled_back and self.webhook_verified and self.next_from_stable
        return not self.rolled_back and self.canary.truth.answers_count >= MIN_CANARY_ANSWERS

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`; ratios with four digits."""
        document = asdict(self)
        for name in ("stable", "canary"):
            arm: ArmResult = getattr(self, name)
            document[name]["hallucination_ratio"] = _rounded(arm.hallucination_ratio)
            document[name]["truth"] |= {
                "invented_ratio": _rounded(arm.truth.invented_ratio),
                "bad_ratio": _rounded(arm.truth.bad_ratio),
            }
        document["detected_after_s"] = None if self.detected_after_s is None else round(self.detected_after_s, 1)
        return document | {"as_expected": self.as_expected, "duration_s": round(self.duration_s, 1)}

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [self._headline()]
        for name, arm in (("stable", self.stable), ("canary", self.canary)):
            truth = arm.truth
            lines.append(
                f"  {name}: {truth.answers_count} answers, hallucination {_percent(arm.hallucination_ratio)} as the "
                f"guard measured ({arm.judged_count} judged), {_percent(truth.invented_ratio)} invented by our count"
            )
        if self.rolled_back:
            lines.append(f"  why: {self.reason}")
            lines.append(f"  did it help: {self.recovery.replace('_', ' ') or 'not asked'}")
            verified = "verified" if self.webhook_verified else "NOT VERIFIED"
            after = "from stable" if self.next_from_stable else "NOT ALL FROM STABLE"
            lines.append(f"  webhook signature {verified}; the next answers come {after}; incident {self.incident_id}")
        if self.turned_away_count:
            lines.append(f"  {self.turned_away_count} questions were not asked: this machine is too slow for the rate")
        arms = (self.stable, self.canary)
        answers = sum(arm.truth.answers_count - arm.truth.failed_count for arm in arms)
        judged = sum(arm.judged_count for arm in arms)
        if not self.as_expected and judged < answers / 2:
            lines.append(
                f"  the checks came to {judged} of {answers} answers only, so the rules stayed unknown: this machine "
                "is too busy; stop what else runs, or ask less with --rate and give it longer with --max-seconds"
            )
        if self.directory:
            lines.append(f"  kept in {self.directory}")
        return "\n".join(lines)

    def _headline(self) -> str:
        if self.stable_rolled_back:
            return "NOT AS EXPECTED: stable was rolled back"
        if self.rolled_back and self.detected_after_s is not None:
            found = f"the canary was rolled back {self.detected_after_s:.0f} s after its first bad answer"
            return found if self.incident else f"NOT AS EXPECTED: {found}, and it was healthy"
        if self.rolled_back:
            return "NOT AS EXPECTED: the canary was rolled back before it gave a bad answer"
        return (
            "NOT AS EXPECTED: the bad canary was not rolled back" if self.incident else "no rollback, as it should be"
        )


def _percent(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{100 * ratio:.1f} %"


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)
