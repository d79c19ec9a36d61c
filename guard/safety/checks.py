"""The safety checks of one exchange, by their modes, for the check worker. Off the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from guard.checks.pii import check_pii_question
from guard.ports import ExchangeText
from guard.safety import acl, injection, leak, toxicity
from guard.safety.modes import SafetySpec
from slo.types import Finding

QUESTION_CHARS = 32_000


class SafetyChecks:
    """What is looked for, loaded once.

    Raises:
        ConfigError: a word list cannot be read.
    """

    def __init__(self, spec: SafetySpec) -> None:
        self._spec = spec
        self._lists = toxicity.WordLists(spec.word_files)

    def checks(self, text: ExchangeText, roles: frozenset[str]) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """(name, work) of each check that is on; the caller runs them and survives what breaks."""
        spec, question = self._spec, text.question[:QUESTION_CHARS]
        if spec.injection_question != "off":
            yield injection.QUESTION_CHECK, lambda: injection.check_question(question, spec.question_rate)
        if spec.injection_contexts != "off":
            yield (
                injection.CONTEXT_CHECK,
                lambda: injection.check_contexts(text.contexts, question, spec.contexts_rate),
            )
        if spec.pii_question != "off":
            yield "question_pii", lambda: check_pii_question(question)
        if spec.leak_answer != "off":
            known = (question, *(text.contexts or ()))
            yield leak.CHECK, lambda: leak.check_leak(text.answer, (text.system, spec.prompt), known, spec.canary)
        if spec.toxicity_answer != "off":
            yield toxicity.CHECK, lambda: toxicity.check_toxicity(text.answer, self._lists)
        if spec.toxicity_question != "off":
            yield (
                toxicity.QUESTION_CHECK,
                lambda: toxicity.check_toxicity(question, self._lists, check=toxicity.QUESTION_CHECK),
            )
        if spec.acl_contexts != "off":
            yield acl.CHECK, lambda: acl.check_acl(text.context_tags, roles)
