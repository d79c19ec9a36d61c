"""What measured traffic cost: sums by release, tenant and model, by day, against the budget. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from slo.economics.formulas import forecast_usd

DAYS_PER_MONTH = 365.25 / 12
OTHER = "(other)"
"""Tenants and models beyond those that keep a name of their own."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A day's sum of one release, tenant and model. day: days since 1970 (UTC).

    request_count: all exchanges; hit_count: those answered from the cache. priced_count: those with a known cost.
    good_count: answered, and not found to lack support.
    """

    day: int
    release: str
    tenant: str
    model: str
    usd: float
    request_count: int
    hit_count: int
    priced_count: int
    good_count: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Share:
    """One line of a table. usd_per_good_answer: None without a good answer."""

    name: str
    usd: float
    share_ratio: float
    request_count: int
    hit_ratio: float
    usd_per_request: float
    usd_per_good_answer: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """USD of a month at the present pace, with a 90 % interval; state: within | at_risk | over | unknown.

    within: the high bound is inside the budget. at_risk: the interval holds the budget. over: even the low bound is
    past it. unknown: no budget, or too few days for an interval.
    """

    low_usd: float
    expected_usd: float
    high_usd: float
    budget_usd: float | None
    state: str


@dataclass(frozen=True, slots=True)
class Spending:
    """Everything `cost report` says."""

    day_count: int
    usd: float
    request_count: int
    unpriced_count: int
    by_release: tuple[Share, ...]
    by_tenant: tuple[Share, ...]
    by_model: tuple[Share, ...]
    daily_usd: tuple[tuple[int, float], ...]
    forecast: Forecast | None
    alerts: tuple[str, ...] = ()


def summarise(rows: Iterable[Spent], *, budget_usd: float | None = None) -> Spending:
    """Sum the rows up. The first and the last day are partial as a rule, so the forecast uses the days between them."""
    rows = list(rows)
    daily: dict[int, float] = defaultdict(float)
    for row in rows:
        daily[row.day] += row.usd
    days = [(day, daily.get(day, 0.0)) for day in range(min(daily), max(daily) + 1)] if daily else []
    whole = [usd for _, usd in (days[1:-1] if len(days) > 2 else days)]
    forecast = _forecast(whole, budget_usd) if whole else None
    unpriced = sum(row.request_count - row.hit_count - row.priced_count for row in rows)
    return Spending(
        day_count=len(days),
        usd=sum(row.usd for row in rows),
        request_count=sum(row.request_count for row in rows),
        unpriced_count=max(0, unpriced),
        by_release=_shares(rows, "release"),
        by_tenant=_shares(rows, "tenant"),
        by_model=_shares(rows, "model"),
        daily_usd=tuple(days),
        forecast=forecast,
        alerts=_alerts(forecast),
    )


def _forecast(daily_usd: list[float], budget_usd: float | None) -> Forecast:
    low, expected, high = forecast_usd(daily_usd, DAYS_PER_MONTH)
    if budget_usd is None or len(daily_usd) < 2:
        state = "unknown"
    elif low > budget_usd:
        state = "over"
    else:
        state = "within" if high <= budget_usd else "at_risk"
    return Forecast(low, expected, high, budget_usd, state)


def _alerts(forecast: Forecast | None) -> tuple[str, ...]:
    if forecast is None or forecast.state not in ("over", "at_risk"):
        return ()
    word = "will be" if forecast.state == "over" else "may be"
    return (
        f"the budget of {forecast.budget_usd:g} USD a month {word} exceeded: {forecast.expected_usd:.2f} USD expected "
        f"({forecast.low_usd:.2f} to {forecast.high_usd:.2f})",
    )


def _shares(rows: list[Spent], key: str) -> tuple[Share, ...]:
    grouped: dict[str, list[Spent]] = defaultdict(list)
    for row in rows:
        grouped[getattr(row, key)].append(row)
    total = sum(row.usd for row in rows)
    shares = []
    for name, group in grouped.items():
        usd, count = sum(r.usd for r in group), sum(r.request_count for r in group)
        good = sum(r.good_count for r in group)
        shares.append(
            Share(
                name=name or "(none)",
                usd=usd,
                share_ratio=usd / total if total else 0.0,
                request_count=count,
                hit_ratio=sum(r.hit_count for r in group) / count if count else 0.0,
                usd_per_request=usd / count if count else 0.0,
                usd_per_good_answer=usd / good if good else None,
            )
        )
    return tuple(sorted(shares, key=lambda share: (-share.usd, share.name)))
