"""The pipeline gives every exchange back exactly once, whatever happens to the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from guard.checks.spec import CheckSpec
from guard.pipeline import PipelineLimits, WorkerPipeline
from guard.ports import Capture, ContextSource, ExchangeText, Route
from slo.clock import SystemClock
from slo.types import CheckResult, Exchange, Finding, Outcome

pytestmark = pytest.mark.anyio

ROUTE = Route("ask", "/ask", "json", ContextSource(body_path="contexts"))

# A worker that speaks the protocol and computes nothing: dies on POISON, is silent on HANG.
FAKE_WORKER = """
import os, signal, socket, sys
from guard.checks.frames import Done, Job, Ready, Splitter, decode_to_worker, frame
from slo.types import CheckResult, Finding
link, splitter = socket.socket(fileno=int(sys.argv[1])), Splitter()
while data := link.recv(65536):
    for body in splitter.feed(data):
        job = decode_to_worker(body)
        if not isinstance(job, Job):
            link.sendall(frame(Ready("fake")))
            continue
        if b"POISON" in job.request:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"HANG" in job.request:
            continue
        link.sendall(frame(Done(job.job_id, (Finding("rules", CheckResult.PASS, 1.0),), None)))
"""


# Takes jobs until 40 have come, then answers them all in one write.
BATCH_WORKER = """
import socket, sys
from guard.checks.frames import Done, Job, Splitter, decode_to_worker, frame
from slo.types import CheckResult, Finding
link, splitter, ids = socket.socket(fileno=int(sys.argv[-1])), Splitter(), []
while data := link.recv(65536):
    for body in splitter.feed(data):
        job = decode_to_worker(body)
        if isinstance(job, Job):
            ids.append(job.job_id)
    if len(ids) == 40:
        link.sendall(b"".join(frame(Done(one, (Finding("rules", CheckResult.PASS, 1.0),), None)) for one in ids))
        if "dies" in sys.argv:
            sys.exit(1)
"""


class Told:
    """Sink that keeps what it was told."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.texts: list[ExchangeText | None] = []

    def checked(self, exchange: Exchange, text: ExchangeText | None) -> None:
        self.exchanges.append(exchange)
        self.texts.append(text)

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        for each in exchanges:
            self.checked(replace(each, findings=findings), None)

    def results(self) -> Counter[str]:
        return Counter(
            "checked" if any(f.result is not CheckResult.UNAVAILABLE for f in e.findings) else e.findings[0].reason
            for e in self.exchanges
        )


