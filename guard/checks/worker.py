"""The check worker: `python -m guard.checks.worker FD`. Jobs in, findings out, over one socket.

It answers by words from its first moment and loads the embedder beside; `detector` in each finding says what served.
It runs at lower priority than the proxy, leaves no core dump (it holds the words of users), and stops with its parent.
"""

from __future__ import annotations

import logging
import resource
import select
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.background import stay_behind
from guard.checks.calibration import Calibration
from guard.checks.detector_link import DetectorLink
from guard.checks.frames import Beat, Done, DriftNews, FromWorker, Job, Ready, Splitter, decode_to_worker, frame
from guard.checks.grounding import read_claims
from guard.checks.in_doubt import InDoubt
from guard.checks.lexicon import is_cjk
from guard.checks.opinion import Detector, Question
from guard.checks.opinions import Opinions, replace_done, worth_asking
from guard.checks.semantic import Semantic
from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite, redacted, stored_text
from guard.following.follower import Facts, Follower
from guard.ports import ExchangeText, Route
from guard.safety.acl import roles_of
from guard.wire.dialects import DIALECTS
from slo.clock import Clock, SystemClock
from slo.errors import GuardError
from slo.metric_names import CHECKS
from slo.types import CheckResult, Finding

if TYPE_CHECKING:
    from rag.embedding import Embedder

log = logging.getLogger("guard.checks")

OWN_PREFIXES = ("quiet-", "probe-")
"""Exchange ids of requests that the guard asks itself."""

BEAT_S = 2.0
RETEST_S = 3600.0
BUSY_COUNT = 4
"""Jobs waiting in this process from which nothing is embedded: falling behind costs more than it adds."""

EMBED_SHARE = 0.25
"""Share of the time the embedder may work; in between similarity is skipped. The proxy shares the machine."""

ANSWER_BATCH = 8

ENDPOINT_AGAIN_S = 30.0
"""Between two looks at an embeddings endpoint that was not there at the start."""


