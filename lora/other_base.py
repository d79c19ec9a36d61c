"""Whether an adapter was trained on the base it is put on: one of the same shape fits, and answers something else.

By the hash of the weights where the run card beside the adapter has it, else by the last part of the name: directories
differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from lora.artifact import CONFIG
from slo.codec import NOT_JSON

CARD = "run_card.json"


def other_base(files: Mapping[str, bytes], base: str, base_sha256: str) -> str:
    """One line when the files of an adapter say that it was trained on another base; "" when not.

    >>> other_base({"adapter_config.json": b'{"base_model_name_or_path": "Qwen/Qwen2.5-1.5B"}'}, "models/tiny", "")
    'the adapter was trained on Qwen/Qwen2.5-1.5B, not on models/tiny: what it answers here was never judged'
    >>> other_base({"adapter_config.json": b'{"base_model_name_or_path": "Qwen/Qwen2.5-1.5B"}'}, "my/Qwen2.5-1.5B", "")
    ''
    """
    trained = _object(_read(files, CARD), "base").get("weights_sha256")
    if isinstance(trained, str) and trained and base_sha256:
        if trained == base_sha256:
            return ""
        said, here = f"weights {trained[:12]}...", f"{base} ({base_sha256[:12]}...)"
    else:
        name = _read(files, CONFIG).get("base_model_name_or_path")
        if not isinstance(name, str) or not name or PurePosixPath(name).name == PurePosixPath(base).name:
            return ""
        said, here = name[:120], base
    return f"the adapter was trained on {said}, not on {here}: what it answers here was never judged"


def _read(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(files.get(name, b"{}"), type=dict[str, Any])
    except NOT_JSON:
        return {}  # refused elsewhere, with its reason


def _object(place: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = place.get(name)
    return found if isinstance(found, dict) else {}
