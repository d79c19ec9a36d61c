"""What a scrape says, byte for byte, and what can never get into it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import replace

import psutil
import pytest

from exporters.bounds import LATENCY_BOUNDS_S, merge_bounds
from exporters.labels import clean, closed_set
from exporters.prometheus import PrometheusExporter
from exporters.text import wants_openmetrics
from guard.rule_counters import objective_rows
from slo.metric_names import INDICATORS, METRICS
from slo.sources.memory import MemorySource
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome
from tests.slo_builders import AVAILABILITY, COST, HALLUCINATION, P95, SIMILARITY, make_slo
from tests.unit.exporters_helpers import ManualClock, parse_text

EXCHANGE = Exchange(
    "e1", 1_750_000_000.0, "chat", "abc123def456", "stable", Outcome.OK, 200,
    duration_s=0.8, first_token_s=0.2, overhead_s=0.0003, stream=True, cache=CacheStatus.MISS,
    input_tokens=900, output_tokens=250, usage="reported", cost_usd=0.25,
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)  # fmt: skip
FIVE_INDICATORS = (AVAILABILITY, COST, HALLUCINATION, P95, SIMILARITY)
FINDINGS = (
    Finding("grounding", CheckResult.FAIL, 0.35),
    Finding("zero_hit", CheckResult.PASS),
    Finding("pii", CheckResult.SKIPPED),
)


def exchange(**changes: object) -> Exchange:
    return replace(EXCHANGE, **changes)  # type: ignore[arg-type]


def exporter(**options: object) -> PrometheusExporter:
    options.setdefault("clock", ManualClock())
    return PrometheusExporter("faq-bot", (), **options)  # type: ignore[arg-type]


def lines_of(text: bytes, *names: str) -> list[str]:
    return [line for line in text.decode().splitlines() if line.startswith(names)]


def test_a_scrape_of_one_exchange_is_exactly_this() -> None:
    prom = exporter(max_series=4000)
    prom.served(EXCHANGE)
    prom.checked(exchange(findings=FINDINGS), {"retrieval_s": 0.3})
    counters = lines_of(
        prom.render(),
        "sft_availability", "sft_cost", "sft_cache", "sft_quality_checks", "sft_quality_retr", "sft_guard",
        "sft_perf_request_duration_seconds_sum", "sft_perf_time_to_first_token_seconds_count",
        "sft_perf_overhead_seconds_sum", "sft_perf_retrieval_duration_seconds_sum", "sft_quality_score_sum",
        'sft_perf_request_duration_seconds_bucket{service="faq-bot",route="chat",release="abc123def456",cache="miss",'
        'le="0.75"', 'sft_perf_request_duration_seconds_bucket{service="faq-bot",route="chat",release="abc123def456",'
        'cache="miss",le="1.0"',
    )  # fmt: skip
    release = 'service="faq-bot",release="abc123def456"'
    routed = 'service="faq-bot",route="chat",release="abc123def456"'
    assert counters == [
        f'sft_availability_requests_total{{{routed},outcome="ok",cache="miss"}} 1',
        f'sft_perf_request_duration_seconds_bucket{{{routed},cache="miss",le="0.75"}} 0',
        f'sft_perf_request_duration_seconds_bucket{{{routed},cache="miss",le="1.0"}} 1',
        f'sft_perf_request_duration_seconds_sum{{{routed},cache="miss"}} 0.8',
        f"sft_perf_time_to_first_token_seconds_count{{{routed}}} 1",
        f"sft_perf_retrieval_duration_seconds_sum{{{release}}} 0.3",
        'sft_perf_overhead_seconds_sum{service="faq-bot",phase="total"} 0.0003',
        f'sft_quality_checks_total{{{release},check="grounding",result="fail"}} 1',
        f'sft_quality_checks_total{{{release},check="pii",result="skipped"}} 1',
        f'sft_quality_checks_total{{{release},check="zero_hit",result="pass"}} 1',
        f'sft_quality_score_sum{{{release},check="grounding"}} 0.35',
        f'sft_quality_retrievals_total{{{release},result="hit"}} 1',
        f"sft_cost_usd_total{{{release}}} 0.25",
        f"sft_cost_inferences_total{{{release}}} 1",
        f'sft_cost_tokens_total{{{release},type="input"}} 900',
        f'sft_cost_tokens_total{{{release},type="output"}} 250',
        f'sft_cache_lookups_total{{{release},result="miss"}} 1',
        'sft_guard_series_dropped_total{service="faq-bot"} 0',
        'sft_guard_uptime_seconds{service="faq-bot"} 0',
    ]


def test_both_formats_parse_and_agree() -> None:
    prom = exporter()
    prom.served(EXCHANGE)
    prom.gauge_source(lambda: [("sft_guard_config_info", {"hash": "cafe"}, 1.0)])
    plain, open_text = prom.render(), prom.render(openmetrics=True)
    text, openmetrics = parse_text(plain), parse_text(open_text, openmetrics=True)
    assert open_text.endswith(b"# EOF\n")
    assert text.types["sft_availability_requests_total"] == "counter"
    assert openmetrics.types["sft_availability_requests"] == "counter"
    assert openmetrics.types["sft_guard_config"] == "info"
    assert text.samples == openmetrics.samples
    assert "# {trace_id=" not in plain.decode()
    assert '# {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.8 1750000000.800' in open_text.decode()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)
def test_openmetrics_is_spoken_only_when_it_is_preferred(accept: str, expected: bool) -> None:
    assert wants_openmetrics(accept) is expected


def test_latency_thresholds_of_the_slo_file_become_bounds() -> None:
    assert merge_bounds((0.5, 1.0), (4.3 * 0.7, 1.8, 1.0)) == (0.5, 1.0, 1.8, 3.01)
    prom = PrometheusExporter("faq-bot", (4.3 * 0.7, 1.8), clock=ManualClock())
    prom.served(exchange(duration_s=1.8))
    prom.served(exchange(duration_s=1.8000001))
    samples = parse_text(prom.render()).samples
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "sft_perf_request_duration_seconds_bucket"
    }
    assert buckets["1.8"] == 1
    assert buckets["3.01"] == 2
    assert len(buckets) == len(LATENCY_BOUNDS_S) + 3


def test_other_thresholds_begin_the_histogram_anew_and_the_same_ones_do_not() -> None:
    prom = PrometheusExporter("faq-bot", (1.8,), clock=ManualClock(), cache_s=0.0)

    def buckets() -> dict[str, float]:
        return {
            dict(labels)["le"]: value
            for (name, labels), value in parse_text(prom.render()).samples.items()
            if name == "sft_perf_request_duration_seconds_bucket"
        }

    for _ in range(3):
        prom.served(exchange(duration_s=0.6))
    prom.set_latency_bounds((1.8,))
    assert buckets()["1.8"] == 3
    for number in range(300):  # no line is lost by it: the cap would be reached otherwise
        prom.set_latency_bounds((0.7 + number / 1000,))
        prom.served(exchange(duration_s=0.6))
    prom.set_latency_bounds((0.7,))
    prom.served(exchange(duration_s=0.6))
    found = buckets()
    assert (found["0.5"], found["0.7"], found["+Inf"]) == (0, 1, 1)
    assert "1.8" not in found
    samples = parse_text(prom.render()).samples
    assert samples["sft_guard_series_dropped_total", (("service", "faq-bot"),)] == 0
    assert sum(v for (name, _), v in samples.items() if name == "sft_availability_requests_total") == 304


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_is_no_duration_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="positive finite seconds"):
        PrometheusExporter("faq-bot", (bound,))


@pytest.mark.parametrize(
    ("outcome", "timed"),
    [(Outcome.OK, True), (Outcome.SERVER_ERROR, True), (Outcome.TIMEOUT, True), (Outcome.INCOMPLETE, True),
     (Outcome.CLIENT_ERROR, False), (Outcome.CANCELLED, False), (Outcome.BLOCKED, False)],
)  # fmt: skip
def test_latency_counts_only_what_the_user_waited_for(outcome: Outcome, timed: bool) -> None:
    prom = exporter()
    prom.served(exchange(outcome=outcome))
    text = prom.render().decode()
    assert f'outcome="{outcome.value}"' in text
    assert ("sft_perf_request_duration_seconds_count" in text) is timed


def test_only_whole_fresh_answers_count_for_quality() -> None:
    prom = exporter()
    prom.checked(exchange(findings=FINDINGS, cache=CacheStatus.HIT))
    prom.checked(exchange(findings=FINDINGS, outcome=Outcome.INCOMPLETE))
    assert "sft_quality" not in prom.render().decode()


def test_what_was_not_measured_is_absent() -> None:
    prom = exporter()
    prom.served(Exchange("e", 0.0, "chat", "r1", "stable", Outcome.OK, 200, duration_s=0.1))
    prom.gauge_source(
        lambda: [
            ("sft_quality_hallucination_rate", {"release": "r1"}, None),
            ("sft_quality_similarity_score", {"release": "r1"}, float("nan")),
        ]
    )
    text = prom.render().decode()
    for name in (*(n for n in INDICATORS), "sft_cost", "first_token", "overhead", "cache_lookups", "throttled"):
        assert name not in text


def test_throttling_is_counted_beside_its_outcome() -> None:
    prom = exporter()
    prom.served(exchange(outcome=Outcome.SERVER_ERROR, status=429, reason="throttled"))
    assert "sft_perf_request_duration_seconds_count" not in prom.render().decode()
    assert 'sft_availability_throttled_total{service="faq-bot",route="chat",release="abc123def456"} 1' in (
        prom.render().decode()
    )


def test_gauges_are_set_changed_and_made_absent() -> None:
    prom = exporter(cache_s=0.0)
    prom.set("sft_release_weight", {"release": "r1", "arm": "canary"}, 0.1)
    assert lines_of(prom.render(), "sft_release_weight{") == [
        'sft_release_weight{service="faq-bot",release="r1",arm="canary"} 0.1'
    ]
    prom.set("sft_release_weight", {"release": "r1", "arm": "canary"}, None)
    assert lines_of(prom.render(), "sft_release_weight") == []
    prom.set("sft_release_weight", {"release": "r1", "arm": "canary"}, 0.3)
    assert lines_of(prom.render(), "sft_release_weight{")[0].endswith(" 0.3")


def test_every_part_of_a_release_is_named_also_where_it_is_empty() -> None:
    prom = exporter()
    prom.set("sft_release_info", {"release": "r1", "name": "v1", "model": "m"}, 1.0)
    prom.inc("sft_slo_events_total", {"release": "r1", "slo": "p95"})
    wanted = 'service="faq-bot",release="r1",name="v1",model="m",adapter="",kb="",prompt="",policy=""'
    lines = prom.render().decode().splitlines()
    assert f"sft_release_info{{{wanted}}} 1" in lines
    assert 'sft_slo_events_total{service="faq-bot",release="r1",slo="p95"} 1' in lines  # no life: absent


def test_a_pulled_gauge_replaces_a_pushed_one() -> None:
    prom = exporter()
    prom.set("sft_guard_loop_lag_seconds", {}, 1.0)
    prom.gauge_source(lambda: [("sft_guard_loop_lag_seconds", {}, 2.0)])
    assert lines_of(prom.render(), "sft_guard_loop_lag_seconds{") == ['sft_guard_loop_lag_seconds{service="faq-bot"} 2']


def test_a_gauge_source_that_raises_costs_only_its_own_gauges() -> None:
    def broken() -> Iterable[tuple[str, dict[str, str], float]]:
        raise RuntimeError("boom")

    prom = exporter()
    prom.gauge_source(broken)
    prom.gauge_source(lambda: [("sft_guard_check_queue_length", {}, 3)])
    text = prom.render().decode()
    assert 'sft_guard_failopen_total{service="faq-bot",dep="metrics",reason="error"} 1' in text
    assert 'sft_guard_check_queue_length{service="faq-bot"} 3' in text


@pytest.mark.parametrize(
    ("metric", "labels"),
    [("sft_made_up_total", {}), ("sft_guard_failopen_total", {"dep": "redis", "reason": "error", "path": "/x"})],
)
def test_a_name_outside_the_table_is_reported_and_never_shown(metric: str, labels: dict[str, str]) -> None:
    prom = exporter()
    with pytest.warns(RuntimeWarning, match=r"slo\.metric_names"):
        prom.inc(metric, labels)
    prom.inc(metric, labels)  # warned once, counted twice
    text = prom.render().decode()
    assert "sft_made_up" not in text
    assert "/x" not in text
    assert 'sft_guard_series_dropped_total{service="faq-bot"} 2' in text


def test_words_outside_a_closed_set_become_other() -> None:
    prom = exporter()
    prom.fail_open("redis", "refused")
    prom.fail_open("redis", "some exception text 0x7f3a")
    prom.inc("sft_cost_tokens_total", {"release": "r1", "type": "imaginary"}, 5)
    assert lines_of(prom.render(), "sft_guard_failopen_total", "sft_cost_tokens") == [
        'sft_cost_tokens_total{service="faq-bot",release="r1",type="other"} 5',
        'sft_guard_failopen_total{service="faq-bot",dep="redis",reason="other"} 1',
        'sft_guard_failopen_total{service="faq-bot",dep="redis",reason="refused"} 1',
    ]


def test_an_explosion_of_labels_stays_within_the_cap_and_within_memory() -> None:
    prom = exporter()
    prom.gauge_source(lambda: [(name, {"release": "r1"}, 0.5) for name, i in INDICATORS.items() if i.exact])
    rss_before = psutil.Process().memory_info().rss
    for i in range(100_000):
        prom.served(
            Exchange(f"e{i}", 0.0, f"/path/{i}", f"release{i % 977}", "stable", Outcome.OK, 200,
                     duration_s=0.1, model=f"model-{i}", tenant=f"tenant-{i}")
        )  # fmt: skip
    grown_bytes = psutil.Process().memory_info().rss - rss_before
    parsed = parse_text(prom.render())
    assert len(parsed.samples) <= 2000
    assert grown_bytes < 10 * 1024 * 1024
    assert sum(name in INDICATORS for name, _ in parsed.samples) == 6, "the exact gauges keep their place"
    dropped = parsed.samples["sft_guard_series_dropped_total", (("service", "faq-bot"),)]
    assert dropped >= 100_000 - 64 * 32
    assert "model-7" not in prom.render().decode()


def test_a_flood_of_pulled_gauges_stays_within_its_share() -> None:
    prom = exporter(max_series=100)
    prom.gauge_source(lambda: [("sft_slo_value", {"release": "r", "slo": f"s{i}"}, 1.0) for i in range(500)])
    parsed = parse_text(prom.render())
    assert len(parsed.samples) <= 100
    assert parsed.samples["sft_guard_series_dropped_total", (("service", "faq-bot"),)] >= 400


def test_a_release_that_is_gone_gives_its_lines_back() -> None:
    prom = exporter(max_series=200, cache_s=0.0)
    for generation in range(50):
        release = f"release{generation}"
        prom.served(exchange(release=release))
        prom.checked(exchange(release=release, findings=FINDINGS))
        prom.inc("sft_quality_reopens_total", {"release": release})
        assert f'release="{release}"' in prom.render().decode()
        prom.keep_releases({f"release{generation + 1}"})
        assert f'release="{release}"' not in prom.render().decode()
    assert 'sft_guard_series_dropped_total{service="faq-bot"} 0' in prom.render().decode()


def test_a_release_that_found_no_place_gives_its_name_back() -> None:
    prom = exporter(max_series=40, cache_s=0.0)
    for number in range(40):
        prom.inc("sft_cost_usd_total", {"release": f"release{number}"})
    prom.keep_releases(())
    assert "sft_cost" not in prom.render().decode()
    prom.inc("sft_cost_usd_total", {"release": "next"})
    assert 'release="next"' in lines_of(prom.render(), "sft_cost_usd_total")[0]


def test_a_hundred_objectives_of_two_releases_find_their_place() -> None:
    """The rules of Prometheus and the windows of a fleet live on these; the last release is that of the canary."""
    prom, clock = exporter(), ManualClock()
    slos = tuple(make_slo(indicator, name=f"{indicator}-{n}") for n in range(20) for indicator in FIVE_INDICATORS)
    memory, both = MemorySource(slos, clock), ("stable", "canary")
    shown = ("state", "value", "threshold", "budget_remaining_ratio")
    rows = [
        (f"sft_slo_{what}", {"release": release, "slo": slo.name}, 1.0)
        for release in both for slo in slos for what in shown
    ]  # fmt: skip
    prom.gauge_source(lambda: [*rows, *objective_rows(slos, both, memory)])
    text = prom.render().decode()
    assert text.count('\nsft_slo_events_total{service="faq-bot",release="canary"') == len(slos) == 100
    assert 'sft_guard_series_dropped_total{service="faq-bot"} 0' in text


HOSTILE = [
    "a\nb 1",
    "a\r\nsft_fake 1",
    '"} 1\nsft_fake{x="',
    "\x1b[2J",
    "\x9b31m",
    "a\u2028b",
    "\u202eevil",
    "\ud800",
    "\\",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_label_value_stays_one_value_on_one_line(value: str) -> None:
    prom = PrometheusExporter(f"s{value}", (), clock=ManualClock())
    prom.served(exchange(route=value, traceparent=f"00-{value}"))
    prom.gauge_source(
        lambda: [("sft_release_info", {"release": "r1", "name": value, "model": value, "kb": value}, 1.0)]
    )
    prom.inc("sft_release_rollbacks_total", {"reason": value})
    for openmetrics in (False, True):
        text = prom.render(openmetrics=openmetrics).decode()
        parsed = parse_text(text.encode(), openmetrics=openmetrics)
        assert not any(name.startswith("sft_fake") for name, _ in parsed.samples)
        assert len(text.splitlines()) == text.count("\n")
        assert not any(ch in text for ch in "\x1b\x9b\u2028\u202e\r")
        (shown,) = {dict(labels)["reason"] for name, labels in parsed.samples if name.startswith("sft_release_roll")}
        assert shown == clean(value)


def test_a_scrape_is_rendered_again_only_after_a_second() -> None:
    clock = ManualClock()
    prom = exporter(clock=clock)
    prom.served(EXCHANGE)
    first = prom.render()
    prom.served(EXCHANGE)
    clock.advance(0.9)
    assert prom.render() is first
    clock.advance(0.2)
    assert b'outcome="ok",cache="miss"} 2' in prom.render()


@pytest.mark.anyio
async def test_a_scrape_asks_gauges_on_the_loop_and_renders_elsewhere() -> None:
    prom = exporter()
    asked_on: list[int] = []

    def source() -> list[tuple[str, dict[str, str], float]]:
        asked_on.append(threading.get_ident())
        return [("sft_guard_loop_lag_seconds", {}, 0.0)]

    prom.gauge_source(source)
    bodies = await asyncio.gather(*(prom.scrape() for _ in range(5)))
    assert set(asked_on) == {threading.get_ident()}
    assert len(set(bodies)) == 1
    assert await prom.scrape() is bodies[0] or await prom.scrape() == bodies[0]


def test_a_scrape_beside_the_hot_path_is_always_consistent() -> None:
    prom = exporter(cache_s=0.0, max_series=100_000)
    stop = threading.Event()

    def serve() -> None:
        i = 0
        while not stop.is_set():
            prom.served(exchange(route=f"route{i % 12}", duration_s=(i % 70) / 10))
            i += 1

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for _ in range(10):
            parse_text(prom.render())  # checks that buckets never fall and that _count equals the +Inf bucket
    finally:
        stop.set()
        thread.join()


def test_values_that_are_no_numbers_never_reach_a_sum() -> None:
    prom = exporter()
    prom.observe("sft_quality_score", {"release": "r", "check": "pii"}, float("nan"))
    prom.checked(exchange(findings=(Finding("grounding", CheckResult.PASS, float("nan")),)))
    text = prom.render().decode()
    assert "NaN" not in text
    assert "sft_quality_score" not in text


def test_every_closed_label_of_the_table_has_words_and_every_metric_a_help_line() -> None:
    for metric in METRICS.values():
        assert metric.help
        assert metric.kind in {"counter", "gauge", "histogram"}
        assert metric.kind != "counter" or metric.name.endswith("_total")
        for label in metric.labels:
            words = closed_set(metric.name, label)
            assert words is None or words


def full_exporter() -> PrometheusExporter:
    """Every metric of the table has a series."""
    prom = exporter(max_series=4000)
    for metric in METRICS.values():
        labels = {label: min(closed_set(metric.name, label) or {"x"}) for label in metric.labels}
        if metric.kind == "counter":
            prom.inc(metric.name, labels)
        elif metric.kind == "gauge":
            prom.set(metric.name, labels, 0.5)
        else:
            prom.observe(metric.name, labels, 0.5)
    return prom


def test_every_metric_of_the_table_can_be_shown() -> None:
    parsed = parse_text(full_exporter().render())
    assert set(parsed.types) == set(METRICS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian package `prometheus`)")
def test_promtool_finds_nothing_but_the_two_names_given_by_the_practice() -> None:
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=full_exporter().render(), capture_output=True, timeout=30, check=False
    )
    complaints = sorted((found.stdout + found.stderr).decode().splitlines())
    # The contract fixes these two names, unit and all; nothing else may be complained about.
    assert complaints == [
        f"sft_perf_latency_{q}_ms metric names should not contain abbreviated units" for q in ("p95", "p99")
    ]
    others = b"\n".join(line for line in full_exporter().render().splitlines() if b"sft_perf_latency_p9" not in line)
    clean_run = subprocess.run(
        ["promtool", "check", "metrics"], input=others + b"\n", capture_output=True, timeout=30, check=False
    )
    assert (clean_run.returncode, clean_run.stdout, clean_run.stderr) == (0, b"", b"")
