"""A judging model behind an OpenAI-compatible endpoint: sampled, within a daily budget, never in anybody's way.

One thread asks one question at a time. It connects to the configured origin and to nothing else: no redirects, no
proxy from the environment, no address that its name may not have, no tools in the request. What is not a bare number
is an anomaly and says nothing.
"""

from __future__ import annotations

import http.client
import logging
import os
import queue
import random
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from guard.checks import judge_budget, pii
from guard.checks.judge_budget import Limits
from guard.checks.judge_prompt import REPLY_TOKENS, Prompt, build_prompt, fits, read_score
from guard.checks.judge_spec import JudgeSpec
from guard.checks.opinion import Opinion, Question
from guard.checks.selftest import GOLDEN, GoldenPair, blind_languages
from guard.limits import Egress
from slo.clock import Clock
from slo.dialling import NotAllowed, http_connection
from slo.errors import DataError

log = logging.getLogger("guard.checks")

REPLY_BYTES = 64 * 1024
ANOMALY = "judge_anomaly"
SELFTEST_PAIRS = 4
"""Golden pairs of each language that are asked, half of them supported: each costs money."""


class JudgeError(Exception):
    """The judge did not answer as agreed; the message says how."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. tokens are None when the endpoint did not say."""

    text: str
    input_tokens: int | None
    output_tokens: int | None


Send = Callable[[JudgeSpec, Prompt], Reply]


