"""What may be in an adapter: a closed list of file names, weights as safetensors, no code. Pure.

Checked before an adapter is sealed and again after it was opened, before any library reads it.

Source of the header's form: the safetensors format: 8 bytes little-endian length, JSON, tensors as one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec

from slo.codec import NOT_JSON
from slo.errors import RefusedError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
JSON_FILES = frozenset(
    {
        CONFIG,
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "generation_config.json",
        "run_card.json",
        "data_card.json",
        "evaluation.json",
    }
)
TEXT_FILES = frozenset({"merges.txt", "chat_template.jinja", "README.md"})
ALLOWED = JSON_FILES | TEXT_FILES | {WEIGHTS}

FILE_BYTES_MAX = 4 << 30
JSON_BYTES_MAX = 64 << 20
HEADER_BYTES_MAX = 16 << 20
_CODE_FIELDS = ("auto_map", "trust_remote_code", "custom_pipelines")
_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


def check_artifact(files: Mapping[str, bytes]) -> None:
    """Refuse what a loader should never see.

    Raises:
        RefusedError: `artifact_rejected` with the file and the reason.
    """
    for name in (WEIGHTS, CONFIG):
        if name not in files:
            raise _rejected(name, "is missing; an adapter has weights and a configuration")
    for name, data in files.items():
        if name not in ALLOWED:
            raise _rejected(name, f"may not be in an adapter; allowed: {', '.join(sorted(ALLOWED))}")
        if len(data) > (JSON_BYTES_MAX if name in JSON_FILES else FILE_BYTES_MAX):
            raise _rejected(name, f"has {len(data)} bytes")
        if name in JSON_FILES:
            _check_json(name, data)
    check_safetensors(WEIGHTS, files[WEIGHTS])


def check_safetensors(name: str, data: bytes) -> None:
    """The header of a safetensors file: size, form, and offsets that cover the data exactly once.

    Raises:
        RefusedError: `artifact_rejected`.
    """
    if len(data) < 8:
        raise _rejected(name, "is too short for safetensors")
    size = int.from_bytes(data[:8], "little")
    if size > HEADER_BYTES_MAX or 8 + size > len(data):
        raise _rejected(name, f"says that its header has {size} bytes")
    try:
        header = msgspec.json.decode(data[8 : 8 + size])
    except NOT_JSON as error:
        raise _rejected(name, "has a header that is not JSON") from error
    if not isinstance(header, dict):
        raise _rejected(name, "has a header that is not an object")
    spans = [_span(name, tensor, entry) for tensor, entry in header.items() if tensor != "__metadata__"]
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise _rejected(name, "has tensors that overlap or leave a gap")
        position = end
    if position != len(data) - 8 - size:
        raise _rejected(name, "has bytes that no tensor owns")


def _span(name: str, tensor: str, entry: Any) -> tuple[int, int]:
    try:
        start, end = (int(offset) for offset in entry["data_offsets"])
        shape = [int(length) for length in entry["shape"]]
        want = prod(shape) * _SIZES[entry["dtype"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _rejected(name, f"describes tensor {tensor[:80]!r} wrongly") from error
    if min(shape, default=0) < 0 or start < 0 or end - start != want:
        raise _rejected(name, f"describes tensor {tensor[:80]!r} wrongly")
    return start, end


def _check_json(name: str, data: bytes) -> None:
    try:
        found = msgspec.json.decode(data)
    except NOT_JSON as error:
        raise _rejected(name, "is not JSON") from error
    field = _code_field(found)
    if field:
        raise _rejected(name, f"asks for code ({field}); remove the field")


def _code_field(found: Any) -> str:
    """A field, at any depth, by which a loader would import code that came with the file."""
    pending = [found]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for field in _CODE_FIELDS:
                if value.get(field):
                    return field
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return ""


def _rejected(name: str, why: str) -> RefusedError:
    return RefusedError("artifact_rejected", f"{name[:80]!r} {why}")
