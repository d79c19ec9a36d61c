"""A disk that fails at a chosen file operation under one directory, and forgets what was never synced.

Every os.open for writing, write, fsync, mkdir, rename, replace, unlink and rmdir under the directory counts, also those
that shutil and pathlib make. `lose_power` then does the worst a file system may: files that were never synced are cut
in half, and names of directories that were never synced are as they were before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COUNTED = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


class Killed(BaseException):
    """The process is gone: no handler may do anything useful with it."""


class FailingDisk:
    """Lets `steps` operations through, then fails the next one with `failure`; a write is torn in the middle."""

    def __init__(self, directory: Path, steps: int, failure: Callable[[], BaseException]) -> None:
        self._root, self.left, self._failure = str(directory), steps, failure
        self._synced: set[int] = {path.stat().st_ino for path in directory.rglob("*")}
        self._undo: list[tuple[str, Callable[[], None]]] = []
        self._real = {name: getattr(os, name) for name in COUNTED}
        self.seen: list[str] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in COUNTED:
            patch.setattr(os, name, self._wrapped(name))

    def lose_power(self) -> None:
        """Call it after the patches are gone."""
        for _, undo in reversed(self._undo):
            undo()
        for path in Path(self._root).rglob("*"):
            if path.is_file() and path.stat().st_ino not in self._synced and path.stat().st_size:
                os.truncate(path, path.stat().st_size // 2)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def operation(*args: Any, **kwargs: Any) -> Any:
            path = self._path(args[0], kwargs.get("dir_fd"))
            if not path.startswith(self._root) or (name == "open" and not args[1] & (os.O_WRONLY | os.O_CREAT)):
                return real(*args, **kwargs)
            if path.endswith(".lock"):
                return real(*args, **kwargs)
            if self.left == 0:
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise self._failure()
            self.left -= 1
            self.seen.append(name)
            self._remember(name, path, args)
            result = real(*args, **kwargs)
            if name == "fsync":
                self._settle(path, args[0])
            return result

        return operation

    def _path(self, place: Any, dir_fd: int | None) -> str:
        if isinstance(place, int):
            return os.readlink(f"/proc/self/fd/{place}")
        path = os.fspath(place)
        return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path) if dir_fd is not None else path

    def _settle(self, path: str, descriptor: int) -> None:
        self._synced.add(os.fstat(descriptor).st_ino)
        if os.path.isdir(path):
            self._undo = [(directory, undo) for directory, undo in self._undo if directory != path]

    def _remember(self, name: str, path: str, args: tuple[Any, ...]) -> None:
        parent = os.path.dirname(path)
        undo: Callable[[], None] | None = None
        if name in ("mkdir", "open") and not os.path.exists(path):
            undo = self._forget(path)
        elif name == "write":
            self._synced.discard(os.fstat(args[0]).st_ino)
        elif name in ("rename", "replace"):
            target = os.fspath(args[1])
            before = Path(target).read_bytes() if os.path.isfile(target) else None
            parent, undo = os.path.dirname(target), self._move_back(path, target, before)
        elif name == "unlink" and os.path.isfile(path):
            undo = self._bring_back(path, Path(path).read_bytes())
        elif name == "rmdir":
            undo = self._make(path)
        if undo is not None:
            self._undo.append((parent, undo))

    def _forget(self, path: str) -> Callable[[], None]:
        """A directory whose name is lost takes with it what was synced inside."""
        return lambda: shutil.rmtree(path) if os.path.isdir(path) else Path(path).unlink(missing_ok=True)

    def _make(self, path: str) -> Callable[[], None]:
        return lambda: os.makedirs(path, exist_ok=True)

    def _bring_back(self, path: str, content: bytes) -> Callable[[], None]:
        def undo() -> None:
            Path(path).write_bytes(content)
            self._synced.add(Path(path).stat().st_ino)

        return undo

    def _move_back(self, source: str, target: str, before: bytes | None) -> Callable[[], None]:
        def undo() -> None:
            os.rename(target, source)
            if before is not None:
                self._bring_back(target, before)()

        return undo
