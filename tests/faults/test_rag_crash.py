"""A writer that dies at any file operation leaves the old generation or the new one, and the next writer carries on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.kb import KnowledgeBase
from slo.errors import DataError
from tests.kb_disk import COUNTED, FailingDisk, Killed

OLD = [{"doc_id": "a", "text": "old one"}, {"doc_id": "b", "text": "old two"}]
NEW = [{"doc_id": "c", "text": "new one"}, {"doc_id": "d", "text": "new two"}]


def add(kb: KnowledgeBase) -> None:
    kb.add(NEW)


def remove(kb: KnowledgeBase) -> None:
    kb.remove(["a"])


def update(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "a", "text": "changed"}], update=True)


def compact(kb: KnowledgeBase) -> None:
    kb.compact(keep_count=1)


EXPECTED: dict[Callable[[KnowledgeBase], None], tuple[list[str], int]] = {
    add: (["old one", "old two", "new one", "new two"], 3),
    remove: (["old two"], 3),
    update: (["old two", "changed"], 3),
    compact: (["old one", "old two"], 2),
}


def full() -> BaseException:
    return OSError(28, "No space left on device")


def broken() -> BaseException:
    return OSError(5, "Input/output error")


def seen(directory: Path) -> tuple[list[str], int]:
    kb = KnowledgeBase.open(directory)
    return [document.text for document in kb.documents], kb.meta.kb_version


def fail_at_every_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[KnowledgeBase], None],
    failure: Callable[[], BaseException],
    *,
    power_cut: bool = False,
) -> set[int]:
    """Outcomes (0 old, 1 new) over one run per operation, until a run gets through."""
    template = tmp_path / "template"
    KnowledgeBase.init(template)
    for row in OLD:
        KnowledgeBase.open(template).add([row])
    before, after = seen(template), EXPECTED[write]
    outcomes: set[int] = set()
    for steps in range(500):
        directory = tmp_path / f"kb{steps}"
        shutil.copytree(template, directory)
        kb = KnowledgeBase.open(directory)
        disk = FailingDisk(directory, steps, failure)
        with monkeypatch.context() as patch:
            disk.install(patch)
            try:
                write(kb)
            except Killed:
                assert failure is Killed
            except DataError:
                assert failure is not Killed
        if disk.left:
            assert {*COUNTED} - set(disk.seen) <= {"unlink", "rmdir"}, "operations that were never met"
            assert seen(directory) == after
            return outcomes
        if power_cut:
            disk.lose_power()
        found = seen(directory)
        assert found in (before, after), f"step {steps}: {found}"
        outcomes.add(int(found == after) if before != after else 1)
        if found == before:
            write(KnowledgeBase.open(directory))
        else:  # the next writer cleans up behind the dead one
            KnowledgeBase.open(directory).compact()
        assert seen(directory) == after
        assert not list(directory.rglob(".new*"))
        shutil.rmtree(directory)
    raise AssertionError("a write took more than 500 operations")


@pytest.mark.parametrize("write", [add, remove, update], ids=lambda write: write.__name__)
@pytest.mark.parametrize("power_cut", [False, True], ids=["process killed", "power cut"])
def test_a_death_before_any_file_operation_leaves_old_or_new_never_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[KnowledgeBase], None], power_cut: bool
) -> None:
    assert fail_at_every_step(tmp_path, monkeypatch, write, Killed, power_cut=power_cut) == {0, 1}


def test_a_death_while_putting_segments_together_changes_nothing_that_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_every_step(tmp_path, monkeypatch, compact, Killed, power_cut=True)


@pytest.mark.parametrize("failure", [full, broken], ids=lambda failure: failure.__name__)
def test_a_disk_that_refuses_any_file_operation_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    assert fail_at_every_step(tmp_path, monkeypatch, add, failure) == {0, 1}


def test_an_init_that_was_interrupted_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in range(100):
        directory = tmp_path / f"kb{steps}"
        directory.mkdir()
        disk = FailingDisk(directory, steps, Killed)
        with monkeypatch.context() as patch:
            disk.install(patch)
            try:
                KnowledgeBase.init(directory)
            except Killed:
                pass
        if disk.left:
            return
        if not (directory / "CURRENT").exists():
            KnowledgeBase.init(directory)
        assert KnowledgeBase.open(directory).meta.kb_version == 0
    raise AssertionError("init took more than 100 operations")
