"""An adapter on a base of the same shape that it was not trained on: it fits, so only its papers tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora.other_base import other_base
from lora.serving.catalog import Sources
from lora.weights import weights_sha256
from tests.lora_kit import adapter_directory, adapter_files


def card(digest: str) -> bytes:
    return json.dumps({"base": {"name": "tiny", "weights_sha256": digest}}).encode()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"run_card.json": card("a" * 64)}, ""),
        ({"run_card.json": card("b" * 64)}, "weights bbbbbbbbbbbb..., not on models/tiny (aaaaaaaaaaaa...)"),
        ({"run_card.json": card("b" * 64), "adapter_config.json": b'{"base_model_name_or_path": "tiny"}'}, "weights b"),
        ({"adapter_config.json": b'{"base_model_name_or_path": "/elsewhere/tiny"}'}, ""),
        ({"adapter_config.json": b'{"base_model_name_or_path": "large"}'}, "trained on large, not on models/tiny"),
        ({"adapter_config.json": b'{"r": 16}'}, ""),
        ({"adapter_config.json": b"[", "run_card.json": b"\xff"}, ""),
    ],
    ids=["same", "other", "same-name", "moved", "other-name", "silent", "damaged"],
)
def test_the_base_is_told_by_its_weights_else_by_its_name(files: dict[str, bytes], told: str) -> None:
    found = other_base(files, "models/tiny", "a" * 64)
    assert told in found
    assert bool(told) is bool(found)


def test_weights_are_hashed_in_the_order_of_their_names(tmp_path: Path) -> None:
    assert weights_sha256(str(tmp_path)) == weights_sha256("some/model-of-the-hub") == ""
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    one = weights_sha256(str(tmp_path))
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    assert len({"", one, weights_sha256(str(tmp_path))}) == 3


def test_each_adapter_that_is_served_is_looked_at(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    sources = Sources(look=lambda source, files: seen.append((source, files == adapter_files())))
    place = str(adapter_directory(tmp_path / "hr"))
    sources.read(place, None, anywhere=True)
    assert seen == [(place, True)]
