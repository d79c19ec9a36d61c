"""Total cost of ownership of each option, and the volume at which a fixed cost beats one per token. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from slo.economics.formulas import MILLION, breakeven_tokens
from slo.economics.scenario import Option, Scenario
from slo.errors import ConfigError

EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class Tco:
    """USD a month of one option at the scenario's volume, (low, high); with_people_usd None: no people are named."""

    option: str
    usd: tuple[float, float]
    with_people_usd: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Tokens a month from which `option` is cheaper than `against`, (low, high).

    basis: without_people | with_people | rounded (the costs as the scenario's source rounds them).
    """

    option: str
    against: str
    basis: str
    usd_per_month: tuple[float, float]
    tokens_per_month: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything `cost breakeven` says. recommendation: an option's name, or `evaluate`."""

    tokens_per_month: float
    tco: tuple[Tco, ...]
    break_evens: tuple[BreakEven, ...]
    recommendation: str
    reason: str


def compare(scenario: Scenario, *, tokens_per_month: float | None = None, data_may_leave: bool = True) -> Comparison:
    """Compare the options of a scenario at a volume (default: the scenario's own).

    Raises:
        ConfigError: the scenario names no volume, or no options to compare.
    """
    volume = scenario.tokens_per_month if tokens_per_month is None else tokens_per_month
    if volume is None:
        raise ConfigError("tokens_per_month", None, "write it in the scenario, or give --tokens-per-month")
    per_token = [o for o in scenario.options if o.kind == "per_token"]
    fixed = [o for o in scenario.options if o.kind == "fixed"]
    if not per_token or not fixed:
        raise ConfigError("options", [o.name for o in scenario.options], "name one per_token and one fixed option")
    tco = tuple(_tco(option, volume, scenario.fte_usd_per_month) for option in scenario.options)
    points = tuple(point for option in fixed for point in _points(option, per_token[0], scenario.fte_usd_per_month))
    recommendation, reason = recommend(scenario, volume, data_may_leave)
    return Comparison(volume, tco, points, recommendation, reason)


def recommend(scenario: Scenario, tokens_per_month: float, data_may_leave: bool) -> tuple[str, str]:
    """Return (option or `evaluate`, why) by the volume bands of the scenario; data that may not leave overrides."""
    own = next((o.name for o in scenario.options if o.kind == "fixed"), "own-gpu")
    if not data_may_leave:
        return own, "the data may not leave, which overrides volume"
    for name, up_to in sorted(scenario.recommend_up_to_tokens_per_month.items(), key=lambda item: item[1]):
        if tokens_per_month < up_to:
            return name, f"{_millions(tokens_per_month)} tokens a month are below {_millions(up_to)}"
    return own, f"{_millions(tokens_per_month)} tokens a month are above every band of the scenario"


def _tco(option: Option, volume: float, fte_usd: float) -> Tco:
    low, high = option.fixed_range
    by_token = volume / MILLION * option.usd_per_1m_tokens
    low, high = low + by_token, high + by_token
    people = None if option.fte is None else (low + option.fte[0] * fte_usd, high + option.fte[1] * fte_usd)
    return Tco(option.name, (low, high), people)


def _points(option: Option, against: Option, fte_usd: float) -> list[BreakEven]:
    low, high = option.fixed_range
    bases = {"without_people": (low, high)}
    if option.fte is not None:
        bases["with_people"] = (low + option.fte[0] * fte_usd, high + option.fte[1] * fte_usd)
    if option.rounded_usd_per_month is not None:
        bases["rounded"] = option.rounded_usd_per_month
    other = against.fixed_range[1]
    found = []
    for basis, usd in bases.items():
        tokens = (
            breakeven_tokens(usd[0], other, against.usd_per_1m_tokens),
            breakeven_tokens(usd[1], other, against.usd_per_1m_tokens),
        )
        found.append(BreakEven(option.name, against.name, basis, usd, tokens))
    return found


def _millions(tokens: float) -> str:
    return f"{tokens / MILLION:,.0f}M"
