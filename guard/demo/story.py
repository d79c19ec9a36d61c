"""The five-minute story: a healthy service, a nightly release, and what the guard makes of it.

Composed of the real parts over HTTP on loopback: `sft-guard serve`, the answer path with two knowledge bases, the
simulated model, users, a webhook receiver. Nothing tells the guard what the release is; `incident` decides only which
of two knowledge bases the canary is built from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from guard.demo import answer_path, model_server
from guard.demo.admin_client import Admin
from guard.demo.content import articles, questions
from guard.demo.ledger import Ledger
from guard.demo.measured import measured_hallucination
from guard.demo.processes import Child, Children
from guard.demo.rebuild import healthy, too_small, whole
from guard.demo.receiver import Received, Receiver
from guard.demo.result import ArmResult, DemoResult, Moment
from guard.demo.scene import (
    CANARY,
    PLAN,
    STABLE,
    WINDOW,
    Release,
    Secrets,
    build_kb,
    make_release,
    write_guard_yaml,
    write_rules,
)
from guard.demo.users import Users
from guard.demo.visitors import Answered, Visitors
from rag.embedding import STATIC, load_embedder
from slo.baselines import collect, save_baseline
from slo.clock import Clock
from slo.errors import UpstreamError
from slo.sources.exchange_log import LogReader
from slo.spec import parse_duration_s

START_S = 60.0
POLL_S = 0.5
REPORT_EVERY_S = 10.0
CHECKS_LAG_S = 3.0
"""Checks run behind the answers; a baseline is collected after they caught up and the log is on disk."""
AFTER_COUNT = 20
WEBHOOK_WITHIN_S = 10.0
RECOVERY_WITHIN_S, RECOVERY_POLL_S = 60.0, 1.0


@dataclass(frozen=True, slots=True)
class Script:
    """What varies between runs.

    warm_up_s: healthy traffic for the baseline. canary_answers: after so many a canary that was not rolled back is
    taken for healthy. max_s: of everything.
    """

    seed: int = 1
    incident: bool = True
    rate: float = 20.0
    max_s: float = 240.0
    warm_up_s: float = 70.0
    canary_answers: int = 600


class Story:
    """One run in one directory. say: told each line of the timeline."""

    def __init__(self, script: Script, directory: Path, clock: Clock, say: Callable[[str], None]) -> None:
        self._script, self._directory, self._clock, self._say = script, directory, clock, say
        self._began_s = clock.now_s()
        self._timeline: list[Moment] = []
        self._secrets = Secrets.fresh()
        self._warm_up, self._ledger = Ledger(), Ledger()
        self._release_started_wall_s: float | None = None
        self._releases_after: list[str] = []
        self._after_wall_s: float | None = None

    async def tell(self) -> DemoResult:
        """Run it from beginning to end.

        Raises:
            GuardError: a part did not start or stopped by itself.
        """
        receiver = Receiver(self._secrets.webhook_secret, self._clock, self._on_webhook)
        async with Children(self._directory) as children, aiohttp.ClientSession() as session:
            try:
                webhook_port = await receiver.start()
                stable, canary = await self._set_up(children, webhook_port)
                guard = children.start(
                    "guard", ["-m", "guard.cli", "serve", "-c", "guard.yaml"], self._secrets.environment()
                )
                line = await guard.printed("serving on", self._clock, within_s=START_S)
                data_url, admin_url = _addresses(line)
                admin = Admin(admin_url, self._secrets.admin_token, session)
                self._note(f"guard on {data_url}, admin on {admin_url}")
                users = Users(questions(), seed=self._script.seed, rate=self._script.rate)
                visitors = Visitors(users, f"{data_url}/v1/chat/completions", session, self._clock, self._on_answer)
                asking = asyncio.create_task(visitors.run())
                try:
                    await self._warm(children, asking)
                    await self._learn(guard, admin, (stable, canary), webhook_port)
                    await self._release(admin)
                    rolled_back = await self._watch(children, asking, admin, stable, canary)
                    if rolled_back:
                        await self._prove(receiver, children, asking)
                        await self._recovered(admin, children, asking)
                finally:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                return await self._conclude(admin, guard, receiver, visitors, stable, canary)
            finally:
                await receiver.stop()

    # -- acts -----------------------------------------------------------------------------------------------------

    async def _set_up(self, children: Children, webhook_port: int) -> tuple[Release, Release]:
        """Knowledge bases, model, answer path, configuration."""
        seed = self._script.seed
        model = children.start("model", ["-m", "guard.demo.model_server", "--port", "0", "--seed", str(seed)])
        builds = whole(articles()), too_small(articles(), seed) if self._script.incident else healthy(articles())
        embedder = await asyncio.to_thread(load_embedder, STATIC)
        directories = [self._directory / "kb-stable", self._directory / "kb-canary"]
        kbs = [
            await asyncio.to_thread(build_kb, path, build, embedder)
            for path, build in zip(directories, builds, strict=True)
        ]
        model_port = (await model.printed(model_server.READY, self._clock, within_s=START_S)).split()[-1]
        command = ["-m", "guard.demo.answer_path", "--model-url", f"http://127.0.0.1:{model_port}/v1"]
        command += [word for path in directories for word in ("--kb", f"{path}:0")]
        path = children.start("answer-path", [*command, "--embedder", STATIC])
        ports = (await path.printed(answer_path.READY, self._clock, within_s=START_S)).split()[-2:]
        stable, canary = (
            make_release(version, build, kb, int(port))
            for version, build, kb, port in zip((STABLE, CANARY), builds, kbs, ports, strict=True)
        )
        write_rules(self._directory)
        self._write_guard_yaml((stable, canary), webhook_port, STATIC, baseline=False)
        for release in (stable, canary):
            build = release.build
            self._note(
                f"{release.version.name}: {len(build.rows)} rows of {build.mean_length:.0f} tokens ({build.chunking})"
            )
        return stable, canary

    async def _warm(self, children: Children, asking: asyncio.Task[None]) -> None:
        self._note(
            f"users arrive, {self._script.rate:g} questions a second; {self._script.warm_up_s:g} s of healthy traffic"
        )
        await self._while_asking(children, asking, self._script.warm_up_s)

    async def _learn(self, guard: Child, admin: Admin, releases: tuple[Release, Release], webhook_port: int) -> None:
        """A baseline from the exchange log, and a reload that makes the guard use it."""
        await self._clock.sleep(CHECKS_LAG_S)
        reader = LogReader(self._directory / "state" / "exchanges")
        baseline = await asyncio.to_thread(
            lambda: collect(
                (exchange for exchange, _ in reader),
                window_s=parse_duration_s(WINDOW),
                now_wall_s=self._clock.wall_s(),
                force=True,
            )
        )
        save_baseline(baseline, self._directory / "baseline.json")
        self._write_guard_yaml(releases, webhook_port, STATIC, baseline=True)
        guard.reload()
        await self._until(lambda: _has_baseline(admin), "the guard did not take the new baseline")
        values = baseline.of("sft_quality_hallucination_rate", baseline.window_s)
        shown = f", hallucination {100 * values.overall:.1f} %" if values else ""
        self._note(
            f"baseline collected from {baseline.exchange_count} exchanges (forced: a real one takes a week){shown}"
        )

    async def _release(self, admin: Admin) -> None:
        await admin.start(CANARY, PLAN)
        self._release_started_wall_s = self._clock.wall_s()
        self._note(f"release {CANARY} started: {PLAN}")

    async def _watch(
        self, children: Children, asking: asyncio.Task[None], admin: Admin, stable: Release, canary: Release
    ) -> bool:
        """Until the guard rolls back, the canary has answered enough, or time is over."""
        release_id = canary.version.release_id
        first_bad_told, report_s = False, self._clock.now_s() + REPORT_EVERY_S
        while self._elapsed_s() < self._script.max_s:
            await self._while_asking(children, asking, POLL_S)
            status = await admin.release()
            if status.phase in ("rolling_back", "rolled_back"):
                self._note(f"the guard rolled {CANARY} back: {status.reason}")
                return True
            if not first_bad_told and self._ledger.first_bad_wall_s(release_id) is not None:
                first_bad_told = True
                self._note(f"first bad answer of {CANARY} reached a user")
            if self._ledger.arm(release_id).answers_count >= self._script.canary_answers:
                self._note(f"{self._script.canary_answers} answers of {CANARY} and no rollback")
                return False
            if self._clock.now_s() >= report_s:
                report_s += REPORT_EVERY_S
                self._say(await self._progress(admin, stable, canary))
        self._note(f"no rollback within {self._script.max_s:g} s")
        return False

    async def _prove(self, receiver: Receiver, children: Children, asking: asyncio.Task[None]) -> None:
        """The webhook came and was genuine; the next answers are of stable."""
        self._after_wall_s = self._clock.wall_s()
        end_s = self._clock.now_s() + WEBHOOK_WITHIN_S
        while self._clock.now_s() < end_s and (len(self._releases_after) < AFTER_COUNT or not receiver.calls):
            await self._while_asking(children, asking, POLL_S)

    async def _recovered(self, admin: Admin, children: Children, asking: asyncio.Task[None]) -> None:
        """Users go on asking until the guard can say whether its rollback helped, for a minute at most."""
        end_s = self._clock.now_s() + RECOVERY_WITHIN_S
        while self._clock.now_s() < end_s:
            await self._while_asking(children, asking, RECOVERY_POLL_S)
            rows = [row for row in (await admin.incidents()).incidents if row.kind == "rollback"]
            after = (await admin.incident(rows[0].id)).get("aftermath") if rows else None
            if after and after["recovery"] != "pending":
                self._note(str(after["words"]))
                return

    async def _conclude(
        self, admin: Admin, guard: Child, receiver: Receiver, visitors: Visitors, stable: Release, canary: Release
    ) -> DemoResult:
        incidents = (await admin.incidents()).incidents
        found = next((row for row in incidents if row.kind == "rollback"), None)
        details = [await admin.incident(row.id) for row in incidents if row.kind == "rollback"]
        status = await admin.release()
        if found is not None:
            (self._directory / "postmortem.md").write_text(await admin.postmortem(found.id), encoding="utf-8")
        await guard.stop()  # the log is complete once it has stopped
        measured = await asyncio.to_thread(
            measured_hallucination, self._directory / "state" / "exchanges", self._release_started_wall_s or 0.0
        )

        def arm(release: Release) -> ArmResult:
            release_id = release.version.release_id
            judged_count, ratio = measured.get(release_id, (0, None))
            return ArmResult(release.version.name, judged_count, ratio, self._ledger.arm(release_id))

        first_bad_s = self._ledger.first_bad_wall_s(canary.version.release_id)
        detected = found.opened_wall_s - first_bad_s if found and first_bad_s is not None else None
        stable_hit = status.stable.name != STABLE or any(d["bad"]["name"] == STABLE for d in details)
        if found is not None:
            self._note(f"incident {found.id}: {found.title}")
        return DemoResult(
            seed=self._script.seed,
            incident=self._script.incident,
            rolled_back=found is not None,
            detected_after_s=detected,
            webhook_verified=found is not None and any(c.incident_id == found.id for c in receiver.calls),
            stable_rolled_back=stable_hit,
            next_from_stable=len(self._releases_after) >= AFTER_COUNT
            and set(self._releases_after) == {stable.version.release_id},
            incident_id=found.id if found else "",
            reason=str(details[0]["reason"]) if details else "",
            recovery=str((details[0].get("aftermath") or {}).get("recovery", "")) if details else "",
            asked_count=visitors.asked_count,
            turned_away_count=visitors.turned_away_count,
            stable=arm(stable),
            canary=arm(canary),
            duration_s=self._elapsed_s(),
            timeline=tuple(self._timeline),
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _on_answer(self, answered: Answered) -> None:
        if self._release_started_wall_s is None or answered.began_wall_s < self._release_started_wall_s:
            self._warm_up.enter(answered)
            return
        if self._after_wall_s is None:
            self._ledger.enter(answered)
        elif answered.began_wall_s > self._after_wall_s and answered.status == 200:
            self._releases_after.append(answered.release)

    def _on_webhook(self, call: Received) -> None:
        self._note(f"webhook {call.event} received, signature verified: {call.bad} -> {call.target}")

    async def _while_asking(self, children: Children, asking: asyncio.Task[None], seconds: float) -> None:
        """Let users ask for so long; stop at once when a part of the stage has fallen down."""
        end_s = self._clock.now_s() + seconds
        while (left_s := end_s - self._clock.now_s()) > 0:
            await self._clock.sleep(min(POLL_S, left_s))
            children.check()
            if asking.done():
                asking.result()

    async def _until(self, done: Callable[[], Awaitable[bool]], problem: str, within_s: float = 15.0) -> None:
        end_s = self._clock.now_s() + within_s
        while self._clock.now_s() < end_s:
            if await done():
                return
            await self._clock.sleep(0.1)
        raise UpstreamError(f"{problem} within {within_s:g} s; see guard.log")

    async def _progress(self, admin: Admin, stable: Release, canary: Release) -> str:
        rows = {(r.release, r.slo): r for r in (await admin.slo()).objectives}
        parts = []
        for release in (stable, canary):
            row = rows.get((release.version.release_id, "hallucination"))
            value = "unknown" if row is None or row.value is None else f"{100 * row.value:.1f} %"
            parts.append(f"{release.version.name} {value} of {row.events_count if row else 0}")
        limit = next((r.threshold for r in rows.values() if r.slo == "hallucination" and r.threshold is not None), None)
        shown = "none" if limit is None else f"{100 * limit:.1f} %"
        return f"          hallucination as the guard sees it: {', '.join(parts)}; limit {shown}"

    def _write_guard_yaml(
        self, releases: tuple[Release, Release], webhook_port: int, embedder: str, *, baseline: bool
    ) -> None:
        write_guard_yaml(
            self._directory / "guard.yaml",
            releases,
            embedder=embedder,
            webhook_port=webhook_port,
            enforce=True,
            token=True,
            baseline=baseline,
        )

    def _elapsed_s(self) -> float:
        return self._clock.now_s() - self._began_s

    def _note(self, what: str) -> None:
        moment = Moment(round(self._elapsed_s(), 1), what)
        self._timeline.append(moment)
        self._say(f"[{moment.at_s:6.1f} s] {what}")


async def _has_baseline(admin: Admin) -> bool:
    return (await admin.baseline()).present


def _addresses(line: str) -> tuple[str, str]:
    """Data and admin address of `sft-guard: serving on http://HOST:PORT (admin http://HOST:PORT)`."""
    urls = [word.strip("()") for word in line.split() if word.strip("()").startswith("http://")]
    return urls[0], urls[1]
