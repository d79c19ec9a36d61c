"""The data path as machine code: the same Python sources, compiled by mypyc, for a fifth less processor time.

    python -m guard.compiling build      # beside the sources; needs gcc, the headers of Python and mypy
    python -m guard.compiling state
    python -m guard.compiling remove     # back to the sources

Nothing depends on it: without it the sources run. A source that is edited after it was compiled wins: what is read here
at the first import compares the hash of each source with what was compiled, and when one differs all of them run from
their sources, so that nobody edits a file and wonders why nothing changes. `sft-guard doctor` and the first lines of
`serve` say which of the two runs.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

# Only modules without coroutines: a compiled coroutine that is cancelled was seen to hang its loop at the end.
MODULES = (
    "exporters.fanout",
    "guard.limits",
    "guard.listener",
    "guard.passage",
    "guard.recent",
    "guard.sinks",
    "guard.split",
    "guard.streaming",
    "guard.turn_writes",
    "guard.wire.again",
    "guard.wire.chunked",
    "guard.wire.outline",
    "guard.wire.sse",
    "slo.sources.memory",
    "slo.sources.shelf",
    "slo.sources.together",
)
SHARED = "sft_guard_path__mypyc"
ROOT = Path(__file__).resolve().parent.parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


def source_of(module: str, root: Path = ROOT) -> Path:
    """Where a module's source lies."""
    return root.joinpath(*module.split(".")).with_suffix(".py")


def record_of(root: Path = ROOT) -> Path:
    """What was compiled: hashes of the sources, by module."""
    return root / "guard" / "compiled.json"


def digests(modules: Sequence[str], root: Path = ROOT) -> dict[str, str]:
    """SHA-256 of each source, "" where there is none."""
    sources = {module: source_of(module, root) for module in modules}
    return {
        module: hashlib.sha256(source.read_bytes()).hexdigest() if source.exists() else ""
        for module, source in sources.items()
    }


def state(root: Path = ROOT) -> tuple[bool, str]:
    """Whether machine code runs, and in words why or why not."""
    try:
        written = json.loads(record_of(root).read_bytes())
        suffix, compiled, files = written["suffix"], dict(written["modules"]), list(written["files"])
    except FileNotFoundError:
        return False, "runs from its sources (`python -m guard.compiling build` makes it faster)"
    except (OSError, ValueError, TypeError, KeyError):
        return False, f"runs from its sources: {record_of(root)} cannot be read; build again or remove"
    if suffix != SUFFIX:
        return False, f"runs from its sources: it was compiled for {suffix}, this is {SUFFIX}; build again or remove"
    if tuple(sorted(compiled)) != tuple(sorted(MODULES)) or not all((root / file).exists() for file in files):
        return (
            False,
            "runs from its sources: what was compiled is of another version or not whole; build again or remove",
        )
    changed = [module for module, digest in digests(MODULES, root).items() if compiled[module] != digest]
    if changed:
        return False, f"runs from its sources: {', '.join(changed)} changed since; build again or remove"
    return True, f"runs compiled ({len(compiled)} modules)"


class Places(importlib.abc.MetaPathFinder):
    """Finds the modules it was told of where it was told."""

    def __init__(self, places: dict[str, Path]) -> None:
        self._places = places

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As the import system asks."""
        place = self._places.get(fullname)
        return None if place is None else importlib.util.spec_from_file_location(fullname, place)


def prefer_changed_sources(root: Path = ROOT) -> None:
    """Called before anything of the data path is imported; costs one look for a file when nothing was compiled.

    The library that the compiled modules share lies beside the packages, where an editable install does not look.
    """
    if not record_of(root).exists():
        return
    if state(root)[0]:
        places = {SHARED: root / f"{SHARED}{SUFFIX}"}
    else:
        places = {module: source_of(module, root) for module in MODULES}
    sys.meta_path.insert(0, Places(places))
