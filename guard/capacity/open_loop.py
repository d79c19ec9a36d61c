"""Sends requests on a fixed schedule, whatever the service does, and counts latency from the moment each was due.

A closed loop (send, wait, send) slows down with the service and so never asks for more than it can give; worse, the
requests that a stall held back are never counted ("coordinated omission", G. Tene, 2013). Here a stall delays nothing:
what was due is sent, and what was sent late counts from when it was due.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from slo.capacity import Step
from slo.statistics import quantile

TIMEOUT = "timeout"
ABORT_AFTER = 50
ABORT_ERROR_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """error: "" for a good answer, else a short word. first_byte_s: seconds from sending to the first byte."""

    error: str = ""
    first_byte_s: float | None = None


Send = Callable[[int], Awaitable[Answer]]
"""Ask question number n. Does not raise for what the service did."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How one step is run. step_s, warmup_ratio: its length, and how much of it is not measured.

    min_count, max_count: at least so many requests even if that takes up to three times as long, and at most so many.
    """

    step_s: float = 10.0
    warmup_ratio: float = 0.2
    min_count: int = 100
    max_count: int = 5000
    timeout_s: float = 30.0
    max_in_flight: int = 2000
    poisson: bool = True

    def length_s(self, rate_per_s: float) -> float:
        """Seconds of a step at this rate."""
        longest_s = max(self.step_s, min(self.min_count / rate_per_s, 3.0 * self.step_s))
        return min(longest_s, self.max_count / rate_per_s)


@dataclass(slots=True)
class _Sent:
    """One request: when it was due, how late it went out, how it ended. Times are of the event loop."""

    due_s: float
    lag_s: float
    ended_s: float = 0.0
    answer: Answer = Answer(TIMEOUT)


class OpenLoop:
    """Runs steps. chance: numbers in [0, 1), for Poisson arrivals; the same ones give the same schedule."""

    def __init__(self, send: Send, shape: Shape, chance: Callable[[], float]) -> None:
        self._send, self._shape, self._chance = send, shape, chance
        self._number = 0

    async def step(self, rate_per_s: float, settle_s: float = 0.0) -> Step:
        """Hold one rate and wait for all its answers. settle_s: what the warm-up must at least last, a P95, say."""
        loop, shape = asyncio.get_running_loop(), self._shape
        length_s = shape.length_s(rate_per_s)
        warm_s = max(shape.warmup_ratio * length_s, min(settle_s, length_s / 2))
        begin_s = loop.time()
        sent: list[_Sent] = []
        running: set[asyncio.Task[None]] = set()
        aborted = ""
        try:
            for offset_s in self._schedule(rate_per_s, length_s):
                due_s = begin_s + offset_s
                delay_s = due_s - loop.time()
                if delay_s > 0:
                    await asyncio.sleep(delay_s)
                aborted = self._why_stop(sent, running)
                if aborted:
                    break
                one = _Sent(due_s, max(0.0, loop.time() - due_s))
                sent.append(one)
                task = asyncio.create_task(self._one(one))
                running.add(task)
                task.add_done_callback(running.discard)
            if running:
                await asyncio.wait(set(running))
        finally:
            for task in list(running):
                task.cancel()
        return _summary(rate_per_s, sent, begin_s + warm_s, begin_s + length_s, aborted)

    def _schedule(self, rate_per_s: float, length_s: float) -> list[float]:
        """Moments at which requests are due, seconds from the start of the step.

        Given their number, the arrivals of a Poisson process are uniform points in order. Taking the expected number
        makes the offered rate the one that was asked for.
        """
        count = max(1, round(length_s * rate_per_s))
        if self._shape.poisson:
            return sorted(self._chance() * length_s for _ in range(count))
        return [number / rate_per_s for number in range(count)]

    def _why_stop(self, sent: list[_Sent], running: set[asyncio.Task[None]]) -> str:
        if len(running) >= self._shape.max_in_flight:
            return f"{len(running)} requests were under way at once"
        ended = len(sent) - len(running)
        if ended >= ABORT_AFTER and len(sent) % 10 == 0:
            failed = sum(1 for one in sent if one.ended_s and one.answer.error)
            if failed > ABORT_ERROR_RATIO * ended:
                worst = Counter(one.answer.error for one in sent if one.answer.error).most_common(1)[0][0]
                return f"{failed} of {ended} answers failed, mostly: {worst}"
        return ""

    async def _one(self, one: _Sent) -> None:
        loop = asyncio.get_running_loop()
        self._number += 1
        try:
            async with asyncio.timeout_at(one.due_s + self._shape.timeout_s):
                one.answer = await self._send(self._number)
        except TimeoutError:
            pass  # the answer stays TIMEOUT
        one.ended_s = loop.time()


def _summary(rate_per_s: float, sent: list[_Sent], from_s: float, to_s: float, aborted: str) -> Step:
    measured = [one for one in sent if from_s <= one.due_s < to_s] or (sent if aborted else [])
    waited = sorted(one.ended_s - one.due_s for one in measured if one.answer.error in ("", TIMEOUT))
    firsts = sorted(
        one.lag_s + one.answer.first_byte_s
        for one in measured
        if not one.answer.error and one.answer.first_byte_s is not None
    )
    lags = sorted(one.lag_s for one in measured)
    return Step(
        rate_per_s=rate_per_s,
        span_s=to_s - from_s,
        sent_count=len(measured),
        ok_count=sum(not one.answer.error for one in measured),
        finished_count=sum(not one.answer.error and from_s <= one.ended_s < to_s for one in sent),
        in_flight_count=sum(one.due_s < from_s <= one.ended_s for one in sent),
        p50_s=quantile(waited, 0.50) if waited else None,
        p95_s=quantile(waited, 0.95) if waited else None,
        p99_s=quantile(waited, 0.99) if waited else None,
        first_byte_p95_s=quantile(firsts, 0.95) if firsts else None,
        lag_p95_s=quantile(lags, 0.95) if lags else 0.0,
        errors=tuple(Counter(one.answer.error for one in measured if one.answer.error).most_common(8)),
        aborted=aborted,
    )
