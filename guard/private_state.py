"""The state directory is for the guard's own user: questions of people, labels and the audit stand in it.

Files made by the process are private by its umask. Those that an earlier version left open are closed at the start;
nothing is ever opened wider.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

UMASK = 0o077
OTHERS = 0o077
OWN_FILES = (
    "release.db*", "registry.sqlite*", "alerts.sqlite*", "windows.*", "human_labels.*", "judge_budget.*", "cache-*",
    "drift-*.npz", "intent", "intent.*", "lock",
)  # fmt: skip
OWN_DIRECTORIES = ("exchanges",)


def tighten(state_dir: Path, config_dir: Path) -> tuple[int, str]:
    """Take the rights of other users off what is there; return how many entries changed, and a problem or "".

    A state directory that holds guard.yaml itself (`state_dir: .`) is a person's own directory: there only what this
    program writes is closed, and the directory stays as it is.
    """
    home = state_dir.resolve()
    shared = config_dir.resolve().is_relative_to(home)
    changed, problem = 0, ""
    for path in _own(state_dir) if shared else _all(state_dir):
        try:
            changed += _close(path)
        except OSError as error:
            problem = problem or f"{path}: others may read it, and it cannot be changed ({error.strerror})"
    return changed, problem


def _close(path: Path) -> bool:
    if path.is_symlink():  # the target is somebody else's
        return False
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & OTHERS:
        return False
    os.chmod(path, mode & ~OTHERS)
    return True


def _all(directory: Path) -> Iterator[Path]:
    yield directory
    for parent, names, files in os.walk(directory):
        yield from (Path(parent, name) for name in (*names, *files))


def _own(directory: Path) -> Iterator[Path]:
    for pattern in OWN_FILES:
        yield from (path for path in directory.glob(pattern) if path.is_file())
    for name in OWN_DIRECTORIES:
        if (directory / name).is_dir():
            yield from _all(directory / name)