class Worker:
    """The loop of one worker over a connected socket."""

    def __init__(self, link: socket.socket, clock: Clock) -> None:
        self._link, self._clock = link, clock
        self._splitter = Splitter()
        self._jobs: deque[Job] = deque()
        self._routes: tuple[Route, ...] = ()
        self._suite: CheckSuite | None = None
        self._news: deque[Ready | DriftNews] = deque()
        self._retest_at_s = clock.now_s() + RETEST_S
        self._beat_at_s = clock.now_s() + BEAT_S
        self._embed_again_s = 0.0
        self._opinions: Opinions | None = None
        self._follower: Follower | None = None
        self._told: Ready | None = None
        self._read: ExchangeText | None = None  # words of the job answered last; None when they could not be read

    def run(self) -> int:
        """Serve until the other side closes. Returns an exit status."""
        while True:
            wait_s = 0.0 if self._jobs else BEAT_S
            own = self._link.fileno()
            slower = self._opinions.filenos() if self._opinions is not None else []
            readable, _, _ = select.select([own, *slower], [], [], wait_s)
            if own in readable:
                data = self._link.recv(1 << 18)
                if not data:
                    if self._opinions is not None:
                        self._opinions.close()
                    return 0
                for body in self._splitter.feed(data):
                    self._take(body)
            out: list[FromWorker] = []
            self._heartbeat()
            while self._news:
                out.append(self._news.popleft())
            for _ in range(min(len(self._jobs), ANSWER_BATCH)):
                done = self._answer_or_hold(self._jobs.popleft())
                if done is not None:
                    out.append(done)
            if self._opinions is not None:
                out += [self._redacted(done) for done in self._opinions.collect()]
            if not out and own not in readable:
                out.append(Beat())
            if out:
                self._link.sendall(b"".join(map(frame, out)))

    def _take(self, body: bytes) -> None:
        message = decode_to_worker(body)
        if isinstance(message, Job):
            self._jobs.append(message)
            return
        self._routes = message.routes
        try:
            self._suite = CheckSuite(message.spec)
        except GuardError as error:
            self._news.append(Ready(f"checks off: {error}", str(error)))
            return
        self._opinions = load_opinions(message.spec, self._clock, self._suite.calibration)
        self._follower = load_follower(message.spec)
        self._tell_state(self._suite)
        if message.spec.embedder != "none" or message.spec.transformer != "none":
            self._suite.embedder_pending = message.spec.embedder != "none"
            threading.Thread(target=self._load, args=(self._suite, message.spec), daemon=True).start()

    def _load(self, suite: CheckSuite, spec: CheckSpec) -> None:
        if spec.embedder != "none":
            self._load_embedder(suite, spec)
        if spec.transformer != "none":
            suite.embedder_line += f"; in doubt: {load_transformer(suite, self._clock)}"
            self._tell_state(suite)

    def _load_embedder(self, suite: CheckSuite, spec: CheckSpec) -> None:
        suite.embedder_line, semantic = load_semantic(spec)
        while semantic is None and spec.endpoint is not None:  # it may be back any time; until then by words
            suite.embedder_pending = False
            self._tell_state(suite)
            threading.Event().wait(ENDPOINT_AGAIN_S)
            suite.embedder_line, semantic = load_semantic(spec)
        suite.embed_with(semantic)
        suite.embedder_pending = False
        self._tell_state(suite)

    def _tell_state(self, suite: CheckSuite) -> None:
        """Say what serves and what is blind, when it is not what was said last."""
        blind = {**suite.blind, **(self._opinions.problems if self._opinions is not None else {})}
        news = Ready(suite.embedder_line, "; ".join(blind.values()), blind)
        if news != self._told:
            if self._told is not None and news.problem != self._told.problem:
                log.warning("checks: %s", news.problem or "all detectors may be believed again")
            self._told = news
            self._news.append(news)

    def _heartbeat(self) -> None:
        """Every `BEAT_S`, also under full load: look at the files of the detectors; hourly run the golden pairs."""
        now_s = self._clock.now_s()
        if self._suite is None or now_s < self._beat_at_s:
            return
        self._beat_at_s = now_s + BEAT_S
        retest = now_s >= self._retest_at_s
        if retest:
            self._retest_at_s = now_s + RETEST_S
            self._suite.retest()
        else:
            self._suite.look()
        if self._opinions is not None:
            self._opinions.look(retest=retest)
        self._tell_state(self._suite)

    def _answer_or_hold(self, job: Job) -> Done | None:
        """The answer to a job, or None while slower detectors are asked about it."""
        done = self.answer(job)
        suite, opinions = self._suite, self._opinions
        if suite is None or opinions is None or self._read is None:
            return done
        grounding = next((f for f in done.findings if f.check == "grounding"), None)
        if not worth_asking(grounding):
            return done
        text = self._read
        claims, _ = read_claims(text.answer)
        language = "zh" if is_cjk(text.answer) else "en"
        asked = Question(language, text.question, text.answer, tuple(c.text for c in claims), text.contexts or ())
        try:
            held = opinions.begin(done, asked, lambda tiers: suite.ground(text, tiers))
        except Exception as error:  # a defect in a slower tier must not cost what the others found
            log.warning("slower detectors failed: %s", type(error).__name__)
            return done
        return self._redacted(held) if held is not None else None

    def _redacted(self, done: Done) -> Done:
        mode = self._suite.spec.text_mode if self._suite is not None else "none"
        return replace_done(done, redacted(done.findings, mode), done.judge_usd)

    def answer(self, job: Job) -> Done:
        """Check one job. Never raises: a text that cannot be read is `unavailable`."""
        suite, self._read = self._suite, None
        if suite is None:
            return Done(job.job_id, unavailable("checks are not configured"), None)
        if job.truncated:  # never judge a part as the whole answer
            return Done(job.job_id, unavailable("capture truncated", suite.spec.names), None)
        try:
            route = self._routes[job.route] if isinstance(job.route, int) else job.route
            text = DIALECTS[route.adapter].extract_text(
                route, job.request, job.response, job.response_headers, job.stream
            )
            if job.reference:
                text = replace(text, reference=job.reference)
            began_s = self._clock.now_s()
            busy = len(self._jobs) >= BUSY_COUNT or began_s < self._embed_again_s
            busy = busy and not (suite.semantic is not None and suite.semantic.every_answer)
            if suite.transformer is not None:
                suite.transformer.behind = len(self._jobs) >= BUSY_COUNT
            roles = roles_of(job.roles, job.tenant)
            findings = suite.check(text, release=job.release, arm=job.arm, busy=busy, roles=roles)
            if not busy:
                ended_s = self._clock.now_s()
                self._embed_again_s = ended_s + (ended_s - began_s) * (1.0 / EMBED_SHARE - 1.0)
            findings = (*findings, *self._follow(text, job, findings, suite.semantic, busy=busy))
            self._read = text
            stored, count = stored_text(text, suite.spec.text_mode)
            return Done(job.job_id, redacted(findings, suite.spec.text_mode), stored, count)
        except Exception as error:  # Captured bytes come from outside; one odd answer must not stop the worker.
            log.warning("exchange could not be checked: %s", type(error).__name__)
            return Done(job.job_id, unavailable(f"text not readable ({type(error).__name__})", suite.spec.names), None)

    def _follow(
        self, text: ExchangeText, job: Job, findings: tuple[Finding, ...], semantic: Semantic | None, *, busy: bool
    ) -> list[Finding]:
        """What this exchange says together with those before it; requests of the guard's own are left out."""
        follower = self._follower
        if follower is None or job.exchange_id.startswith(OWN_PREFIXES):
            return []
        follower.embed_with(semantic)
        facts = Facts(job.exchange_id, job.wall_s, job.release, job.arm == "stable", job.session)
        found, news = follower.follow(text, facts, findings, busy=busy)
        self._news.extend(news)
        return found


