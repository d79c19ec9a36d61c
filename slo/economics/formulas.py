"""The cost formulas of the practice, one function each. Pure; USD, tokens, hours, months.

Prices are USD per 1M tokens everywhere inside. The practice's own table is written per 1k tokens; the scenario file
names its unit and is converted once, where it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, sqrt
from statistics import fmean, stdev

MILLION = 1e6
HOURS_PER_DAY = 24.0
MB_PER_GB = 1000.0
Z_90 = 1.645


def tokens_usd(tokens: float, usd_per_1m: float) -> float:
    """Return the price of some tokens.

    >>> round(tokens_usd(10_000 * 300, usd_per_1m=20.0), 6)  # first embedding of the practice, 0.02 USD per 1k
    60.0
    """
    return tokens * usd_per_1m / MILLION


def inference_usd(
    input_tokens: float, output_tokens: float, input_usd_per_1m: float, output_usd_per_1m: float
) -> float:
    """Return the cost of one inference.

    >>> round(2000 * inference_usd(50 + 900, 250, 150.0, 600.0), 6)  # a day of the practice
    585.0
    """
    return tokens_usd(input_tokens, input_usd_per_1m) + tokens_usd(output_tokens, output_usd_per_1m)


def cached_usd(usd: float, hit_ratio: float) -> float:
    """Return what remains to pay when `hit_ratio` of the requests is answered from a cache.

    >>> round(cached_usd(585.0, 0.6), 6), round(585.0 - cached_usd(585.0, 0.6), 6)
    (234.0, 351.0)
    """
    return usd * (1.0 - hit_ratio)


def gpu_usd(hours: float, usd_per_hour: float) -> float:
    """Return the price of GPU time.

    >>> gpu_usd(4.0, 3.5)  # a LoRA training of the practice on an A10
    14.0
    """
    return hours * usd_per_hour


def storage_usd_per_month(size_gb: float, usd_per_gb_month: float) -> float:
    """Return the monthly price of what is kept.

    >>> storage_usd_per_month(15 / MB_PER_GB, 0.10)
    0.0015
    """
    return size_gb * usd_per_gb_month


def canary_usd(
    requests_per_day: float, hours: float, weight: float, canary_usd_per_request: float, stable_usd_per_request: float
) -> float:
    """Return what a canary costs more than the stable release would have, over its life.

    Requests are whole: the practice's 33.3 requests at 11 cents are 3.63 USD.

    >>> round(canary_usd(2000, 2, 0.2, 0.40, 0.29), 6)
    3.63
    """
    # 33.333333333333336 must be 33, and 239.99999999999997 must be 240.
    requests = floor(requests_per_day * hours / HOURS_PER_DAY * weight + 1e-9)
    return requests * (canary_usd_per_request - stable_usd_per_request)


def breakeven_tokens(fixed_usd_per_month: float, other_fixed_usd_per_month: float, other_usd_per_1m: float) -> float:
    """Return the tokens a month above which a fixed cost is cheaper than one per token.

    Negative or zero: the fixed cost is cheaper from the first token on.

    >>> breakeven_tokens(469, 25, 3.0) / MILLION  # own GPU without people against a cloud fine-tune
    148.0

    Raises:
        ZeroDivisionError: the other side costs nothing per token, so there is no such point.
    """
    return (fixed_usd_per_month - other_fixed_usd_per_month) / other_usd_per_1m * MILLION


def forecast_usd(daily_usd: Sequence[float], days: float) -> tuple[float, float, float]:
    """Return (low, expected, high) of what the next `days` cost: a 90 % prediction interval from daily sums.

    Days are taken as independent draws with the variance seen so far: the sum of n days has the standard error of its
    own noise and of the mean's, s * sqrt(n + n^2 / m) for m days seen. With fewer than two days there is no spread to
    tell, so the bounds are 0 and infinity.

    Source: prediction interval of a sum under a normal model, e.g. Hahn and Meeker, Statistical Intervals, 1991, 4.6.

    >>> forecast_usd([10.0, 10.0, 10.0], 30)
    (300.0, 300.0, 300.0)
    """
    if not daily_usd:
        raise ValueError("no day to forecast from")
    expected = fmean(daily_usd) * days
    if len(daily_usd) < 2:
        return 0.0, expected, float("inf")
    error = Z_90 * stdev(daily_usd) * sqrt(days + days * days / len(daily_usd))
    return max(0.0, expected - error), expected, expected + error
