"""Foreign model files are read by a child first, which has no network and nothing to lose; then by this process.

The libraries that read weights and tokenizers are native code, and a file made for it can take their process along:
endless memory, endless time, a crash, or worse. The child (`rag.probe_child`) has no environment (no keys), a network
namespace of its own where the system allows one (else sockets are refused within the process, and that is said), limits
on memory and processor time, and may write no file and start no program. What it does not survive is refused in one
line.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slo.errors import RefusedError

_START = "from rag.probe_child import main; main()"
_BLOCK = 1 << 20
_CODE = frozenset({".py", ".so", ".pyc", ".pyd"})
_PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5"})
_READ = frozenset({".json", ".txt", ".safetensors"})
JSON_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """memory_bytes: address space beside the files, of which it may hold three copies. cpu_s, wall_s: of the child.

    namespaces: False asks for none, as on a system that allows none.
    """

    memory_bytes: int = 1536 << 20
    cpu_s: int = 60
    wall_s: float = 120.0
    namespaces: bool = True


def probe_bytes(files: Mapping[str, bytes], limits: ProbeLimits | None = None) -> str:
    """Have a child read these files; nothing of them is on a disk. Returns `namespace` or `refused` (see above).

    Raises:
        RefusedError: `artifact_rejected`, with the file where it is known.
    """
    return _probed(files, (), limits or ProbeLimits())


def probe_directory(directory: Path, limits: ProbeLimits | None = None) -> str:
    """Have a child read the files of a model's directory: JSON, tokenizer, vocabulary, headers of weights.

    Weights as pickles are refused where no safetensors stand beside them (those are never read then), and so is code.

    Raises:
        RefusedError: `artifact_rejected`.
    """
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in found:
        name = str(path.relative_to(directory))
        if path.suffix in _CODE:
            raise RefusedError(
                "artifact_rejected", f"{directory}: {name[:80]!r} is code, which no model needs; remove it"
            )
        if path.suffix == ".json" and path.stat().st_size > JSON_BYTES_MAX:
            raise RefusedError("artifact_rejected", f"{directory}: {name[:80]!r} has {path.stat().st_size} bytes")
    _only_known_modules(directory)
    pickled = [path for path in found if path.suffix in _PICKLED]
    if pickled and not any(path.suffix == ".safetensors" for path in found):
        name = str(pickled[0].relative_to(directory))
        cure = "only safetensors are read; save the model with them"
        raise RefusedError("artifact_rejected", f"{directory}: {name[:80]!r} may hold code; {cure}")
    try:
        return _probed({}, [path for path in found if path.suffix in _READ], limits or ProbeLimits())
    except RefusedError as error:
        raise RefusedError(error.reason, f"{directory}: {error}") from error


def probe_model(name: str) -> None:
    """`probe_directory` where the name of a model is a directory; what a hub's cache holds is not looked at.

    Raises:
        RefusedError: `artifact_rejected`.
    """
    if Path(name).is_dir():
        probe_directory(Path(name))


def _only_known_modules(directory: Path) -> None:
    """modules.json of a sentence-transformers directory names classes, which are imported: of that library only."""
    path = directory / "modules.json"
    if not path.exists():
        return
    try:
        types = [str(module["type"]) for module in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError("artifact_rejected", f"{path}: not a list of modules ({type(error).__name__})") from error
    for kind in types:
        if not kind.startswith("sentence_transformers."):
            raise RefusedError("artifact_rejected", f"{path}: would import {kind[:80]!r}, which is not of that library")


def noted(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says once, to people, when a child had no network namespace."""
    said: list[str] = []

    def note(isolation: str) -> None:
        if isolation != "namespace" and not said:
            said.append(isolation)
            say("no network namespaces here: the child that reads model files first has its sockets refused instead")

    return note


def _probed(files: Mapping[str, bytes], paths: Sequence[Path], limits: ProbeLimits) -> str:
    size = sum(len(data) for data in files.values()) + sum(path.stat().st_size for path in paths)
    told = {
        "files": [{"name": name, "size": len(data)} for name, data in files.items()],
        "paths": [str(path.resolve()) for path in paths],
        "memory_bytes": limits.memory_bytes + 3 * size, "cpu_s": limits.cpu_s, "namespaces": limits.namespaces,
    }  # fmt: skip
    late = threading.Event()
    root = str(Path(__file__).resolve().parents[1])  # of this package: -I leaves the working directory out
    command = [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, {root!r}); {_START}"]
    child = subprocess.Popen(  # noqa: S603 - this interpreter, a text of ours
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        env={"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"},
    )  # fmt: skip

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(limits.wall_s, end)
    timer.start()
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and has said why or is asked below
            child.stdin.write(json.dumps(told).encode() + b"\n")
            for data in files.values():
                view = memoryview(data)
                for begin in range(0, len(view), _BLOCK):
                    child.stdin.write(view[begin : begin + _BLOCK])
            child.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        line = child.stdout.read(_BLOCK)
        code = child.wait()
    finally:
        timer.cancel()
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    if late.is_set():
        raise RefusedError("artifact_rejected", f"not read within {limits.wall_s:g} s by a child that tried it first")
    try:
        said = json.loads(line)
    except ValueError:
        how = f"killed by signal {-code}" if code < 0 else f"status {code}"
        raise RefusedError("artifact_rejected", f"the child that read it first did not survive ({how})") from None
    if not said["ok"]:
        raise RefusedError("artifact_rejected", said["why"])
    return str(said["isolation"])
