"""The incomplete beta integral in the log domain: safe from one event to a million. Pure Python, no library."""

from __future__ import annotations

from math import exp, inf, lgamma, log, log1p

_TINY = 1e-300
_EXACT = 1e-14
_MAX_STEPS = 100_000


def log_beta(a: float, b: float) -> float:
    """Return log B(a, b), a and b > 0.

    >>> round(log_beta(2.0, 3.0), 6) == round(log(1 / 12), 6)
    True
    """
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def log_upper_beta(a: float, b: float, limit: float) -> float:
    """Return the log of the integral of x^(a-1) (1-x)^(b-1) over (limit, 1); a, b > 0, limit in [0, 1].

    -inf at limit 1. Relative accuracy about 1e-9 up to a million events, also where the integral underflows.

    Source:
        Press, Teukolsky, Vetterling, Flannery (2007), Numerical Recipes, 3rd ed., section 6.4: continued fraction by
        Lentz's method, taken from the side on which it converges fast.

    >>> round(exp(log_upper_beta(1.0, 1.0, 0.25)), 6), round(exp(log_upper_beta(2.0, 1.0, 0.5)), 6)
    (0.75, 0.375)
    """
    if limit <= 0.0:
        return log_beta(a, b)
    if limit >= 1.0:
        return -inf
    ends = a * log(limit) + b * log1p(-limit)
    if limit > (a + 1.0) / (a + b + 2.0):
        return ends - log(b) + log(_fraction(b, a, 1.0 - limit))
    whole = log_beta(a, b)
    below = ends - log(a) + log(_fraction(a, b, limit))
    return whole + log1p(-exp(min(0.0, below - whole)))


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), for x below about (a + 1) / (a + b + 2).

    The hot loop of every comparison, some dozens of turns of it each: written out, without calls.
    """
    tiny, both, above = _TINY, a + b, a + 1.0
    d = 1.0 - both * x / above
    c, d = 1.0, 1.0 / (d if d > tiny or d < -tiny else tiny)
    value = d
    for m in range(1, _MAX_STEPS):
        place = a + 2 * m
        even = m * (b - m) * x / ((place - 1.0) * place)
        d = 1.0 + even * d
        d = 1.0 / (d if d > tiny or d < -tiny else tiny)
        c = 1.0 + even / c
        c = c if c > tiny or c < -tiny else tiny
        value *= d * c
        odd = -(a + m) * (both + m) * x / (place * (place + 1.0))
        d = 1.0 + odd * d
        d = 1.0 / (d if d > tiny or d < -tiny else tiny)
        c = 1.0 + odd / c
        c = c if c > tiny or c < -tiny else tiny
        step = d * c
        value *= step
        if -_EXACT < step - 1.0 < _EXACT:
            break
    return value
