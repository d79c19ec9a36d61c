"""`checks.safety` of guard.yaml: the mode of each safety signal, per place where it is looked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from guard.safety.modes import SafetySpec
from guard.settings.fields import EnvName, Model
from slo.errors import ConfigError

if TYPE_CHECKING:
    from guard.settings.loading import Settings

CANARY_MIN_CHARS = 8
PROMPT_BYTES = 64 * 1024


def _word(value: object) -> object:
    """YAML 1.1 reads `off` and `on` as booleans."""
    if value is False:
        return "off"
    if value is True:
        raise ValueError("write off, report or enforce")
    return value


def _reported(value: object) -> object:
    value = _word(value)
    if value == "enforce":
        raise ValueError("only questions can be enforced, before the model is asked; write report or off")
    return value


Mode = Annotated[Literal["off", "report", "enforce"], BeforeValidator(_word)]
ReportMode = Annotated[Literal["off", "report"], BeforeValidator(_reported)]
Rate = Literal["0.1%", "1%", "5%"]


class InjectionSettings(Model):
    """Instructions that try to take the model over."""

    question: Mode = Field("report", description="In the user's question; enforce answers 400 before the model.")
    contexts: ReportMode = Field("report", description="In retrieved contexts.")
    question_false_positives: Rate = Field("1%", description="Share of harmless questions that may be flagged.")
    contexts_false_positives: Rate = Field("1%", description="Share of harmless contexts that may be flagged.")


class PiiSettings(Model):
    """Personal data and secrets. `checks.pii: false` switches the answer off as well."""

    question: Mode = Field("off", description="In the user's question; enforce answers 400 before the model.")
    answer: ReportMode = Field(
        "report", description="Personal data in answers that stands in neither question nor contexts."
    )


class LeakSettings(Model):
    """The system prompt, word for word, in an answer. The request's own system message is always compared."""

    answer: ReportMode = Field("report", description="Parts of the system prompt, or the canary, in answers.")
    prompt: Path | None = Field(None, description="File with a system prompt that the bot adds behind this guard.")
    canary_env: EnvName | None = Field(
        None, description="Environment variable with a word put into the prompt that no answer may hold."
    )


class ToxicitySettings(Model):
    """Abusive words, by list."""

    question: Mode = Field("off", description="Insults in questions.")
    answer: ReportMode = Field("report", description="Insults in answers.")
    words: tuple[Path, ...] = Field((), description="Further lists: one word or phrase a line, # for comments.")


class AclSettings(Model):
    """Access tags of retrieved contexts against the roles of the request (header x-guard-roles, tenant)."""

    contexts: ReportMode = Field("report", description="Contexts whose tags the reader may not see.")


class SafetySettings(Model):
    """Safety signals."""

    injection: InjectionSettings = InjectionSettings()
    pii: PiiSettings = PiiSettings()
    leak: LeakSettings = LeakSettings()
    toxicity: ToxicitySettings = ToxicitySettings()
    acl: AclSettings = AclSettings()

    @property
    def enforces(self) -> bool:
        """Whether a question may be refused."""
        return "enforce" in (self.injection.question, self.pii.question, self.toxicity.question)


def safety_spec(settings: Settings) -> SafetySpec:
    """The part of the configuration that the checks get; files and secrets are read here.

    Raises:
        ConfigError: a file cannot be read, the canary is too short, or the checks as a whole are off.
    """
    from guard.safety.toxicity import load_words

    checks = settings.file.checks
    safety = checks.safety
    place = f"{settings.path.name}: checks.safety"
    words = tuple(settings.resolve(path) for path in safety.toxicity.words)
    for path in words:
        load_words(path)  # said at the start, not by the first abusive answer
    canary = settings.safety_canary or ""
    if canary and len(canary) < CANARY_MIN_CHARS:
        raise ConfigError(f"{place}.leak.canary_env", f"{len(canary)} characters", "give it at least 8, random ones")
    return SafetySpec(
        injection_question=safety.injection.question,
        injection_contexts=safety.injection.contexts,
        question_rate=safety.injection.question_false_positives,
        contexts_rate=safety.injection.contexts_false_positives,
        pii_question=safety.pii.question,
        pii_answer=safety.pii.answer if checks.pii else "off",
        leak_answer=safety.leak.answer,
        prompt=_prompt(settings.resolve(safety.leak.prompt), place) if safety.leak.prompt else "",
        canary=canary,
        toxicity_question=safety.toxicity.question,
        toxicity_answer=safety.toxicity.answer,
        word_files=tuple(map(str, words)),
        acl_contexts=safety.acl.contexts,
    )


def _prompt(path: Path, place: str) -> str:
    try:
        if path.stat().st_size > PROMPT_BYTES:
            raise ConfigError(f"{place}.leak.prompt", f"{path.stat().st_size} bytes", f"at most {PROMPT_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        cure = f"give the path of a readable text file ({error.strerror})"
        raise ConfigError(f"{place}.leak.prompt", str(path), cure) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}.leak.prompt", str(path), "save it as UTF-8") from error


__all__ = ["SafetySettings", "safety_spec"]
