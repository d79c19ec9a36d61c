"""Pieces of PromQL and the names of recorded series. Pure text.

    sft:slo_events:step      events of one evaluation interval
    sft:slo_events:sum1h     events of a window: the sum of its steps
    sft:slo_bad_ratio:ratio1h, :wilson_lower1h, :surely1m (the bound that a fast path asks for)
    sft:slo_mean:mean1h, :low1h, :high1h
    sft:slo_burn_rate:1h     how many times too fast the error budget burns
    sft:slo_breach:value     present while an objective is breached, as the sidecar would say at this moment
    sft:slo_fast:value       the same of its fast path

Why steps and not increase(): increase() extrapolates to the borders of its range. With a 15 s scrape that turns 25 of
100 events of a minute into 33 of 133, and of a series that is younger than the window it knows less than was counted.
A step is the plain difference of two samples; the steps of a window add up to exactly what was counted between its
ends, a counter that began again included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slo.statistics import Z_95

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
BY = "service, release, slo, life"
GAP_S = 300.0
"""A scrape may be missing this long before what was counted meanwhile is given up: the staleness of Prometheus."""


def duration(seconds: float) -> str:
    """Return a Prometheus duration, exact to the millisecond.

    >>> duration(3600), duration(5400), duration(0.333), duration(3599.999)
    ('1h', '1h30m', '333ms', '59m59s999ms')
    """
    rest, text = round(seconds * 1000), ""
    for unit, size_ms in _UNITS_MS:
        whole, rest = divmod(rest, size_ms)
        if whole:
            text += f"{whole}{unit}"
    return text or "0s"


def number(value: float) -> str:
    """Return a number as PromQL reads it back.

    >>> number(400.0), number(0.05), number(1e-07)
    ('400', '0.05', '1e-07')
    """
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def selector(name: str, labels: Mapping[str, str]) -> str:
    """Return a series selector; a value that begins with `=~` is a regular expression.

    >>> selector("up", {"job": "guard", "slo": "=~a|b"})
    'up{job="guard",slo=~"a|b"}'
    """
    parts = []
    for label, value in labels.items():
        operator, text = ("=~", value[2:]) if value.startswith("=~") else ("=", value)
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'{label}{operator}"{escaped}"')
    return f"{name}{{{','.join(parts)}}}"


def one_of(names: Iterable[str]) -> str:
    """Return the regular expression of a few names, for `selector`."""
    return "=~" + "|".join(name.replace(".", "\\.") for name in names)


def step(counter: str, every_s: float, late_s: float) -> str:
    """Return what a counter grew by in one evaluation interval, exact over restarts and missed scrapes.

    late_s: how old the newest sample used is; one that is being written at the moment of the evaluation would be
    missed by this step and by the next.
    """
    now = f"{counter} offset {duration(late_s)}"
    before = f"last_over_time({counter}[{duration(GAP_S)}] offset {duration(every_s + late_s)})"
    grown = f"({now} - {before}) >= 0"
    began_again = f"{now} < {before}"
    return f"sum by ({BY}) (\n  ({grown})\n  or ({began_again})\n)"


def window_sum(series: str, window_s: float, every_s: float) -> str:
    """Return the sum of the steps of a window, rounded up to whole steps.

    The range is a millisecond short because Prometheus 2 includes both ends of a range and Prometheus 3 only one.
    """
    steps = -(-window_s // every_s)
    return f"sum_over_time({series}[{duration(steps * every_s - 0.001)}])"


def wilson_lower(ratio: str, count: str, z: float = Z_95) -> str:
    """Return the one-sided lower bound of a share at `z`; the formula of `slo.statistics.wilson_lower`."""
    z2 = number(z * z)
    spread = f"sqrt({ratio} * (1 - {ratio}) / {count} + {z2} / (4 * {count} * {count}))"
    return f"(\n  {ratio} + {z2} / (2 * {count})\n  - {number(z)} * {spread}\n)\n/ (1 + {z2} / {count})"


def student_half_width(value_sum: str, squares: str, count: str) -> str:
    """Return the half width of the one-sided 95 % bound of a mean; the formula of `slo.statistics.mean_interval`.

    Student's t is expanded in 1 / degrees of freedom (Abramowitz and Stegun 26.7.5), whose terms are constants here.
    """
    z, f = Z_95, f"({count} - 1)"
    z2 = z * z
    terms = (
        z * (z2 + 1) / 4,
        z * (5 * z2**2 + 16 * z2 + 3) / 96,
        z * (3 * z2**3 + 19 * z2**2 + 17 * z2 - 15) / 384,
        z * (79 * z2**4 + 776 * z2**3 + 1482 * z2**2 - 1920 * z2 - 945) / 92160,
    )
    t = " + ".join([number(z), *(f"{number(term)} / {f} ^ {power + 1}" for power, term in enumerate(terms))])
    variance = f"clamp_min(({squares} - {value_sum} * {value_sum} / {count}) / {f}, 0)"
    return f"({t})\n* sqrt({variance} / {count})"
