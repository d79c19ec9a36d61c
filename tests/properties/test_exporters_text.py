"""Whatever was counted comes back out of a scrape, in both formats."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.bounds import LATENCY_BOUNDS_S, merge_bounds
from exporters.exchange_log import ExchangeLog
from exporters.labels import clean
from exporters.prometheus import PrometheusExporter
from exporters.text import number
from slo.codec import decode_exchange
from slo.types import CacheStatus, Exchange, Outcome
from tests.unit.exporters_helpers import ManualClock, parse_text

WORDS = st.text(max_size=30)
EXCHANGES = st.builds(
    Exchange,
    exchange_id=st.just("e"),
    wall_s=st.floats(0, 2e9),
    route=WORDS,
    release=st.sampled_from(["r1", "r2", ""]),
    arm=st.sampled_from(["stable", "canary"]),
    outcome=st.sampled_from(list(Outcome)),
    status=st.integers(0, 599),
    reason=st.sampled_from(["", "throttled"]),
    duration_s=st.floats(0, 100),
    first_token_s=st.none() | st.floats(0, 100),
    overhead_s=st.none() | st.floats(0, 1),
    cache=st.sampled_from(list(CacheStatus)),
    input_tokens=st.none() | st.integers(0, 10_000),
    cost_usd=st.none() | st.floats(0, 10),
    traceparent=WORDS,
)


@given(st.lists(EXCHANGES, max_size=40))
def test_both_formats_show_what_was_counted(exchanges: list[Exchange]) -> None:
    prom = PrometheusExporter("faq-bot", (), 4000, clock=ManualClock())
    for exchange in exchanges:
        prom.served(exchange)
    plain = parse_text(prom.render()).samples
    assert plain == parse_text(prom.render(openmetrics=True), openmetrics=True).samples

    def total(name: str) -> float:
        return math.fsum(value for (found, _), value in plain.items() if found == name)

    timed = [
        e for e in exchanges
        if e.outcome.value in ("ok", "server_error", "timeout", "incomplete") and e.reason != "throttled"
    ]  # fmt: skip
    assert total("sft_availability_requests_total") == len(exchanges)
    assert total("sft_availability_throttled_total") == sum(e.reason == "throttled" for e in exchanges)
    assert total("sft_perf_request_duration_seconds_count") == len(timed)
    assert math.isclose(total("sft_perf_request_duration_seconds_sum"), math.fsum(e.duration_s for e in timed))
    assert math.isclose(total("sft_cost_usd_total"), math.fsum(e.cost_usd or 0.0 for e in exchanges))
    assert total("sft_cost_tokens_total") == sum(e.input_tokens or 0 for e in exchanges)
    routes = {dict(labels).get("route", "") for (name, labels), _ in plain.items() if name.endswith("requests_total")}
    assert routes == {clean(e.route) for e in exchanges}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.lists(st.floats(0.001, 50), max_size=5))
def test_a_bucket_counts_exactly_what_is_not_over_its_bound(values: list[float], thresholds: list[float]) -> None:
    prom = PrometheusExporter("faq-bot", thresholds, 4000, clock=ManualClock())
    for value in values:
        prom.served(Exchange("e", 0.0, "chat", "r1", "stable", Outcome.OK, 200, duration_s=value))
    found = {
        float(dict(labels)["le"].replace("+Inf", "inf")): count
        for (name, labels), count in parse_text(prom.render()).samples.items()
        if name == "sft_perf_request_duration_seconds_bucket"
    }
    assert set(found) == {*merge_bounds(LATENCY_BOUNDS_S, thresholds), math.inf}
    for bound, count in found.items():
        assert count == sum(value <= bound for value in values)


@given(st.floats() | st.integers(-(10**12), 10**12))
def test_a_number_reads_back_the_same(value: float) -> None:
    read = float(number(value).replace("Inf", "inf"))
    assert read == value or (math.isnan(read) and math.isnan(value))


@settings(max_examples=25)
@given(st.lists(st.tuples(EXCHANGES, st.dictionaries(st.sampled_from(["question", "answer"]), WORDS)), max_size=10))
def test_the_exchange_log_gives_back_what_it_was_given(pairs: list[tuple[Exchange, dict[str, str]]]) -> None:
    with TemporaryDirectory() as directory:
        log = ExchangeLog(Path(directory), clock=ManualClock())
        for exchange, text in pairs:
            log.checked(exchange, text)
        assert log.close()
        data = b"".join(path.read_bytes() for path in sorted(Path(directory).iterdir()))
    assert log.dropped_count == {}
    assert [decode_exchange(line) for line in data.splitlines()] == [(e, text or None) for e, text in pairs]
    assert len(data.decode().splitlines()) == len(pairs)
