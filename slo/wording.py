"""Numbers as people read them: the only place where ms and percent appear in sentences."""

from __future__ import annotations

from slo.metric_names import Indicator

_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


def show_duration(seconds: float) -> str:
    """Return a duration as slo.yaml writes it.

    >>> show_duration(5400), show_duration(2592000), show_duration(0.5)
    ('1h30m', '30d', '0.5s')
    """
    if seconds != int(seconds) or seconds <= 0:
        return f"{seconds:g}s"
    text, rest = "", seconds
    for size, unit in _UNITS:
        whole, rest = divmod(rest, size)
        if whole:
            text += f"{int(whole)}{unit}"
    return text


def show_ratio(ratio: float) -> str:
    """Return a share in percent.

    >>> show_ratio(0.05), show_ratio(0.999), show_ratio(0.0812345)
    ('5 %', '99.9 %', '8.123 %')
    """
    return f"{round(ratio * 100, 3):g} %"


def show_value(indicator: Indicator, value: float | None) -> str:
    """Return a value of an indicator in its border unit: percent, ms or USD; scores stay plain numbers.

    >>> from slo.metric_names import INDICATORS
    >>> show_value(INDICATORS["sft_perf_latency_p95_ms"], 3.01), show_value(INDICATORS["sft_perf_latency_p95_ms"], None)
    ('3010 ms', 'unknown')
    """
    if value is None:
        return "unknown"
    if indicator.unit == "seconds":
        return f"{round(value * 1000, 1):g} ms"
    if indicator.unit == "usd":
        return f"{value:.6g} USD"
    return show_ratio(value) if indicator.kind == "ratio" else f"{value:.4g}"
