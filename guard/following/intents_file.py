"""intents.yaml: named groups of example questions, and how good their answers have to be."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from guard.settings.fields import Model, Name, Ratio
from slo.strict_yaml import load_yaml_file, validate_model

MINIMUM_RATIO = 0.85


class Intent(Model):
    """One group. minimum: share of good answers it must have."""

    name: Name
    examples: tuple[str, ...] = Field(min_length=1, max_length=500)
    minimum: Ratio = MINIMUM_RATIO

    @field_validator("examples")
    @classmethod
    def _filled(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, example in enumerate(value):
            if not example.strip():
                raise ValueError(f"example {number} is empty; write a question, in any language")
        return value


class IntentsFile(Model):
    """intents.yaml"""

    intents: tuple[Intent, ...] = Field(min_length=1, max_length=20)

    @field_validator("intents")
    @classmethod
    def _unique(cls, value: tuple[Intent, ...]) -> tuple[Intent, ...]:
        names = [intent.name for intent in value]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two intents are called `{min(twice)}`; each name may appear once")
        owner: dict[str, str] = {}
        for intent in value:
            for example in intent.examples:
                key = " ".join(example.split()).casefold()
                if owner.setdefault(key, intent.name) != intent.name:
                    raise ValueError(f"`{example}` is an example of `{owner[key]}` and of `{intent.name}`; keep one")
        return value


def load_intents(path: Path | str) -> tuple[Intent, ...]:
    """Read and check intents.yaml.

    Raises:
        ConfigError: with the file, the place in it, the value and the cure.
    """
    path = Path(path)
    document, _ = load_yaml_file(path)
    return validate_model(IntentsFile, document, path.name).intents
