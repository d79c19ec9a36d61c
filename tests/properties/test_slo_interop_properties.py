"""Whatever can be said in both formats comes back as it was, and nothing goes missing without a line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slo.interop import openslo, sloth
from slo.metric_names import INDICATORS
from slo.spec import parse_slo
from slo.types import Slo

RATIOS = [i.name for i in INDICATORS.values() if i.kind == "ratio"]
SPANS = st.sampled_from(["1m", "5m", "90s", "1h", "36h", "7d", "30d"])
SHARES = st.integers(1, 9999).map(lambda n: n / 10_000)


@st.composite
def objective(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kind = draw(st.sampled_from(["ratio", "ratio", "p95", "p99", "mean", "relative"]))
    made: dict[str, Any] = {"name": name, "window": draw(SPANS)}
    if kind == "ratio":
        made |= {"indicator": draw(st.sampled_from(RATIOS)), "threshold": {"absolute": draw(SHARES)}}
    elif kind == "mean":
        made |= {"indicator": "sft_cost_inference_per_request_usd", "threshold": {"absolute": 0.01}}
    elif kind == "relative":
        made |= {"indicator": "sft_quality_hallucination_rate", "threshold": {"baseline": "p95", "factor": 1.5}}
    else:
        limit = draw(st.sampled_from([{"absolute": 500}, {"sla": 2000, "margin": 200}, {"limit": 4300, "factor": 0.7}]))
        made |= {"indicator": f"sft_perf_latency_{kind}_ms", "threshold": limit}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "for": st.just("10m"), "min_events": st.integers(1, 10_000), "keep_firing_for": st.just("5m"),
        "action": st.sampled_from(["track", "page", "shed", "rollback"]), "routes": st.just(["chat", "ask.v1"]),
    }  # fmt: skip
    for word, values in optional.items():
        if draw(st.booleans()):
            made[word] = draw(values)
    return made


@st.composite
def files(draw: st.DrawFn) -> str:
    names = draw(
        st.lists(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,11}", fullmatch=True), min_size=1, max_size=5, unique=True)
    )
    return json.dumps({"service": "faq-bot", "objectives": [draw(objective(name)) for name in names]})


def by_name(text: str) -> dict[str, Slo]:
    """The error probability of the canary test is shared out over the file: it depends on how many there are."""
    return {
        slo.name: replace(slo, canary=replace(slo.canary, alpha=0.01)) if slo.canary else slo
        for slo in parse_slo(text).objectives
    }


@pytest.mark.parametrize("module", [openslo, sloth])
@given(text=files())
@settings(max_examples=60)
def test_out_and_back(module: Any, text: str) -> None:
    before = by_name(text)
    made = module.export(text, "slo.yaml")
    named = {line.split(":")[0] for line in made.left_out}
    assert made.count + len(named) == len(before)  # every objective is there, or named
    if not made.count:
        return
    back = module.read(made.text, "file", {})
    assert back.left_out == ()
    assert by_name(back.text) == {name: slo for name, slo in before.items() if name not in named}
    assert module.export(back.text, "slo.yaml").text == made.text
