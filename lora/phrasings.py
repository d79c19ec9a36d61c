"""Reads phrasings.yaml: the shipped one or the user's."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from slo.strict_yaml import load_yaml_file, validate_model

SHIPPED = Path(__file__).with_name("phrasings.yaml")
STYLES = ("short", "full", "formal", "mixed")


@dataclass(frozen=True, slots=True)
class Phrasings:
    """Words of one language. styles: style to templates with {topic}. answer: with {text}."""

    answer: str
    refusal: str
    styles: Mapping[str, tuple[str, ...]]
    refused: tuple[str, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def only_field(text: str, name: str) -> str:
    """The text, which must hold {name} and nothing else in braces. Raises ValueError."""
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise ValueError(f"a brace is left open ({error}); write {{{{ for a brace") from error
    if found != {name}:
        raise ValueError(f"{text!r} must hold {{{name}}} and nothing else in braces")
    return text


class _Language(_Strict):
    answer: str
    refusal: Annotated[str, Field(min_length=1)]
    styles: dict[Literal["short", "full", "formal", "mixed"], Annotated[tuple[str, ...], Field(min_length=1)]]
    refused: tuple[str, ...] = ()

    @field_validator("answer")
    @classmethod
    def _holds_text(cls, value: str) -> str:
        return only_field(value, "text")

    @field_validator("styles")
    @classmethod
    def _all_styles(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if missing := [style for style in STYLES if style not in value]:
            raise ValueError(f"style {missing[0]} is missing; there are {', '.join(STYLES)}")
        for templates in value.values():
            for template in templates:
                only_field(template, "topic")
        return value


class _File(_Strict):
    version: Literal[1]
    languages: Annotated[dict[str, _Language], Field(min_length=1)]


def load_phrasings(path: Path | None = None) -> dict[str, Phrasings]:
    """Words by language.

    Raises:
        ConfigError: with place, value and cure.
    """
    path = path or SHIPPED
    document, _ = load_yaml_file(path)
    file = validate_model(_File, document, path.name)
    return {
        lang: Phrasings(words.answer, words.refusal, {str(k): v for k, v in words.styles.items()}, words.refused)
        for lang, words in file.languages.items()
    }
