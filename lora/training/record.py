"""What a run leaves in its directory: log.jsonl as it goes, and the card, each written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from lora.training import card
from lora.weights import weights_sha256
from slo.errors import DataError, RefusedError

LOG, LOCK = "log.jsonl", ".lock"
ADAPTER = "adapter"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep a directory to one process; the lock goes when the process ends, however it ends.

    Raises:
        RefusedError: another process trains there. DataError: cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("w")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); check the path") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError("busy", f"another process trains in {out}; wait for it, or name a new --out") from error
        yield


class LogFile:
    """Rows as JSON lines, one at a time; each is on its way to the disk before the next step.

    The file is emptied at the first row, not before: a run that is refused leaves the log of the run that is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; a value that is no number is written as text, which JSON can hold. Raises DataError."""
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(json.dumps({name: _shown(value) for name, value in row.items()}) + "\n")
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror}); make room") from error

    def close(self) -> None:
        """No more rows."""
        if self._file is not None:
            self._file.close()


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_card(out: Path, made: Mapping[str, Any]) -> None:
    """Both forms of the card. Raises DataError."""
    _write(out / card.JSON, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    _write(out / card.MARKDOWN, card.as_markdown(made))


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room or check the path") from error


def environment(device: Any) -> dict[str, Any]:
    """Where it ran: versions, machine, device, threads."""
    import torch

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    if device.type == "cpu":
        found["threads"] = torch.get_num_threads()
    return found


def base_of(base: str, model: Any) -> dict[str, Any]:
    """What is trained on: name, commit of the hub or hash of the weights on disk, parameters."""
    found = {
        "name": base,
        "commit": getattr(model.config, "_commit_hash", None) or "",
        "model_type": model.config.model_type,
    }
    if digest := weights_sha256(base):
        found["weights_sha256"] = digest
    return found


def hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of each file of a small directory."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir()) if path.is_file()}
