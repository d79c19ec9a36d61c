"""The loop that asks the probes: every release in traffic, and versions named for it before they get any.

Probes go through the same path as a user's question (same upstreams, budgets and checks) and are told from it by their
exchange id: nothing of them reaches windows, log, cache or the counters of user traffic.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from guard.cache.types import CacheRequest
from guard.limits import TokenBucket
from guard.ports import Assignment, Capture, Route
from guard.probing.asking import documents_of, request_of
from guard.probing.probes_file import Probe
from guard.probing.results import ProbeResult, ProbeRow, row_of, verdict
from slo.clock import Clock
from slo.types import CheckResult, Exchange, Outcome

if TYPE_CHECKING:
    from guard.cache.quiet import QuietPath

log = logging.getLogger("sft-guard")

PREFIX = "probe-"
CHECKED_WITHIN_S = 30.0
FIRST_AFTER_S = 5.0
BETWEEN_S = 0.2
"""Rest between two probes: they are no load test."""


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What is asked and how often. `k` passages count for recall; per_hour: requests at most, all releases together."""

    probes: tuple[Probe, ...]
    route: Route
    every_s: float
    per_hour: int
    k: int
    model: str = ""


class ProbeRunner:
    """Asks round by round. quiet: a path of our own with `PREFIX`. offer: gives an answer to the checks, None: none.

    arms: who is asked now. increase: counts by result.
    """

    def __init__(
        self, plan: ProbePlan, quiet: QuietPath, offer: Callable[[Exchange, Capture], object] | None,
        arms: Callable[[], Sequence[Assignment]], increase: Callable[[str, Mapping[str, str]], None], clock: Clock,
    ) -> None:  # fmt: skip
        self.plan, self._quiet, self._offer = plan, quiet, offer
        self._arms, self._increase, self._clock = arms, increase, clock
        self._budget = TokenBucket(plan.per_hour / 3600.0, float(plan.per_hour))
        self._waiting: dict[str, asyncio.Future[Exchange]] = {}
        self.rows: dict[str, ProbeRow] = {}
        self.note = "no round yet"

    async def run(self) -> None:
        """For ever; the first round waits for the worker to load its embedder."""
        await self._clock.sleep(FIRST_AFTER_S)
        while True:
            began_s = self._clock.now_s()
            for arm in self._arms():
                await self.round(arm)
            await self._clock.sleep(max(1.0, self.plan.every_s - (self._clock.now_s() - began_s)))

    async def round(self, arm: Assignment) -> ProbeRow | None:
        """Every probe once; None when the budget or the path leaves no room for any of them."""
        results = []
        release = arm.target.version.release_id
        self.note = ""
        for probe in self.plan.probes:
            if not self._budget.take(self._clock.now_s()):
                self.note = f"the budget of {self.plan.per_hour} requests an hour is spent; the round is not complete"
                break
            result = await self._ask(probe, arm)
            if result is None:
                self.note = "the guard is busy with users; the round is not complete"
                break
            results.append(result)
            self._increase("sft_quality_probes_total", {"release": release, "result": verdict(result, self.plan.k)})
            await self._clock.sleep(BETWEEN_S)
        if not results:
            return None
        row = row_of(release, self._clock.wall_s(), results, self.plan.k)
        self.rows.pop(release, None)
        self.rows[release] = row
        while len(self.rows) > 8:
            del self.rows[next(iter(self.rows))]
        return row

    async def _ask(self, probe: Probe, arm: Assignment) -> ProbeResult | None:
        """None: not now."""
        ended: asyncio.Future[tuple[Exchange, Capture | None]] = asyncio.get_running_loop().create_future()

        def end(exchange: Exchange, capture: Capture | None) -> None:
            if not ended.done():
                ended.set_result((exchange, capture))

        model = self.plan.model or arm.target.version.model
        request = cast("CacheRequest", request_of(self.plan.route, probe.question, model))
        if self._quiet.ask(request, arm.target, arm.arm, arm.cache_epoch, end) is None:
            return None
        exchange, capture = await ended
        if exchange.outcome is not Outcome.OK or capture is None:
            return ProbeResult(probe.documents, failed=True)
        checked = await self._checked(exchange, replace(capture, reference=probe.reference))
        findings = {f.check: f for f in checked.findings} if checked is not None else {}
        zero, near = findings.get("zero_hit"), findings.get("similarity")
        known = zero is not None and zero.result in (CheckResult.PASS, CheckResult.FAIL)
        return ProbeResult(
            probe.documents, contexts_known=known, empty=zero is not None and zero.result is CheckResult.FAIL,
            documents=documents_of(capture),
            similarity=near.score if near is not None and probe.reference.strip() else None,
        )  # fmt: skip

    async def _checked(self, exchange: Exchange, capture: Capture) -> Exchange | None:
        if self._offer is None:
            return None
        waiting: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        self._waiting[exchange.exchange_id] = waiting
        try:
            self._offer(exchange, capture)
            return await asyncio.wait_for(waiting, CHECKED_WITHIN_S)
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(exchange.exchange_id, None)

    def is_probe(self, exchange: Exchange) -> bool:
        """Whether an exchange is one of ours."""
        return exchange.exchange_id.startswith(PREFIX)

    def checked(self, exchange: Exchange) -> None:
        """The checks of a probe are done."""
        waiting = self._waiting.get(exchange.exchange_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(exchange)
