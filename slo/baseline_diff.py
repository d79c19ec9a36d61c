"""Two baselines side by side: what moved beyond its own uncertainty, and what makes them no comparison at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slo.artefact import Baseline, IndicatorBaseline
from slo.collecting import MEASURES
from slo.metric_names import INDICATORS
from slo.wording import show_duration, show_value


@dataclass(frozen=True, slots=True)
class Change:
    """One statistic of one indicator in both. Units are those inside; intervals are two-sided 95 %.

    apart: the intervals do not overlap. relative: (after - before) / before, None where before is 0.
    """

    indicator: str
    window_s: float
    statistic: str
    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    apart: bool
    relative: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """changes: every statistic that both have. only_in: what just one of them measured. terms: embedder, configuration,
    exclusions and the like that are not the same."""

    changes: tuple[Change, ...]
    only_in: tuple[str, ...]
    terms: tuple[str, ...]

    @property
    def apart(self) -> tuple[Change, ...]:
        """Changes beyond their intervals."""
        return tuple(change for change in self.changes if change.apart)

    @property
    def material(self) -> bool:
        """Whether a person should look: something moved, or the two were not measured alike."""
        return bool(self.apart or self.only_in or self.terms)


def diff(before: Baseline, after: Baseline) -> Difference:
    """Compare statistic by statistic."""
    changes: list[Change] = []
    only_in: list[str] = []
    for name in INDICATORS:
        for window_s in sorted({*before.windows_of(name), *after.windows_of(name)}):
            one, other = before.of(name, window_s), after.of(name, window_s)
            if one and other:
                changes += _changes(one, other)
            else:
                only_in.append(f"{name} over {show_duration(window_s)}: only in the {'first' if one else 'second'}")
    return Difference(tuple(changes), tuple(only_in), tuple(_terms(before, after)))


def _changes(one: IndicatorBaseline, other: IndicatorBaseline) -> Iterator[Change]:
    for name in MEASURES:
        old, new = one.statistic(name), other.statistic(name)
        if old and new:
            yield Change(
                one.indicator, one.window_s, name, old.estimate, new.estimate, (old.low, old.high), (new.low, new.high),
                apart=old.high < new.low or new.high < old.low,
                relative=(new.estimate - old.estimate) / old.estimate if old.estimate else None,
            )  # fmt: skip


def _terms(before: Baseline, after: Baseline) -> Iterator[str]:
    """What differs in how the two were measured; times and counts always do and are no difference."""
    pairs = (
        ("source", before.source, after.source),
        ("embedder", before.embedder, after.embedder),
        ("config", before.config_hash, after.config_hash),
        ("releases", ", ".join(before.releases), ", ".join(after.releases)),
        ("forced", before.forced_reason, after.forced_reason),
        ("kinds left out", *(", ".join(sorted(dict(b.excluded))) for b in (before, after))),
        ("excluded ranges", *(str(len(b.exclusions)) for b in (before, after))),
        ("incidents left out", *(str(len(b.incidents)) for b in (before, after))),
        ("drift references", *(
            ", ".join(f"{d.component} {d.fingerprint}" for d in b.drift) for b in (before, after)
        )),
    )  # fmt: skip
    for what, one, other in pairs:
        if one != other:
            yield f"{what}: {one or 'none'} -> {other or 'none'}"


def show_diff(difference: Difference, *, everything: bool = False) -> str:
    """Return the comparison as text; of the changes only those that are apart unless `everything`."""
    shown = difference.changes if everything else difference.apart
    lines = [f"{len(difference.apart)} of {len(difference.changes)} statistics moved beyond their 95 % intervals"]
    for change in shown:
        indicator = INDICATORS[change.indicator]
        before, after = (
            f"{show_value(indicator, value)} ({show_value(indicator, low)} to {show_value(indicator, high)})"
            for value, (low, high) in (
                (change.before, change.before_interval), (change.after, change.after_interval),
            )
        )  # fmt: skip
        moved = "" if change.relative is None else f", {change.relative:+.1%}"
        mark = "APART" if change.apart else "same "
        over = show_duration(change.window_s)
        lines.append(f"  {mark} {change.indicator} {change.statistic} over {over}: {before} -> {after}{moved}")
    lines += [f"  {text}" for text in difference.only_in]
    if difference.terms:
        lines += ["measured differently:", *(f"  {text}" for text in difference.terms)]
    return "\n".join(lines)
