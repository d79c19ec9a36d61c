"""Named arrays of numbers in one block of bytes, read in place. Pure, little-endian.

A line of JSON (names, types, lengths, and whatever else the writer wants to say), then the arrays, each at a multiple
of eight bytes, so that a mapped file can be looked at as numbers without copying it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping
from typing import Any

import msgspec

from slo.codec import NOT_JSON
from slo.errors import DataError

_ALIGNMENT = 8
_SIZES = {"Q": 8, "I": 4, "H": 2}


def pack(arrays: Mapping[str, array[int]], extra: Mapping[str, object] | None = None) -> bytes:
    """The arrays (type codes Q, I or H) and `extra` as bytes for `unpack`.

    >>> arrays, extra = unpack(pack({"rows": array("I", [4, 2])}, {"n": 1}), "here")
    >>> list(arrays["rows"]), extra
    ([4, 2], {'n': 1})
    """
    assert sys.byteorder == "little"
    shape = [[name, values.typecode, len(values)] for name, values in arrays.items()]
    head = msgspec.json.encode({"arrays": shape, "extra": extra or {}})
    head += b" " * (-(len(head) + 1) % _ALIGNMENT) + b"\n"
    parts = [head]
    for values in arrays.values():
        data = values.tobytes()
        parts += [data, b"\0" * (-len(data) % _ALIGNMENT)]
    return b"".join(parts)


def unpack(data: bytes | memoryview, place: str) -> tuple[dict[str, memoryview], dict[str, Any]]:
    """Views of the arrays, by name, and `extra`.

    Raises:
        DataError: not made by `pack`.
    """
    view = memoryview(data)
    size = 1 << 20
    while b"\n" not in (head_bytes := bytes(view[:size])) and size < len(view):
        size *= 4  # the roles of a large segment stand in it
    line = head_bytes.partition(b"\n")[0]
    try:
        head = msgspec.json.decode(line)
        position = len(line) + 1
        found: dict[str, memoryview] = {}
        for name, code, count in head["arrays"]:
            size = _SIZES[code] * count
            found[name] = view[position : position + size].cast(code)
            position += size + -size % _ALIGNMENT
        return found, head["extra"]
    except (*NOT_JSON, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: not a file of arrays ({error}); build the knowledge base again") from error
