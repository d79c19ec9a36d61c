"""The same traffic through a real Prometheus and through the exchange log gives the same baseline."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator

import pytest

from exporters.prometheus import PrometheusExporter
from slo.artefact import IncidentSpan
from slo.baselines import collect
from slo.collecting import Terms, assemble
from slo.errors import RefusedError
from slo.indicators import CACHE_HITS
from slo.metric_names import INDICATORS
from slo.sources.prometheus_baseline import gather
from slo.sources.prometheus_range import PrometheusApi
from slo.types import CacheStatus, Exchange, Outcome
from tests.slo_builders import found, make_exchange
from tests.unit.exporters_helpers import ManualClock

HOUR_S, DAY_S = 3600.0, 86_400.0
START_S = 1_750_032_000.0  # Monday 2025-06-16 00:00 UTC
DAYS = 8
END_S = START_S + DAYS * DAY_S
SCRAPE_S = 900.0
PER_SCRAPE = 16
INCIDENT = IncidentSpan("inc-1", START_S + 50 * HOUR_S, START_S + 52 * HOUR_S)


def traffic() -> Iterator[Exchange]:
    """Eight days: a daily cycle of latency, some of every kind of trouble, a canary on the sixth day."""
    for number in range(int(DAYS * DAY_S / SCRAPE_S) * PER_SCRAPE):
        step, place = divmod(number, PER_SCRAPE)
        wall_s = START_S + step * SCRAPE_S + 1 + place * 40
        hour = int((wall_s - START_S) // HOUR_S)
        outcome = (Outcome.SERVER_ERROR if number % 37 == 5 else Outcome.CLIENT_ERROR if number % 53 == 3
                   else Outcome.CANCELLED if number % 71 == 9 else Outcome.OK)  # fmt: skip
        canary = 120 <= hour < 132 and place == 0
        hit = number % 11 == 0
        yield make_exchange(
            number, wall_s=wall_s, outcome=Outcome.SERVER_ERROR if canary else outcome,
            status={Outcome.SERVER_ERROR: 500, Outcome.CLIENT_ERROR: 404, Outcome.CANCELLED: 0}.get(outcome, 200),
            arm="canary" if canary else "stable", release="r2" if canary else "r1",
            duration_s=0.9 if number % 12 == 0 else 0.35 if hour % 24 < 12 else 0.45,
            cache=CacheStatus.HIT if hit else CacheStatus.MISS,
            cost_usd=None if hit or outcome is not Outcome.OK else 0.0003 + 0.0001 * (number % 3),
            findings=(
                found("grounding", "unavailable" if number % 50 == 1 else "fail" if number % 23 == 4 else "pass"),
                found("similarity", "pass", 0.8 + 0.01 * (number % 7)),
                found("zero_hit", "fail" if number % 41 == 2 else "pass", 0.0),
            ),
        )  # fmt: skip


def scrapes() -> Iterator[tuple[float, bytes]]:
    """What Prometheus would have scraped, every quarter of an hour; the guard was restarted on the fifth day."""
    exporter = PrometheusExporter("faq-bot", (), clock=ManualClock(), cache_s=0.0)
    at_s = START_S
    for exchange in traffic():
        while exchange.wall_s >= at_s:
            exporter.set("sft_release_weight", {"release": "r1", "arm": "stable"}, 0.9)
            weight = 0.1 if START_S + 120 * HOUR_S <= at_s <= START_S + 132 * HOUR_S else None
            exporter.set("sft_release_weight", {"release": "r2", "arm": "canary"}, weight)
            yield at_s, exporter.render()
            at_s += SCRAPE_S
            if at_s == START_S + 4.5 * DAY_S:
                exporter = PrometheusExporter("faq-bot", (), clock=ManualClock(), cache_s=0.0)
        exporter.served(exchange)
        exporter.checked(exchange)
    yield at_s, exporter.render()


def openmetrics() -> str:
    """All scrapes as one file for promtool: families together, samples with their time."""
    kinds: dict[str, str] = {}
    rows: dict[str, list[str]] = defaultdict(list)
    for at_s, text in scrapes():
        family = ""
        for line in text.decode().splitlines():
            if line.startswith("# TYPE"):
                _, _, family, kind = line.split()
                kinds[family] = kind
            elif not line.startswith("#"):
                rows[family].append(f"{line} {at_s:.0f}")
    parts = []
    for family, kind in kinds.items():
        name = family.removesuffix("_total") if kind == "counter" else family
        parts += [f"# TYPE {name} {kind}", *rows[family]]
    return "\n".join([*parts, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Prometheus that holds the eight days."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("needs prometheus and promtool: apt-get install prometheus")
    home = tmp_path_factory.mktemp("prometheus")
    (home / "series.om").write_text(openmetrics())
    one_block = ["create-blocks-from", "--max-block-duration=300h", "openmetrics", "--quiet", "series.om", "data"]
    subprocess.run(["promtool", "tsdb", *one_block], cwd=home, check=True, capture_output=True)
    (home / "prometheus.yml").write_text("scrape_configs: []\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}",
         "--storage.tsdb.retention.time=100y", "--log.level=error"], cwd=home,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "prometheus ended"
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)


def test_prometheus_and_the_log_agree(prometheus: str) -> None:
    terms = Terms(END_S + 60, incidents=(INCIDENT,), source=prometheus)
    counted = assemble(gather(PrometheusApi(prometheus), terms, service="faq-bot"), terms)
    logged = collect(traffic(), now_wall_s=END_S + 60, incidents=(INCIDENT,))
    assert (counted.days, counted.releases, len(counted.hours)) == (logged.days, ("r1",), len(logged.hours))
    assert counted.exchange_count == pytest.approx(logged.exchange_count, rel=0.01)
    assert dict(counted.excluded)["canary"] == pytest.approx(dict(logged.excluded)["canary"], rel=0.05)
    assert dict(counted.excluded)["cache hits"] == pytest.approx(dict(logged.excluded)["cache hits"], rel=0.03)
    compared = []
    for one in logged.indicators:
        other = counted.of(one.indicator, HOUR_S)
        assert other is not None, one.indicator
        assert other.window_count == pytest.approx(one.window_count, abs=2)
        assert other.event_count == pytest.approx(one.event_count, rel=0.02)
        # Interpolation inside a bucket is the price of a histogram; nothing else may differ by more than a percent.
        tolerance = 0.15 if INDICATORS[one.indicator].kind == "latency" else 0.01
        assert other.overall == pytest.approx(one.overall, rel=tolerance), one.indicator
        mean, expected = other.statistic("mean"), one.statistic("mean")
        assert mean is not None
        assert expected is not None
        assert mean.estimate == pytest.approx(expected.estimate, rel=tolerance), one.indicator
        compared.append(one.indicator)
    assert len(compared) == 10
    assert counted.of(CACHE_HITS, HOUR_S) is not None
    assert any("interpolated" in note for note in counted.notes)


def test_what_prometheus_does_not_know_is_missing_not_zero(prometheus: str) -> None:
    terms = Terms(END_S, source=prometheus)
    with pytest.raises(RefusedError, match=r"0\.0 days of traffic, 7 needed"):
        assemble(gather(PrometheusApi(prometheus), terms, service="another-bot"), terms)
    later = Terms(END_S + 12 * DAY_S, source=prometheus)  # only two of the fourteen days hold anything
    with pytest.raises(RefusedError, match=r"2\.0 days of traffic, 7 needed: 5\.0 days missing"):
        assemble(gather(PrometheusApi(prometheus), later), later)
