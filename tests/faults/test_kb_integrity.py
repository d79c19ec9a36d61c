"""Damage is never loaded, and two writers never mix: small forms of `make kb-integrity`."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from rag import storage
from rag.kb import KnowledgeBase
from tests.kb_integrity import flipped, loads, prepare, raced, truncated


def test_no_flipped_bit_and_no_truncation_is_loaded(tmp_path: Path) -> None:
    prepare(tmp_path, 40)
    assert flipped(tmp_path, 300, Random(7)) == 0
    tried, loaded = truncated(tmp_path, 8 * 1024)
    assert (tried > 40, loaded) == (True, 0)
    assert loads(tmp_path)


def test_a_reader_that_writers_overtake_until_its_generation_is_gone_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KnowledgeBase.init(tmp_path / "kb").add([{"text": "first"}])
    read, busy = storage.read, [True]

    def overtaken(directory: Path, **options: Any) -> storage.Generation:
        found = read(directory, **options)
        if busy.pop() if busy else False:
            writer = KnowledgeBase.open(directory)
            for number in range(storage.KEEP_COUNT + 4):
                writer.add([{"text": f"text {number}"}])
        return found

    monkeypatch.setattr(storage, "read", overtaken)
    assert KnowledgeBase.open(tmp_path / "kb").meta.doc_count == storage.KEEP_COUNT + 5


def test_two_writers_make_every_generation_once_and_lose_nothing(tmp_path: Path) -> None:
    found = raced(tmp_path / "kb", 12)
    assert found.pop("refused_and_repeated") is not None  # how often they met depends on the machine
    assert found == {
        "generations": 24,
        "numbered_twice_or_left_out": 0,
        "documents_lost_or_foreign": 0,
        "kb_version": 24,
        "writers_failed": 0,
    }