def load_follower(spec: CheckSpec) -> Follower | None:
    """None where numpy is broken or intents.yaml was changed into something wrong; the checks go on."""
    try:
        return Follower(spec.follow)
    except Exception as error:  # as above: following is less than checking
        log.warning("key intents, reopens and drift are off: %s", " ".join(str(error).split())[:300])
        return None


def unavailable(reason: str, checks: Iterable[str] = CHECKS) -> tuple[Finding, ...]:
    """Every one of the checks as unavailable, with one reason."""
    return tuple(Finding(check, CheckResult.UNAVAILABLE, None, reason) for check in checks)


def load_opinions(spec: CheckSpec, clock: Clock, calibration: Calibration) -> Opinions | None:
    """The slower detectors that are configured, model before judge; None without any. Starts their processes."""
    detectors: list[Detector] = []
    bands = []
    if spec.detector is not None:
        detectors.append(DetectorLink(spec.detector, clock))
        bands.append(spec.detector.band)
    if spec.judge is not None:
        from guard.checks.llm_judge import LlmJudge  # TLS and HTTP: only where they are used

        detectors.append(LlmJudge(spec.judge, clock))
        bands.append(spec.judge.band)
    calibrated = {name: language.band for name, language in calibration.languages.items()}
    return Opinions(detectors, bands, calibrated) if detectors else None


def load_semantic(spec: CheckSpec) -> tuple[str, Semantic | None]:
    """Status line and embedder; None when it is off, missing or damaged."""
    from rag.by_language import with_every_script
    from rag.embedding import embedder_status, load_embedder
    from rag.endpoint import EndpointEmbedder

    ok, line = (True, "") if spec.endpoint is not None else embedder_status(spec.embedder)
    if not ok:
        return line, None
    try:
        if spec.endpoint is not None:
            embedder: Embedder | None = EndpointEmbedder(**spec.endpoint.arguments())
        else:
            embedder = load_embedder(spec.embedder, threads=1)
    except Exception as error:  # whatever a model library raises, checks go on by words
        return f"embedder not usable, by words alone: {' '.join(str(error).split())[:300]}", None
    if embedder is None:
        return line, None
    serving = with_every_script(embedder)
    return ", ".join(f"{name} {stamp}" for name, stamp in serving.fingerprints.items()), Semantic(serving)


def load_transformer(suite: CheckSuite, clock: Clock) -> str:
    """Give the suite its transformer for claims in doubt; its name, or why the tiers before decide alone."""
    from rag.embedding import embedder_status, load_embedder

    name = suite.spec.transformer
    ok, line = embedder_status(name)
    try:
        embedder = load_embedder(name, threads=1) if ok else None
        if embedder is not None:
            suite.doubt_with(InDoubt(Semantic(embedder), clock))
            return f"{embedder.name}@{embedder.fingerprint}"
    except Exception as error:  # whatever a model library raises, checks go on by words
        line = " ".join(str(error).split())[:400]
    log.warning("checks.transformer is not used: %s", line)
    return f"nobody ({line})"


def main() -> int:
    """Entry point of the process; the only argument is the number of an inherited socket."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stay_behind()
    with socket.socket(fileno=int(sys.argv[1])) as link:
        link.setblocking(True)
        try:
            return Worker(link, SystemClock()).run()
        except (ConnectionError, KeyboardInterrupt):
            return 0


if __name__ == "__main__":
    sys.exit(main())
