"""The child that reads foreign model files first: no network, little memory, little time, no other program, no pickle.

Started by `rag.probing` alone, as a process without environment. What it is told comes in on standard input (a line of
JSON, then the bytes of the files); one line of JSON goes out. Imports only what reads the files.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # linux/sched.h
_NO_NEW_PRIVILEGES = 38  # linux/prctl.h
_FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.system", "pickle.",
              "ctypes.", "os.remove", "os.rename", "os.mkdir", "shutil.", "ftplib.", "urllib.", "http.")  # fmt: skip
_TEXT = "Annual leave: 14 days. \u5e74\u5047\u5341\u56db\u5929\u3002"


def main() -> None:
    """Read, try, say; the exit status says nothing."""
    told = json.loads(sys.stdin.buffer.readline())
    isolation = shut_in(told)
    try:
        from safetensors import deserialize  # noqa: F401 - no import while foreign bytes are read
        from tokenizers import Tokenizer  # noqa: F401

        forbid()
        for file in told["files"]:
            _try(file["name"], _exactly(sys.stdin.buffer, file["size"]))
        for path in told["paths"]:
            _try_path(Path(path))
        said = {"ok": True, "isolation": isolation}
    except BaseException as error:  # a panic of a library written in Rust is not an Exception
        why = "needs more memory than it may" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        said = {"ok": False, "isolation": isolation, "why": " ".join(why.split())[:200]}
    os.write(1, json.dumps(said).encode() + b"\n")
    os._exit(0)


def shut_in(told: dict[str, Any]) -> str:
    """Limits first, then out of the network: by a `namespace`, or `refused` where those are not allowed."""
    for limit, value in (
        (resource.RLIMIT_AS, told["memory_bytes"]), (resource.RLIMIT_CPU, told["cpu_s"]), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 64),
    ):  # fmt: skip
        hard = resource.getrlimit(limit)[1]  # what this process was given is never raised
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if told.get("namespaces", True) and libc.unshare(_NEW_USER | _NEW_NET) == 0:
        return "namespace"
    return "refused"


def forbid() -> None:
    """From now on no socket, no program, no pickle, no change of a file: each ends the reading."""

    def hook(event: str, _args: Any) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"tried what no model file needs ({event})")
        if event == "open" and _args[1] is not None and any(mode in str(_args[1]) for mode in "wax+"):
            raise PermissionError("tried to write a file")

    sys.addaudithook(hook)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("cut off")
    return data


def _try(name: str, data: bytes) -> None:
    read = _READERS.get(Path(name).suffix, _text)
    if name == "tokenizer.json":
        read = _tokenizer
    try:
        read(data)
    except RecursionError as error:
        raise ValueError(f"{name!r} nests too deep") from error
    except MemoryError:
        raise
    except BaseException as error:
        raise ValueError(f"{name!r}: {' '.join(str(error).split())[:150] or type(error).__name__}") from error


def _try_path(path: Path) -> None:
    """A file in its place; of large weights the header alone is read."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        try:
            with safe_open(path, framework="np") as opened:
                list(opened.keys())
        except MemoryError:
            raise
        except BaseException as error:
            raise ValueError(f"{path.name!r}: {' '.join(str(error).split())[:150]}") from error
    else:
        _try(path.name, path.read_bytes())


def _weights(data: bytes) -> None:
    from safetensors import deserialize

    deserialize(data)  # type: ignore[no-untyped-call]


def _tokenizer(data: bytes) -> None:
    from tokenizers import Tokenizer

    Tokenizer.from_buffer(data).encode(_TEXT)


def _json(data: bytes) -> None:
    json.loads(data)


def _text(data: bytes) -> None:
    data.decode("utf-8")


_READERS: dict[str, Callable[[bytes], None]] = {".safetensors": _weights, ".json": _json}