class Counts:
    """Counter store."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, ...]] = Counter()

    def inc(self, metric: str, labels: Mapping[str, str], n: float = 1) -> None:
        self.seen[metric, *labels.values()] += int(n)


def exchange(number: int) -> Exchange:
    return Exchange(f"e{number}", 0.0, "ask", "r1", "stable", Outcome.OK, 200)


def capture(
    question: str = "q", answer: str = '{"answer":"The limit is 7 days.","contexts":["The limit is 7 days."]}'
) -> Capture:
    return Capture(ROUTE, b'{"question":"%s"}' % question.encode(), answer.encode(), (), False, False)


@pytest.fixture
def fake_worker(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "fake_worker.py"
    path.write_text(FAKE_WORKER)
    return sys.executable, str(path)


FAST = PipelineLimits(backoff_min_s=0.05, backoff_max_s=0.2, sweep_s=0.05, flush_s=10.0)


@asynccontextmanager
async def running(
    told: Told,
    counts: Counts,
    *,
    limits: PipelineLimits = FAST,
    command: tuple[str, ...] | None = None,
    spec: CheckSpec | None = None,
) -> AsyncIterator[WorkerPipeline]:
    spec = spec or CheckSpec(embedder="none")
    pipeline = WorkerPipeline(spec, (ROUTE,), told, counts, SystemClock(), limits=limits, command=command)
    await pipeline.start()
    try:
        yield pipeline
    finally:
        await pipeline.stop()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


async def test_the_real_worker_checks_redacts_and_answers_every_exchange_once() -> None:
    told, counts = Told(), Counts()
    body = '{"answer":"The limit is 14 days, ask amy@corp.example.","contexts":["The limit is 7 days."]}'
    async with running(told, counts) as pipeline:
        assert all(pipeline.offer(exchange(i), capture("mail me at bob@corp.example", body)) for i in range(30))
        await until(lambda: len(told.exchanges) == 30)
        stats = pipeline.stats()
    assert sorted(e.exchange_id for e in told.exchanges) == sorted(f"e{i}" for i in range(30))
    findings = {f.check: f for f in told.exchanges[0].findings}
    assert set(findings) == set(CheckSpec(embedder="none").names)
    assert findings["grounding"].result is CheckResult.FAIL
    assert findings["pii"].result is CheckResult.FAIL
    assert not any(
        "amy@" in str(e.findings) or "amy@" in str(t) or "bob@" in str(t)
        for e, t in zip(told.exchanges, told.texts, strict=True)
    )
    assert stats.coverage_ratio == 1.0
    assert stats.queue_length == 0
    assert stats.redacted_count == 60
    assert stats.worker_alive
    assert stats.worker_ready
    assert counts.seen == {("sft_guard_redacted_total",): 60}


async def test_text_mode_none_returns_no_words() -> None:
    told = Told()
    async with running(told, Counts(), spec=CheckSpec(embedder="none", text_mode="none")) as pipeline:
        wrong = '{"answer":"Amy Lee says the limit is 45 days.","contexts":["The limit is 7 days."]}'
        pipeline.offer(exchange(0), capture(answer=wrong))
        await until(lambda: told.exchanges)
    assert told.texts == [ExchangeText("", "", None)]
    assert CheckResult.FAIL in {f.result for f in told.exchanges[0].findings if f.check == "grounding"}
    assert not any(word in str(told.exchanges[0].findings) for word in ("Amy", "45", "7 days"))


async def test_a_truncated_capture_is_not_judged_as_a_whole_answer() -> None:
    told = Told()
    part = Capture(ROUTE, b'{"question":"q"}', b'{"answer":"The', (), False, True)
    async with running(told, Counts()) as pipeline:
        pipeline.offer(exchange(0), part)
        await until(lambda: told.exchanges)
    assert {f.result for f in told.exchanges[0].findings} == {CheckResult.UNAVAILABLE}


async def test_killing_the_worker_again_and_again_loses_and_doubles_nothing(fake_worker: tuple[str, ...]) -> None:
    told, counts, number = Told(), Counts(), 0
    async with running(told, counts, command=fake_worker) as pipeline:
        for _ in range(3):
            await until(lambda: pipeline.stats().worker_ready)
            for _ in range(100):
                pipeline.offer(exchange(number), capture())
                number += 1
            pid = pipeline.stats().worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: pipeline.stats().worker_pid not in (pid,))
        await until(lambda: len(told.exchanges) == number)
        assert pipeline.stats().restart_count >= 2
    assert sorted(e.exchange_id for e in told.exchanges) == sorted(f"e{i}" for i in range(number))
    assert told.results()["checked"] >= number - 3  # at most what a worker held alone at two deaths


async def test_poison_is_given_up_after_two_deaths_and_its_neighbours_are_checked(fake_worker: tuple[str, ...]) -> None:
    told, counts = Told(), Counts()
    async with running(told, counts, command=fake_worker) as pipeline:
        await until(lambda: pipeline.stats().worker_ready)
        for i in range(40):
            pipeline.offer(exchange(i), capture("POISON" if i == 17 else "q"))
        await until(lambda: len(told.exchanges) == 40)
    poisoned = [e.exchange_id for e in told.exchanges if "poison" in e.findings[0].reason]
    assert poisoned == ["e17"]
    assert told.results()["checked"] == 39
    assert counts.seen["sft_guard_checks_dropped_total", "poison"] == 1
    assert counts.seen["sft_guard_failopen_total", "checks", "quarantined"] == 1


async def test_a_stopped_worker_fills_the_queue_and_then_drops_are_counted(fake_worker: tuple[str, ...]) -> None:
    told, counts = Told(), Counts()
    limits = PipelineLimits(pending_count=50, sweep_s=0.05, flush_s=0.1, backoff_min_s=0.05)
    async with running(told, counts, limits=limits, command=fake_worker) as pipeline:
        await until(lambda: pipeline.stats().worker_ready)
        pid = pipeline.stats().worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        taken = sum(pipeline.offer(exchange(i), capture()) for i in range(200))
        assert taken == 50
        stats = pipeline.stats()
        assert stats.queue_length == 50
        assert dict(stats.dropped) == {"queue_full": 150}
        assert stats.coverage_ratio == 0.0
        os.kill(pid, signal.SIGCONT)
        await until(lambda: len(told.exchanges) == 200)
    assert told.results() == {"checked": 50, "not checked: queue_full": 150}
    assert counts.seen["sft_guard_checks_dropped_total", "queue_full"] == 150


async def test_a_worker_that_hangs_with_work_is_killed_and_replaced(fake_worker: tuple[str, ...]) -> None:
    told = Told()
    limits = PipelineLimits(hang_s=0.3, sweep_s=0.05, backoff_min_s=0.05, flush_s=5.0)
    async with running(told, Counts(), limits=limits, command=fake_worker) as pipeline:
        await until(lambda: pipeline.stats().worker_ready)
        pipeline.offer(exchange(0), capture("HANG"))
        await until(lambda: len(told.exchanges) == 1)
        await until(lambda: pipeline.stats().worker_ready)
        pipeline.offer(exchange(1), capture())
        await until(lambda: len(told.exchanges) == 2)
    assert told.results() == {"not checked: poison": 1, "checked": 1}


async def test_an_exchange_that_waits_too_long_is_given_up_and_a_late_answer_is_ignored(
    fake_worker: tuple[str, ...],
) -> None:
    told = Told()
    limits = PipelineLimits(age_s=0.2, sweep_s=0.05, flush_s=1.0)
    async with running(told, Counts(), limits=limits, command=fake_worker) as pipeline:
        await until(lambda: pipeline.stats().worker_ready)
        pid = pipeline.stats().worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        pipeline.offer(exchange(0), capture())
        await until(lambda: told.exchanges)
        os.kill(pid, signal.SIGCONT)
        pipeline.offer(exchange(1), capture())
        await until(lambda: len(told.exchanges) == 2)
    assert told.results() == {"not checked: too_late": 1, "checked": 1}


@pytest.mark.parametrize("then", ["lives", "dies"])
async def test_a_batch_of_results_is_taken_in_over_many_turns_of_the_loop(tmp_path: Path, then: str) -> None:
    path = tmp_path / "batch_worker.py"
    path.write_text(BATCH_WORKER)
    told, most = Told(), 0
    async with running(told, Counts(), command=(sys.executable, str(path), then)) as pipeline:
        for number in range(40):
            assert pipeline.offer(exchange(number), capture())
        async with asyncio.timeout(20):
            while len(told.exchanges) < 40:
                before = len(told.exchanges)
                await asyncio.sleep(0)
                if pipeline.stats().worker_alive:
                    most = max(most, len(told.exchanges) - before)
    assert told.results() == {"checked": 40}
    assert sorted(e.exchange_id for e in told.exchanges) == sorted(f"e{n}" for n in range(40))
    if then == "lives":  # last words are taken at once
        assert 1 <= most <= 2


async def test_what_waited_too_long_is_given_up_in_small_lots() -> None:
    told, most = Told(), 0
    limits = replace(FAST, age_s=0.2, pending_count=1000)
    async with running(
        told, Counts(), limits=limits, command=(sys.executable, "-c", "import time; time.sleep(60)")
    ) as p:
        for number in range(1000):
            assert p.offer(exchange(number), capture())
        async with asyncio.timeout(20):
            while len(told.exchanges) < 1000:
                before = len(told.exchanges)
                await asyncio.sleep(0)
                most = max(most, len(told.exchanges) - before)
    assert told.results() == {"not checked: too_late": 1000}
    assert most <= 128  # the window of the worker, then 32 at a time


async def test_a_worker_that_cannot_start_leaves_the_path_alone(tmp_path: Path) -> None:
    told, counts = Told(), Counts()
    limits = PipelineLimits(flush_s=0.1, backoff_min_s=0.05)
    async with running(told, counts, limits=limits, command=(str(tmp_path / "missing"),)) as pipeline:
        assert pipeline.offer(exchange(0), capture())
        await asyncio.sleep(0.1)
        assert not pipeline.stats().worker_alive
    assert told.results() == {"not checked: stopped": 1}


async def test_a_spec_with_broken_rules_says_so_and_checks_are_unavailable(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{name: x}]")
    told = Told()
    async with running(told, Counts(), spec=CheckSpec(embedder="none", rules_path=str(rules))) as pipeline:
        pipeline.offer(exchange(0), capture())
        await until(lambda: told.exchanges)
        assert "rules.yaml: rules[0]" in pipeline.stats().problem
    assert {f.result for f in told.exchanges[0].findings} == {CheckResult.UNAVAILABLE}


async def test_bytes_are_bounded_as_well_as_the_count(fake_worker: tuple[str, ...]) -> None:
    told = Told()
    limits = PipelineLimits(pending_bytes=10_000, flush_s=0.05)
    pipeline = WorkerPipeline(CheckSpec(), (ROUTE,), told, Counts(), SystemClock(), limits=limits, command=fake_worker)
    assert not pipeline.offer(exchange(0), capture(answer="x" * 20_000))
    taken = sum(pipeline.offer(exchange(i), capture(answer="x" * 3_000)) for i in range(1, 9))
    assert taken == 3
    assert told.results() == {"not checked: too_large": 1, "not checked: queue_full": 5}


async def test_stopping_gives_back_what_was_never_started(fake_worker: tuple[str, ...]) -> None:
    told = Told()
    limits = PipelineLimits(flush_s=0.05)
    pipeline = WorkerPipeline(CheckSpec(), (ROUTE,), told, Counts(), SystemClock(), limits=limits, command=fake_worker)
    for i in range(5):
        pipeline.offer(exchange(i), capture())
    await pipeline.stop()
    assert not pipeline.offer(exchange(5), capture())
    assert told.results() == {"not checked: stopped": 6}


async def test_a_sink_that_raises_costs_a_counter_only(fake_worker: tuple[str, ...]) -> None:
    class Broken:
        def __init__(self) -> None:
            self.call_count = 0

        def checked(self, exchange: Exchange, text: ExchangeText | None) -> None:
            self.call_count += 1
            raise RuntimeError("disk on fire")

        def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
            raise AssertionError("nothing is given up here")

    sink, counts = Broken(), Counts()
    pipeline = WorkerPipeline(CheckSpec(), (ROUTE,), sink, counts, SystemClock(), limits=FAST, command=fake_worker)
    await pipeline.start()
    try:
        for i in range(10):
            pipeline.offer(exchange(i), capture())
        await until(lambda: sink.call_count == 10)
    finally:
        await pipeline.stop()
    assert counts.seen["sft_guard_failopen_total", "sink", "error"] == 10
