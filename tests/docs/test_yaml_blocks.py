"""Every YAML block of the pages is what its page says: read by the program, or by the schema of its kind elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guard.following.intents_file import load_intents
from guard.probing.probes_file import load_probes
from guard.settings import load_without_secrets
from guard.settings.file import GuardFile
from rag.routes_file import load_routes
from slo.spec import parse_slo
from slo.strict_yaml import parse_yaml
from tests.docs.pages import Block, all_blocks

BLOCKS = all_blocks("yaml")
GUARD_YAML = """service: faq-bot
routes:
  - {name: chat, path: /v1/chat/completions, adapter: openai-chat}
  - {name: ask, path: /ask, adapter: json}
versions:
  v1: {upstreams: ["http://127.0.0.1:9"], model: m1}
  v2: {upstreams: ["http://127.0.0.1:9"], model: m2}
release: {stable: v1}
"""
OTHERS = {"argoproj.io/v1alpha1", "flagger.app/v1beta1"}
"""Of other programs: `tests/contracts/test_gate_contract.py` asks what they ask."""


def kind_of(block: Block) -> str:
    """guard.yaml, slo.yaml, or the name of another file; by what stands in it."""
    found = parse_yaml(block.text, str(block))
    for kind, key in (("intents", "intents"), ("probes", "probes"), ("routes", "models"), ("others", "apiVersion")):
        if key in found:
            return kind
    if {"objectives", "preset"} & set(found):
        return "slo"
    return "guard" if set(found) <= set(GuardFile.model_fields) else "nothing that is known"


def merged(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return into | {
        key: merged(into[key], value) if isinstance(value, dict) and isinstance(into.get(key), dict) else value
        for key, value in more.items()
    }


def written(value: object) -> str:
    """YAML, by way of JSON, which is a part of it."""
    return json.dumps(value, ensure_ascii=False)


def test_there_are_blocks_of_every_kind() -> None:
    assert {kind_of(block) for block in BLOCKS} == {"guard", "slo", "intents", "probes", "routes", "others"}
    assert sum(kind_of(block) == "guard" for block in BLOCKS) > 12


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_program_takes_it(block: Block, tmp_path: Path) -> None:
    kind, path = kind_of(block), tmp_path / "file.yaml"
    path.write_text(block.text, encoding="utf-8")
    if kind == "slo":
        assert parse_slo(block.text).objectives
    elif kind == "guard":
        (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n", encoding="utf-8")
        document = merged(parse_yaml(GUARD_YAML, "base"), parse_yaml(block.text, str(block)))
        if set(document.get("cache", {})) & {"warming", "semantic"}:
            document["cache"] = {"store": "memory", **document["cache"]}
        path.write_text(written(document), encoding="utf-8")
        settings, _ = load_without_secrets(path)
        assert settings.file.service == "faq-bot"
    elif kind == "intents":
        assert load_intents(path)
    elif kind == "probes":
        assert load_probes(path)
    elif kind == "routes":
        learnt, written_out = "thresholds_file: thresholds.json", "thresholds: {best: 0.55, mean: 0.35, documents: 1}"
        assert learnt in block.text
        path.write_text(block.text.replace(learnt, written_out), encoding="utf-8")
        assert load_routes(path, lambda name: "key")
    else:
        assert parse_yaml(block.text, str(block))["apiVersion"] in OTHERS
