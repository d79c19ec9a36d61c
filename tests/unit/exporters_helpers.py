"""A clock set by hand, and a strict reader of both metric text formats."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from slo.clock import HandClock

Labels = tuple[tuple[str, str], ...]


class ManualClock(HandClock):
    """A hand clock that begins in June 2025."""

    def __init__(self, wall_origin_s: float = 1_750_000_000.0) -> None:
        super().__init__(0.0, wall_origin_s)


@dataclass
class Parsed:
    types: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
_SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)\} (\S+)( # \{trace_id="(?:[^"\\]|\\.)*"\} \S+ \S+)?'
)
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("", "_total"), "info": ("_info",), "gauge": ("",)}


def parse_text(body: bytes, *, openmetrics: bool = False) -> Parsed:
    """Parse a scrape and insist on everything the formats demand: order, types, unique series, sound histograms."""
    text = body.decode("utf-8")
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    if openmetrics:
        assert lines.pop() == "# EOF"
    parsed = Parsed()
    family = kind = helped = ""
    for line in lines:
        assert line, "empty line"
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            assert helped not in parsed.types, f"{helped} comes twice"
        elif line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family == helped
            assert kind in _SUFFIXES
            parsed.types[family] = kind
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            name, labels = match[1], _labels(match[2])
            allowed = ("_total",) if openmetrics and kind == "counter" else _SUFFIXES[kind]
            assert name in {family + suffix for suffix in allowed}, f"{name} under {family}"
            assert not match[4] or openmetrics
            assert (name, labels) not in parsed.samples, f"{line} comes twice"
            parsed.samples[name, labels] = float(match[3])
    _check_histograms(parsed)
    return parsed


def _labels(text: str) -> Labels:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        assert match, f"bad labels: {text!r}"
        value = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[2])
        found.append((match[1], value))
        at = match.end()
    assert len({name for name, _ in found}) == len(found)
    return tuple(found)


def _check_histograms(parsed: Parsed) -> None:
    series: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
    for (name, labels), value in parsed.samples.items():
        if name.endswith("_bucket"):
            bound = float(dict(labels)["le"].replace("+Inf", "inf"))
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault((name.removesuffix("_bucket"), rest), []).append((bound, value))
    for (name, rest), buckets in series.items():
        assert buckets == sorted(buckets), f"{name}: bounds or counts fall"
        assert buckets[-1][0] == float("inf")
        assert parsed.samples[f"{name}_count", rest] == buckets[-1][1]
        assert (f"{name}_sum", rest) in parsed.samples
