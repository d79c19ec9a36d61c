"""Exchanges of every kind, and logs of them, for the tests of what reads logs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from slo.codec import encode_exchange
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome
from tests.slo_builders import make_exchange

START_S = 1_750_032_000.0  # Monday 2025-06-16 00:00 UTC

_SCORES = st.one_of(st.none(), st.floats(-1, 1))
_FINDINGS = st.lists(
    st.builds(
        Finding,
        check=st.sampled_from(["grounding", "similarity", "zero_hit", "rules", "pii"]),
        result=st.sampled_from(CheckResult),
        score=_SCORES,
        evidence=st.sampled_from([(), ("\u4e03\u5929", "7 days")]),
    ),
    max_size=5,
    unique_by=lambda finding: finding.check,
)

EXCHANGES = st.builds(
    make_exchange,
    number=st.integers(0, 10**6),
    wall_s=st.floats(START_S, START_S + 3 * 3600),
    route=st.sampled_from(["chat", "ask"]),
    release=st.sampled_from(["r1", "r2"]),
    arm=st.sampled_from(["stable", "canary"]),
    outcome=st.sampled_from(Outcome),
    status=st.sampled_from([0, 200, 399, 400, 429, 500]),
    reason=st.sampled_from(["", "throttled", "idle"]),
    duration_s=st.one_of(st.just(0.0), st.floats(1e-6, 600.0)),
    first_token_s=st.one_of(st.none(), st.floats(0, 10)),
    stream=st.booleans(),
    tenant=st.sampled_from(["", "\u5ba2\u6236"]),
    cache=st.sampled_from(CacheStatus),
    output_tokens=st.one_of(st.none(), st.integers(0, 10**6)),
    cost_usd=st.one_of(st.none(), st.floats(0, 10)),
    findings=_FINDINGS.map(tuple),
)
"""Everything a log may hold: all outcomes, checks that spoke, kept silent or were not there."""


def write_log(path: Path, exchanges: Iterable[Exchange], text: dict[str, object] | None = None) -> Path:
    """One segment of JSON lines."""
    path.write_bytes(b"".join(encode_exchange(exchange, text) + b"\n" for exchange in exchanges))
    return path
