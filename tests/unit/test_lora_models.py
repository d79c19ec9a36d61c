"""The small model that the lora tests train: it speaks, it learns, and it can forget."""

from __future__ import annotations

from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from tests.lora_models import answers, general_chats, tiny_adapter, tiny_base, tiny_dataset


def likeness(said: list[str], wanted: list[str]) -> float:
    return fmean(SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in zip(said, wanted, strict=True))


def test_the_base_speaks_and_an_adapter_teaches_it_the_rules(tmp_path: Path) -> None:
    base, data = tiny_base(tmp_path / "base"), tiny_dataset()
    general = general_chats()[::12]
    asked, wanted = [q for q, _ in general], [a for _, a in general]
    assert likeness(answers(base, asked), wanted) > 0.8
    adapter = tiny_adapter(base, data.train, tmp_path / "adapter")
    questions, references = [r.question for r in data.test], [r.answer for r in data.test]
    before, after = answers(base, questions), answers(base, questions, adapter)
    assert likeness(before, references) < 0.4
    assert likeness(after, references) > 0.65
