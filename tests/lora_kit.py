"""A small adapter on disk, a key ring and a vault, for tests."""

from __future__ import annotations

import json
from pathlib import Path

from lora.access import Person, Role
from lora.keys import KeyRing, make_ring
from lora.vault import Vault

WALL_S = 1_750_000_000.0
KEYHOLDER = Person("ada", Role.KEYHOLDER)
RELEASER = Person("bob", Role.RELEASER)
VIEWER = Person("eve", Role.VIEWER)


def safetensors_bytes(count: int = 4) -> bytes:
    """One tensor of float32 zeros and ones, written by hand."""
    data = b"".join((b"\x00\x00\x80\x3f" if n % 2 else bytes(4)) for n in range(count))
    header = json.dumps({"lora_A": {"dtype": "F32", "shape": [count], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def adapter_files() -> dict[str, bytes]:
    """The smallest adapter that is allowed."""
    return {"adapter_config.json": b'{"r": 16, "lora_alpha": 32}', "adapter_model.safetensors": safetensors_bytes()}


def adapter_directory(directory: Path, **more: bytes) -> Path:
    """Write the files of an adapter."""
    directory.mkdir(parents=True)
    for name, data in {**adapter_files(), **more}.items():
        (directory / name).write_bytes(data)
    return directory


def ring_of(directory: Path) -> KeyRing:
    """A key ring on disk."""
    return make_ring(directory / "keys.json")


def vault_of(directory: Path, ring: KeyRing, person: Person = KEYHOLDER) -> Vault:
    """The vault of one person, with a clock that stands."""
    return Vault(directory / "vault", ring, person, lambda: WALL_S)
