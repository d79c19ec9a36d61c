"""The files of an adapter, their hash, and reading them from a directory: all that needs no key and no vault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lora.artifact import CONFIG, FILE_BYTES_MAX, WEIGHTS
from slo.errors import DataError, RefusedError


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter in memory. files: name to plaintext; of a sealed one they are nowhere else."""

    name: str
    version: str
    content_sha256: str
    files: Mapping[str, bytes]


def content_hash(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in order of the names: what the registry calls the artefact's hash."""
    whole = sha256()
    for name in sorted(files):
        whole.update(len(name.encode()).to_bytes(4, "big") + name.encode() + sha256(files[name]).digest())
    return whole.hexdigest()


def adapter_hash(files: Mapping[str, bytes]) -> str:
    """`content_hash` of weights and configuration alone: the same before and after cards were put beside them."""
    return content_hash({name: files[name] for name in (WEIGHTS, CONFIG) if name in files})


def read_directory(source: Path) -> dict[str, bytes]:
    """Plain files of an adapter directory. Links, directories and files that are too large are refused.

    Raises:
        DataError: cannot be read. RefusedError: `artifact_rejected`.
    """
    files: dict[str, bytes] = {}
    try:
        for entry in sorted(source.iterdir()):
            if entry.is_symlink() or not entry.is_file() or entry.stat().st_size > FILE_BYTES_MAX:
                raise RefusedError(
                    "artifact_rejected", f"{entry.name[:80]!r} is no plain file of a usual size; move it away"
                )
            files[entry.name] = entry.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}); name the directory of an adapter") from error
    return files
