"""A writer that dies at any step leaves the old generation or the new one, and the next writer carries on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag import storage
from rag.kb import KnowledgeBase
from slo.errors import DataError

OLD, NEW = [{"text": "old one"}], [{"text": "new one"}, {"text": "new two"}]


class Killed(BaseException):
    """The process is gone: no handler may do anything useful with it."""


class Countdown:
    """Lets `steps` file operations through, then fails the next one before it happens."""

    def __init__(self, steps: int, failure: Callable[[], BaseException]) -> None:
        self.left, self.failure = steps, failure

    def wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise self.failure()
            self.left -= 1
            return operation(*args, **kwargs)

        return counted


def failing(monkeypatch: pytest.MonkeyPatch, countdown: Countdown) -> None:
    monkeypatch.setattr(os, "fsync", countdown.wrap(os.fsync))
    for name in ("rename", "replace", "mkdir", "unlink"):
        monkeypatch.setattr(Path, name, countdown.wrap(getattr(Path, name)))
    if countdown.failure is Killed:  # removing needs no space
        monkeypatch.setattr(storage.shutil, "rmtree", countdown.wrap(shutil.rmtree))
    monkeypatch.setattr(storage, "_write_synced", countdown.wrap(storage._write_synced))


def texts(directory: Path) -> list[str]:
    return [document.text for document in KnowledgeBase.open(directory).documents]


def run_with_failure_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException], expected: type[BaseException]
) -> set[int]:
    """Versions seen after the failures, one run per step until a run gets through."""
    template = tmp_path / "template"
    KnowledgeBase.init(template).add(OLD)
    seen: set[int] = set()
    for steps in range(200):
        directory = tmp_path / f"kb{steps}"
        shutil.copytree(template, directory)
        kb = KnowledgeBase.open(directory)
        countdown = Countdown(steps, failure)
        with monkeypatch.context() as patch:
            failing(patch, countdown)
            try:
                kb.add(NEW)
            except expected:
                pass
            else:
                assert steps > 10, "the failures were never reached"
                return seen
        found = texts(directory)
        assert found in (["old one"], ["old one", "new one", "new two"])
        version = KnowledgeBase.open(directory).meta.kb_version
        assert version == (1 if len(found) == 1 else 2)
        seen.add(version)
        again = KnowledgeBase.open(directory)
        again.add(NEW)
        assert texts(directory) == ["old one", "new one", "new two"]
        assert again.meta.kb_version == 2
        assert not (directory / ".next").exists()
        assert not (directory / ".next.tmp").exists()
    raise AssertionError("an add took more than 200 steps")


def test_a_kill_before_any_file_operation_leaves_old_or_new_never_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_with_failure_at_every_step(tmp_path, monkeypatch, Killed, Killed) == {1, 2}


def test_a_full_disk_at_any_file_operation_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> BaseException:
        return OSError(28, "No space left on device")

    assert run_with_failure_at_every_step(tmp_path, monkeypatch, full, DataError) == {1, 2}


def test_a_reader_between_commit_and_moving_sees_the_new_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add(OLD)
    with monkeypatch.context() as patch:

        def killed(directory: Path) -> None:
            if (directory / ".next").exists():
                raise Killed

        patch.setattr(storage, "finish_commit", killed)
        with pytest.raises(Killed):
            kb.add(NEW)
    assert texts(tmp_path / "kb") == ["old one", "new one", "new two"]
    assert len((tmp_path / "kb" / "kb.jsonl").read_bytes().splitlines()) == 1, "not moved yet"
