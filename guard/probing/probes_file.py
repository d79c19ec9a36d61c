"""probes.yaml (or JSON lines): questions whose right documents or right answers are known."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, model_validator

from guard.settings.fields import Model
from slo.errors import ConfigError
from slo.strict_yaml import load_yaml_file, read_config, validate_model


class Probe(Model):
    """One question. documents: ids of which at least one has to be retrieved. reference: the right answer."""

    question: str = Field(min_length=1, max_length=4_000)
    documents: tuple[str, ...] = Field((), max_length=50)
    reference: str = Field("", max_length=20_000)
    language: str = Field("", max_length=16, description="For people; the embedder looks at the text itself.")

    @model_validator(mode="after")
    def _labelled(self) -> Probe:
        if not self.documents and not self.reference.strip():
            raise ValueError("a probe without `documents` and without `reference` tells nothing; add one of them")
        return self


class ProbesFile(Model):
    """probes.yaml"""

    probes: tuple[Probe, ...] = Field(min_length=1, max_length=1_000)


def load_probes(path: Path | str) -> tuple[Probe, ...]:
    """Read and check.

    Raises:
        ConfigError: with the file, the place in it, the value and the cure.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        document, _ = load_yaml_file(path)
        return validate_model(ProbesFile, document, path.name).probes
    rows = []
    for number, line in enumerate(read_config(path).splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(
                    f"{path.name}:{number}", line[:60], f"write one JSON object a line ({error})"
                ) from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path.name}:{number}", line[:60], "write one JSON object a line")
            rows.append(validate_model(Probe, row, f"{path.name}:{number}"))
    return validate_model(ProbesFile, {"probes": [r.model_dump() for r in rows]}, path.name).probes