def send(spec: JudgeSpec, prompt: Prompt) -> Reply:
    """One call. Blocks for at most about `timeout_s`.

    Raises:
        JudgeError: no connection, or none allowed; another status than 200, not a chat completion, or too long.
    """
    parts = urlsplit(spec.base_url)
    made = http_connection(parts, spec.timeout_s, Egress(spec.egress_networks).permits)
    body = {
        "model": spec.model,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        "temperature": 0,
        "max_tokens": REPLY_TOKENS,
        "stream": False,
    }
    headers = {"content-type": "application/json", "accept": "application/json"}
    if spec.api_key:
        headers["authorization"] = f"Bearer {spec.api_key}"
    try:
        made.request("POST", f"{parts.path.rstrip('/')}/chat/completions", msgspec.json.encode(body), headers)
        response = made.getresponse()
        data = response.read(REPLY_BYTES + 1)
    except NotAllowed as error:
        raise JudgeError(f"not reached: {error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise JudgeError(f"not reached ({type(error).__name__})") from error
    finally:
        made.close()
    if response.status != 200:
        raise JudgeError(f"answered {response.status}")
    if len(data) > REPLY_BYTES:
        raise JudgeError(f"answered more than {REPLY_BYTES} bytes")
    return read_reply(data)


def read_reply(data: bytes) -> Reply:
    """The text and the tokens of a chat completion.

    Raises:
        JudgeError: it is none, or it wants to call a tool.
    """
    try:
        document = msgspec.json.decode(data)
        message = document["choices"][0]["message"]
        text, usage = message.get("content"), document.get("usage") or {}
        if message.get("tool_calls") or not isinstance(text, str):
            raise JudgeError(f"{ANOMALY}: a reply without text")
        tokens = [usage.get(n) for n in ("prompt_tokens", "completion_tokens")]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise JudgeError("answered 200 without a chat completion") from error
    known = [t if isinstance(t, int) and not isinstance(t, bool) and t >= 0 else None for t in tokens]
    return Reply(text, known[0], known[1])


class LlmJudge:
    """`guard.checks.opinion.Detector` over HTTP.

    chance: uniform in [0, 1), for sampling. send: one call; tests put their own here.
    """

    check = "judge"

    def __init__(
        self, spec: JudgeSpec, clock: Clock, *, chance: Callable[[], float] = random.random, send: Send = send
    ) -> None:
        self._spec, self._clock, self._chance, self._send = spec, clock, chance, send
        self.threshold = 1.0 - spec.threshold
        self.name = f"judge:{spec.model}"
        self._limits = Limits(spec.daily_calls_count, spec.daily_usd)
        self._path = Path(spec.budget_path)
        self._problem, self._blind = "", dict[str, str]()
        try:
            self._spent = judge_budget.load_spent(self._path)
        except DataError as error:
            self._problem = f"judge: {error}"
        self._todo: queue.SimpleQueue[tuple[int, Question] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Opinion]] = queue.SimpleQueue()
        self._waiting_count = 0
        self._asked_since_test = False
        self._unattributed_usd = 0.0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()
        if spec.selftest and not self._problem:
            self._todo.put((-1, Question("", "", "", (), ())))

    @property
    def problem(self) -> str:
        """No budget file, or no language that it can tell apart."""
        return self._problem or ("judge: " + "; ".join(self._blind.values()) if len(self._blind) >= 2 else "")

    def filenos(self) -> Sequence[int]:
        return (self._wake_read,)

    def ask(self, ticket: int, asked: Question) -> Opinion | None:
        if problem := self.problem or self._blind.get(asked.language, ""):
            return Opinion(problem=problem)
        if not asked.claims or not asked.contexts:
            return Opinion(skipped="nothing to judge")
        if not fits(asked.answer, asked.contexts):  # what it does not see it would take for made up
            return Opinion(skipped="longer than what the judge reads")
        if not asked.unsure and self._chance() >= self._spec.sample_ratio:
            return Opinion(skipped="not sampled")
        if self._waiting_count >= self._spec.waiting_count:
            return Opinion(skipped="judge busy: sampled")
        self._waiting_count += 1
        self._asked_since_test = True
        self._todo.put((ticket, asked))
        return None

    def collect(self) -> list[tuple[int, Opinion]]:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        found = []
        while True:
            try:
                found.append(self._done.get_nowait())
            except queue.Empty:
                break
        self._waiting_count -= len(found)
        return found

    def look(self, *, retest: bool = False) -> None:
        if retest and self._spec.selftest and self._asked_since_test and not self._problem:
            self._asked_since_test = False
            self._todo.put((-1, Question("", "", "", (), ())))

    def close(self) -> None:
        self._todo.put(None)

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (todo := self._todo.get()) is not None:
            ticket, asked = todo
            try:
                if ticket < 0:
                    self._selftest()
                    continue
                opinion = self.judge(asked)
            except Exception as error:  # one odd text must not end the judge
                log.warning("judge failed: %s", type(error).__name__)
                if ticket < 0:
                    continue
                opinion = Opinion(problem=f"judge broke ({type(error).__name__})")
            self._done.put((ticket, opinion))
            try:
                os.write(self._wake_write, b"1")
            except OSError:
                pass  # the pipe is full of wakes: it wakes

    def judge(self, asked: Question) -> Opinion:
        """Ask about one answer, whatever it takes. Blocks."""
        spec = self._spec
        clean = (lambda text: pii.redact(text)[0]) if spec.redact else (lambda text: text)
        prompt = build_prompt(
            clean(asked.question), clean(asked.answer), tuple(map(clean, asked.contexts)), lambda: secrets.token_hex(16)
        )
        # A token is a byte at least, so no count of the endpoint can be higher.
        most_usd = _usd(spec, len((prompt.system + prompt.user).encode()) + 64, REPLY_TOKENS)
        wall_s = self._clock.wall_s()
        reserved = judge_budget.set_aside(self._spent, self._limits, wall_s, most_usd)
        if reserved is None:
            return Opinion(skipped="the judge's budget of today is spent", cost_usd=self._taken_usd(0.0))
        try:
            judge_budget.save_spent(self._path, reserved)
        except OSError as error:
            return Opinion(problem=f"judge: the budget cannot be written ({error.strerror}), so nothing is spent")
        self._spent = reserved
        try:
            reply = self._send(spec, prompt)
        except JudgeError as error:
            # It may have been billed: what was set aside stays spent.
            return Opinion(problem=str(error) if ANOMALY in str(error) else f"judge: {error}",
                           cost_usd=self._taken_usd(most_usd))  # fmt: skip
        cost_usd = most_usd
        if reply.input_tokens is not None and reply.output_tokens is not None:
            cost_usd = min(most_usd, _usd(spec, reply.input_tokens, reply.output_tokens))
            self._spent = judge_budget.settle(self._spent, reserved.day, most_usd, cost_usd)
            try:
                judge_budget.save_spent(self._path, self._spent)
            except OSError:
                pass  # the larger sum stands in the file: spent too much, never too little
        score = read_score(reply.text)
        if score is None:
            return Opinion(
                problem=f"{ANOMALY}: the reply is not a number from 0 to 1", cost_usd=self._taken_usd(cost_usd)
            )
        return Opinion((1.0 - score,) * len(asked.claims), cost_usd=self._taken_usd(cost_usd))

    def _taken_usd(self, usd: float) -> float:
        """This call and what the self-test has cost before it."""
        usd, self._unattributed_usd = usd + self._unattributed_usd, 0.0
        return usd

    def _selftest(self) -> None:
        pairs = [
            p for language in sorted({g.language for g in GOLDEN}) for supported in (True, False)
            for p in [g for g in GOLDEN if (g.language, g.supported) == (language, supported)][: SELFTEST_PAIRS // 2]
        ]  # fmt: skip
        spent_usd = 0.0
        failed = ""

        def says(pair: GoldenPair) -> bool | None:
            nonlocal spent_usd, failed
            if failed:
                return None
            found = self.judge(Question(pair.language, "", pair.answer, (pair.answer,), (pair.context,)))
            spent_usd += found.cost_usd
            if not found.probabilities:
                failed = found.problem or found.skipped
                return None
            return found.probabilities[0] < self.threshold

        blind = blind_languages(says, pairs)
        self._unattributed_usd += spent_usd
        if failed and ANOMALY not in failed:
            log.warning("judge: self-test not finished: %s", failed)  # each question says so itself
            return
        self._blind = blind


def _usd(spec: JudgeSpec, input_tokens: int, output_tokens: int) -> float:
    return (input_tokens * spec.input_usd + output_tokens * spec.output_usd) * 1e-6
