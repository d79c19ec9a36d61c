"""What is done about each safety signal: `off`, `report` (a finding), `enforce` (refused before the upstream). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["off", "report", "enforce"]

RATES = ("0.1%", "1%", "5%")
"""False-positive rates that the injection models are calibrated for."""


@dataclass(frozen=True, slots=True)
class SafetySpec:
    """Modes by check and place, and what the checks compare with. Travels to the worker as it is.

    question_rate, contexts_rate: one of `RATES`, the share of harmless questions and of harmless contexts that may be
    flagged. prompt: a system prompt to protect beside the request's own. canary: a word that no answer may hold.
    word_files: further word lists for the toxicity check, absolute paths.
    """

    injection_question: Mode = "report"
    injection_contexts: Mode = "report"
    question_rate: str = "1%"
    contexts_rate: str = "1%"
    pii_question: Mode = "off"
    pii_answer: Mode = "report"
    leak_answer: Mode = "report"
    prompt: str = ""
    canary: str = ""
    toxicity_question: Mode = "off"
    toxicity_answer: Mode = "report"
    word_files: tuple[str, ...] = ()
    acl_contexts: Mode = "report"

    @property
    def screens(self) -> bool:
        """Whether anything is decided before the upstream."""
        return "enforce" in (self.injection_question, self.pii_question, self.toxicity_question)


ALL_OFF = SafetySpec("off", "off", "1%", "1%", "off", "off", "off", "", "", "off", "off", (), "off")
