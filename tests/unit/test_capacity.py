"""The load test: the knee by hand, the driver in virtual time, the aim checked, one run over real HTTP."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.capacity.aim import take_aim
from guard.capacity.open_loop import Answer, OpenLoop, Shape
from guard.capacity.search import as_json, search
from guard.cli import main
from slo.capacity import Criteria, Knee, Plan, Step, find_knee, latency_limit, next_rate, why_not_sustained
from slo.errors import ConfigError
from slo.statistics import split_mix
from tests.conftest import VIRTUAL


def step(rate: float, p95_s: float = 0.1, *, ok: float = 1.0, came_back: float = 1.0, **changes: Any) -> Step:
    """Ten seconds at `rate`; ok: share of good answers; came_back: good answers within the span per request sent."""
    sent = round(rate * 10)
    settings: dict[str, Any] = {
        "rate_per_s": rate, "span_s": 10.0, "sent_count": sent, "ok_count": round(sent * ok),
        "finished_count": round(sent * came_back), "in_flight_count": 2, "p50_s": p95_s / 2, "p95_s": p95_s,
        "p99_s": p95_s * 1.5, "errors": (("status 503", sent - round(sent * ok)),) if ok < 1 else (),
    }  # fmt: skip
    return Step(**{**settings, **changes})


class TestKnee:
    def test_the_highest_sustained_rate_below_the_first_that_fails(self) -> None:
        steps = [step(10), step(20, 0.12), step(40, 0.3), step(80, 0.51), step(56, 0.49)]
        knee = find_knee(steps, Criteria())  # bound: 5 x 0.1 s
        assert (knee.rate_per_s, knee.p95_s, knee.reached) == (56, 0.49, True)
        assert knee.reason == "at 80/s P95 510 ms is over 500 ms"

    def test_a_given_bound_replaces_the_departure(self) -> None:
        steps = [step(10), step(20, 0.12), step(40, 0.3)]
        assert find_knee(steps, Criteria(p95_bound_s=0.2)).rate_per_s == 20
        assert find_knee(steps, Criteria(p95_bound_s=0.05)).rate_per_s is None

    def test_a_good_rate_above_a_bad_one_was_luck(self) -> None:
        assert find_knee([step(10), step(20, ok=0.5), step(40)], Criteria()).rate_per_s == 10

    def test_not_reached_says_so(self) -> None:
        knee = find_knee([step(10), step(20)], Criteria())
        assert (knee.rate_per_s, knee.reached) == (20, False)
        assert "--rate-to" in knee.reason

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (step(100, ok=0.98), "98.0% of 1000 answers were good, mostly: status 503"),
            (step(100, came_back=0.95), "a backlog grows: 95 good answers/s of 100/s sent"),
            (step(100, 0.6), "P95 600 ms is over 500 ms"),
            (step(100, aborted="2000 requests were under way at once"), "2000 requests were under way at once"),
            (Step(100, 10, 0, 0, 0, 0, None, None, None),
             "nothing was answered"),
        ],
    )  # fmt: skip
    def test_why_a_rate_was_not_sustained(self, bad: Step, why: str) -> None:
        assert why_not_sustained(bad, 0.5) == why

    def test_what_is_under_way_at_a_moment_may_differ_by_chance(self) -> None:
        # Allowed: 1 % of 1000 = 10, and 2 * sqrt(2 * 200) = 40 with 200 under way.
        assert why_not_sustained(step(100, came_back=0.951, in_flight_count=200), 0.5) == ""
        assert "backlog" in why_not_sustained(step(100, came_back=0.949, in_flight_count=200), 0.5)

    def test_a_near_failure_is_tried_once_more_and_a_far_one_is_not(self) -> None:
        plan = Plan(10, 100)
        near, far = step(15, 0.6), step(15, 0.6, came_back=0.5)
        assert next_rate([step(10), near], plan, Criteria()) == 15
        assert next_rate([step(10), near, step(15)], plan, Criteria()) == 22.5  # it was a hiccup
        assert next_rate([step(10), far], plan, Criteria()) == pytest.approx((10 * 15) ** 0.5)

    @given(capacity=st.floats(1.0, 400.0), growth=st.floats(1.2, 3.0))
    def test_the_search_ends_and_brackets_any_capacity(self, capacity: float, growth: float) -> None:
        plan = Plan(0.5, 500.0, growth)
        steps: list[Step] = []
        while (rate := next_rate(steps, plan, Criteria())) is not None:
            steps.append(
                step(rate, sent_count=1000, ok_count=1000, finished_count=1000)
                if rate <= capacity
                else step(rate, sent_count=1000, ok_count=1000, finished_count=round(1000 * capacity / rate) - 30)
            )
            assert len(steps) <= plan.max_steps
        knee = find_knee(steps, Criteria())
        assert knee.rate_per_s is not None
        assert knee.reached
        assert knee.rate_per_s <= capacity <= knee.rate_per_s * (1 + plan.resolution) * 1.0001


class TestLimits:
    def test_p95_at_the_knee_times_the_factor(self) -> None:
        knee = Knee(100.0, 4.3, True, "")
        limit = latency_limit(knee, [step(10, 1.1), step(100, 4.3)])
        assert limit is not None
        assert (limit.limit_ms, limit.threshold_ms, limit.usable) == (4300, 3010, True)  # the practice's 3 s

    def test_a_flat_curve_gives_a_limit_that_an_idle_service_would_breach(self) -> None:
        limit = latency_limit(Knee(100.0, 0.12, True, ""), [step(10, 0.1), step(100, 0.12)])
        assert limit is not None
        assert not limit.usable  # 84 ms against 100 ms idle
        assert "an idle service would breach it" in limit.why

    def test_no_knee_no_limit(self) -> None:
        assert latency_limit(Knee(None, None, True, ""), [step(10, ok=0.1)]) is None


class Queue:
    """A service with `slots` workers that each take `service_s`: capacity slots / service_s requests per second."""

    def __init__(self, slots: int, service_s: float) -> None:
        self._slots, self._service_s = asyncio.Semaphore(slots), service_s

    async def ask(self, number: int) -> Answer:
        async with self._slots:
            await asyncio.sleep(self._service_s)
        return Answer("", self._service_s)


@pytest.mark.anyio
class TestDriver:
    @pytest.fixture
    def anyio_backend(self) -> object:
        return VIRTUAL

    @pytest.mark.parametrize("poisson", [True, False])
    async def test_the_knee_of_a_known_queue_is_found(self, poisson: bool) -> None:
        queue = Queue(slots=10, service_s=0.1)  # 100 requests/s
        shape = Shape(step_s=10.0, poisson=poisson)
        outcome = await search(queue.ask, Plan(5, 500), Criteria(), shape, budget_s=900, seed=3)
        assert outcome.knee.reached
        assert outcome.knee.rate_per_s is not None
        assert 80 <= outcome.knee.rate_per_s <= 103
        assert as_json(outcome, "u", shape, 3)["knee"]["reached"] is True

    async def test_a_stall_counts_against_every_request_that_was_due_in_it(self) -> None:
        begin_s = asyncio.get_running_loop().time()

        async def ask(number: int) -> Answer:  # no answer between the 4th and the 6th second
            at_s = asyncio.get_running_loop().time() - begin_s
            if 4.0 <= at_s < 6.0:
                await asyncio.sleep(6.0 - at_s)
            return Answer()

        found = await OpenLoop(ask, Shape(step_s=10.0, poisson=False), split_mix(1)).step(100.0)
        # 200 of the 800 measured requests were due in the stall, evenly: their latencies are 0..2 s. A closed loop
        # with one caller would have counted one of them.
        assert found.sent_count in (800, 801)
        assert found.p50_s == pytest.approx(0.0)
        assert found.p95_s == pytest.approx(2.0 - 0.4, abs=0.03)  # rank 760: 40 requests waited longer, the last 0.4 s
        assert found.p99_s == pytest.approx(2.0 - 0.08, abs=0.03)

    async def test_a_dead_service_ends_the_step_early_and_the_test(self) -> None:
        asked = 0

        async def ask(number: int) -> Answer:
            nonlocal asked
            asked += 1
            return Answer("status 500")

        outcome = await search(ask, Plan(20, 500), Criteria(), Shape(), budget_s=900)
        assert asked <= 60
        assert outcome.knee.rate_per_s is None
        assert "status 500" in outcome.knee.reason
        assert outcome.limit is None

    async def test_an_answer_that_never_comes_is_a_timeout_and_in_flight_is_bounded(self) -> None:
        async def ask(number: int) -> Answer:
            await asyncio.sleep(1e6)
            return Answer()

        found = await OpenLoop(ask, Shape(timeout_s=30.0, max_in_flight=50), split_mix(1)).step(10.0)
        assert found.aborted == "50 requests were under way at once"
        assert dict(found.errors) == {"timeout": found.sent_count}
        assert found.p95_s == pytest.approx(30.0)

    async def test_the_budget_ends_it_and_what_was_found_stays(self) -> None:
        outcome = await search(Queue(1000, 0.01).ask, Plan(10, 500), Criteria(), Shape(), budget_s=35)
        assert asyncio.get_running_loop().time() <= 35
        assert "time budget" in outcome.stopped
        assert not outcome.knee.reached
        assert outcome.knee.rate_per_s == pytest.approx(22.5)  # 10, 15, 22.5 and no time for 33.75

    async def test_a_machine_that_sends_late_convicts_nobody(self) -> None:
        loop = asyncio.get_running_loop()
        queue = Queue(slots=10, service_s=0.1)

        async def ask(number: int) -> Answer:  # somebody else keeps the loop busy every 60th time
            if number > 300 and number % 60 == 0:
                loop._jumping.now_s += 2.0  # type: ignore[attr-defined]
            return await queue.ask(number)

        outcome = await search(ask, Plan(20, 500), Criteria(p95_bound_s=30.0), Shape(), budget_s=900)
        assert "this machine sent" in outcome.stopped
        assert not outcome.knee.reached
        assert outcome.knee.reason == outcome.stopped
        assert outcome.knee.rate_per_s == 20  # what was measured before stays

    async def test_the_same_seed_sends_at_the_same_moments(self) -> None:
        async def moments(seed: int) -> list[float]:
            loop, begin_s = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            seen: list[float] = []

            async def ask(number: int) -> Answer:
                seen.append(round(loop.time() - begin_s, 6))
                return Answer()

            await OpenLoop(ask, Shape(), split_mix(seed)).step(20.0)
            return seen

        assert await moments(5) == await moments(5) != await moments(6)


class TestAim:
    @pytest.mark.parametrize(
        ("url", "addresses", "allowed"),
        [
            ("http://127.0.0.1:9/x", ["127.0.0.1"], []),
            ("http://[::1]:9/x", ["::1"], []),
            ("http://localhost/x", ["127.0.0.1", "::1"], []),
            ("https://staging.example/x", ["10.0.0.7"], ["Staging.example"]),
        ],
    )
    def test_may_be_loaded(self, url: str, addresses: list[str], allowed: list[str]) -> None:
        assert take_aim(url, allowed, lambda host, port: addresses).addresses == tuple(addresses)

    @pytest.mark.parametrize(
        ("url", "addresses", "word"),
        [
            ("http://10.0.0.7/x", ["10.0.0.7"], "--allow-host 10.0.0.7"),
            ("http://bot.example/x", ["127.0.0.1", "93.184.216.34"], "93.184.216.34"),  # one of two is outside
            ("http://0.0.0.0/x", ["0.0.0.0"], "not loopback"),
            ("http://127.0.0.1.nip.example/x", ["93.184.216.34"], "not loopback"),
            ("http://[::ffff:8.8.8.8]/x", ["::ffff:8.8.8.8"], "not loopback"),
            ("http://staging.example.evil/x", ["10.0.0.7"], "not loopback"),
            ("ftp://127.0.0.1/x", ["127.0.0.1"], "write http"),
            ("127.0.0.1:80", ["127.0.0.1"], "write http"),
            ("http://127.0.0.1:99999/", ["127.0.0.1"], "write http"),
            ("http://user:secret@127.0.0.1/", ["127.0.0.1"], "--token-env"),
            ("http://nobody.example/", [], "no address"),
        ],
    )
    def test_may_not(self, url: str, addresses: list[str], word: str) -> None:
        with pytest.raises(ConfigError, match="URL") as refused:
            take_aim(url, ["staging.example"], lambda host, port: addresses)
        assert word in str(refused.value)
        assert "secret" not in str(refused.value)


class Service(http.server.BaseHTTPRequestHandler):
    """Four at a time, 20 ms each: at most 200 answers/s. Path /moved redirects, /cut ends a stream too early."""

    protocol_version = "HTTP/1.1"
    slots = threading.Semaphore(4)
    questions: set[bytes] = set()  # noqa: RUF012 - one service per test run

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.slots:
            time.sleep(0.02)
            self.questions.add(body)
        if self.path == "/moved":
            self.send_response(307)
            self.send_header("location", "http://192.0.2.1/")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        data = b'data: {"choices": []}\n\n' + (b"" if self.path == "/cut" else b"data: [DONE]\n\n")
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class TestCommand:
    def test_over_http_with_picture_and_numbers(
        self, service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("matplotlib", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
        out, picture = tmp_path / "capacity.json", tmp_path / "plots" / "capacity.png"
        arguments = ["--rate-from", "20", "--rate-to", "30", "--step", "1s", "--max-requests", "10", "--stream"]
        code = main(["baseline", "capacity", f"{service}/v1/chat/completions", *arguments,
                     "--p95-bound", "20000", "--out", str(out), "--plot", str(picture), "--json"])  # fmt: skip
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert printed == json.loads(out.read_text())
        assert printed["steps"][0]["rate_per_s"] == 20
        assert all(s["ok_count"] <= s["sent_count"] and s["p95_ms"] >= 20 for s in printed["steps"])
        assert printed["sustained_means"]["p95_bound_ms"] == 20000
        assert code == (0 if printed["knee"]["rate_per_s"] else 1)
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert len(Service.questions) >= sum(s["sent_count"] for s in printed["steps"])  # no two alike: no cache helps

    @pytest.mark.parametrize(("path", "word"), [("/moved", "status 307"), ("/cut", "stream without its end")])
    def test_what_is_no_good_answer(
        self, service: str, path: str, word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--rate-from", "40", "--rate-to", "40", "--step", "1s", "--max-requests", "10", "--stream"]
        assert main(["baseline", "capacity", service + path, *arguments, "--json"]) == 1
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert set(printed["steps"][0]["errors"]) == {word}
        assert printed["rate_limit"] is printed["latency_limit"] is None

    def test_without_matplotlib_the_numbers_are_there_all_the_same(
        self, service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        out, picture = tmp_path / "capacity.json", tmp_path / "capacity.png"
        main(["baseline", "capacity", service, "--rate-from", "20", "--rate-to", "20", "--step", "1s",
              "--max-requests", "10", "--out", str(out), "--plot", str(picture)])  # fmt: skip
        assert "pip install 'sft-guard[analysis]'" in capsys.readouterr().err
        assert json.loads(out.read_text())["steps"]
        assert not picture.exists()

    @pytest.mark.parametrize(
        "arguments",
        [["--rate-from", "5", "--rate-to", "1"], ["--step", "fast"], ["--growth", "1"], ["--p95-bound", "-1"],
         ["--token-env", "NO_SUCH_VARIABLE_HERE"], ["--body", "none.json"], ["--max-requests", "3"]],
        ids=" ".join,
    )  # fmt: skip
    def test_a_mistake_is_one_line(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["baseline", "capacity", "http://127.0.0.1:9/", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
