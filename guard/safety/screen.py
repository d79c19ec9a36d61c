"""Questions refused before the upstream: the checks in mode `enforce`. On the data path: pure work, no waiting.

What breaks here lets the question pass and is counted; a guard that cannot look must not stop the bot. A message to the
caller names the check, never a word of the question.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from guard.checks.pii import check_pii_question
from guard.ports import Refusal, Route
from guard.safety import injection, toxicity
from guard.safety.modes import SafetySpec
from slo.types import CheckResult, Finding

log = logging.getLogger("guard.safety")

MESSAGE = {
    "injection": "this question was not sent to the model: it reads like instructions that change how the model "
    "behaves. "
    "Ask in other words, without instructions to the model.",
    "question_pii": "this question was not sent to the model: it holds personal data or a secret. Take it out "
    "and ask again.",
    "question_toxicity": "this question was not sent to the model: it holds abusive words.",
}
_PARAM = {"openai-chat": "messages", "openai-responses": "input"}
LOG_EVERY_S = 60.0
QUESTION_CHARS = 64_000
"""Of a longer question the rest is not screened: ten milliseconds are what one request may hold up the others."""


class Counters(Protocol):
    """Where refusals are counted."""

    def inc(self, metric: str, labels: Mapping[str, str], n: float = 1) -> None: ...


class Screen:
    """`guard.ports.QuestionScreen` for one configuration."""

    def __init__(self, spec: SafetySpec, counters: Counters, now_s: Callable[[], float]) -> None:
        """Everything is loaded here, so that the first question costs what the others cost.

        Raises:
            ConfigError: a word list cannot be read. DataError: the injection models cannot be used.
        """
        self._counters, self._now_s = counters, now_s
        self._logged_s, self._unsaid = -LOG_EVERY_S, 0
        self._checks: list[Callable[[str], Finding]] = []
        if spec.injection_question == "enforce":
            injection.ready_models()
            self._checks.append(lambda question: injection.check_question(question, spec.question_rate))
        if spec.pii_question == "enforce":
            self._checks.append(check_pii_question)
        if spec.toxicity_question == "enforce":
            lists = toxicity.WordLists(spec.word_files)
            check = toxicity.QUESTION_CHECK
            self._checks.append(lambda question: toxicity.check_toxicity(question, lists, check=check))

    def refusal(self, route: Route, question: str) -> Refusal | None:
        """See `QuestionScreen`."""
        try:
            for look in self._checks:
                finding = look(question[:QUESTION_CHARS])
                if finding.result is CheckResult.FAIL:
                    return self._refused(route, finding)
        except Exception as error:  # R1: observation fails open
            self._counters.inc("sft_guard_failopen_total", {"dep": "screen", "reason": "error"})
            log.debug("question not screened: %s", type(error).__name__)
        return None

    def unread(self) -> None:
        """See `QuestionScreen`."""
        self._counters.inc("sft_guard_failopen_total", {"dep": "screen", "reason": "invalid"})

    def _refused(self, route: Route, finding: Finding) -> Refusal:
        self._counters.inc("sft_guard_blocked_total", {"route": route.name, "check": finding.check})
        self._unsaid += 1
        now_s = self._now_s()
        if now_s - self._logged_s >= LOG_EVERY_S:  # one line a minute: a flood of attacks is no flood of lines
            log.warning("refused %d question(s) on route %s, last by %s", self._unsaid, route.name, finding.check)
            self._logged_s, self._unsaid = now_s, 0
        return Refusal(finding, MESSAGE[finding.check], _PARAM.get(route.adapter, route.question_path))
