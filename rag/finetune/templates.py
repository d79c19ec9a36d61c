"""Reads templates.yaml: the shipped one or the user's."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rag.finetune.rows import LanguageTemplates, QuestionTemplate, Templates
from slo.strict_yaml import load_yaml_file, validate_model

SHIPPED = Path(__file__).with_name("templates.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _fields(text: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"a brace is left open ({error}); write {{{{ for a brace") from error


class _Question(_Strict):
    ask: str
    needs: Literal["", "limits"] = ""

    @field_validator("ask")
    @classmethod
    def _has_topic(cls, value: str) -> str:
        if _fields(value) != {"topic"}:
            raise ValueError("a question holds {topic} and nothing else in braces")
        return value


class _Language(_Strict):
    system: Annotated[str, Field(min_length=1)]
    questions: Annotated[tuple[_Question, ...], Field(min_length=1)]
    reply: Annotated[str, Field(min_length=1)]
    no_details: str = ""
    unseen: tuple[str, ...] = ()

    @field_validator("reply")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        known = {"first", "rest", "doc_id", "date", "title"}
        if strange := _fields(value) - known:
            raise ValueError(f"unknown {{{sorted(strange)[0]}}}; known are {', '.join(sorted(known))}")
        if "first" not in _fields(value):
            raise ValueError("the reply never says the rule: write {first}")
        return value

    @field_validator("unseen")
    @classmethod
    def _unseen_topics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if _fields(text) != {"topic"}:
                raise ValueError(f"{text!r} must hold {{topic}} and nothing else in braces")
        return value


class _File(_Strict):
    version: Literal[1]
    questions_per_document: Annotated[int, Field(ge=1, le=20)] = 2
    languages: Annotated[dict[str, _Language], Field(min_length=1)]


def load_templates(path: Path | str | None = None) -> Templates:
    """Templates of a file, by default the shipped one.

    Raises:
        ConfigError: with place, value and cure.
    """
    path = Path(path) if path else SHIPPED
    document, _ = load_yaml_file(path)
    file = validate_model(_File, document, path.name)
    return Templates(
        {
            lang: LanguageTemplates(
                words.system,
                tuple(QuestionTemplate(q.ask, q.needs) for q in words.questions),
                words.reply,
                words.no_details,
                words.unseen,
            )
            for lang, words in file.languages.items()
        },
        file.questions_per_document,
    )
