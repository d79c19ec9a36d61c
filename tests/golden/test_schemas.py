"""The published JSON Schemas are those of the program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guard.schemas import schema_texts

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


@pytest.mark.parametrize("name", sorted(schema_texts()))
def test_the_published_schema_is_the_one_in_use(name: str) -> None:
    text = schema_texts()[name]
    if os.environ.get("UPDATE_GOLDEN"):  # noqa: TID251 - test switch
        (SCHEMAS / name).write_text(text, encoding="utf-8")
    assert (SCHEMAS / name).read_text(encoding="utf-8") == text, "review, then UPDATE_GOLDEN=1 pytest tests/golden"
