"""A promotion that dies at any file operation leaves the old generation or the new one, and can be repeated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag import staging
from rag.chunking import Chunking
from rag.kb import KnowledgeBase
from rag.rows import RawRow, as_raw_rows
from slo.errors import DataError, RefusedError
from tests.kb_disk import FailingDisk, Killed

OLD = [{"doc_id": "a", "text": "old one"}, {"doc_id": "b", "text": "old two"}]
NEW = [{"doc_id": "c", "text": "new one"}, {"text": ""}]
BEFORE, AFTER = (["old one", "old two"], 1), (["old one", "old two", "new one"], 2)


def seen(directory: Path) -> tuple[list[str], int]:
    kb = KnowledgeBase.open(directory)
    return [document.text for document in kb.documents], kb.meta.kb_version


def full() -> BaseException:
    return OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("failure", "power_cut", "links"),
    [(Killed, True, True), (Killed, False, False), (full, False, True)],
    ids=["power cut", "killed, a file system without links", "disk full"],
)
def test_a_promotion_is_all_or_nothing_and_may_be_repeated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[[], BaseException],
    power_cut: bool,
    links: bool,
) -> None:
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    template = tmp_path / "template"
    KnowledgeBase.init(template).add(OLD)
    staging.stage(template, as_raw_rows(NEW), Chunking(), chunk_name="none")
    outcomes = set()
    for steps in range(0, 300, 1 if power_cut else 4):  # every step once; the others look in between
        directory = tmp_path / f"kb{steps}"
        shutil.copytree(template, directory)
        disk = FailingDisk(directory, steps, failure)
        died = False
        with monkeypatch.context() as patch:
            disk.install(patch)
            try:
                staging.promote(directory)
            except (Killed, DataError):
                died = True
        if power_cut and died:
            disk.lose_power()
        found = seen(directory)
        assert found in (BEFORE, AFTER), (steps, disk.seen)
        outcomes.add(found == AFTER)
        if (directory / staging.CANDIDATE / staging.STAGED).exists():
            staging.promote(directory)
        assert seen(directory) == AFTER or not died or power_cut, steps
        KnowledgeBase.open(directory).add([{"doc_id": "d", "text": "later"}])
        assert "later" in seen(directory)[0]
        if not died:
            break
        shutil.rmtree(directory)
    else:
        raise AssertionError("it never got through")
    assert outcomes == {False, True}
    assert steps > 5


def test_a_staging_that_was_interrupted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb = tmp_path / "kb"
    KnowledgeBase.init(kb).add(OLD)
    for steps in range(0, 300, 3):
        disk = FailingDisk(kb, steps, Killed)
        died = False
        with monkeypatch.context() as patch:
            disk.install(patch)
            try:
                staging.stage(kb, as_raw_rows(NEW), Chunking(), chunk_name="none")
            except Killed:
                died = True
        assert seen(kb) == BEFORE
        died = died and not (kb / staging.CANDIDATE / staging.STAGED).exists()
        if not died:
            break
    else:
        raise AssertionError("it never got through")
    assert staging.promote(kb) == 2
    assert seen(kb) == AFTER


def test_one_staging_at_a_time_and_none_is_thrown_away_under_its_hands(tmp_path: Path) -> None:
    KnowledgeBase.init(tmp_path).add(OLD)
    seen_by_others: list[str] = []

    def rows() -> Iterator[RawRow]:
        for other in (
            lambda: staging.stage(tmp_path, as_raw_rows([{"text": "another"}]), Chunking(), chunk_name="none"),
            lambda: staging.discard(tmp_path),
        ):
            with pytest.raises(RefusedError) as caught:
                other()
            seen_by_others.append(caught.value.reason)
        yield from as_raw_rows(NEW)

    assert staging.stage(tmp_path, rows(), Chunking(), chunk_name="none").added == 1
    assert seen_by_others == ["locked", "locked"]
    staging.promote(tmp_path)
    assert seen(tmp_path) == AFTER


def test_a_candidate_that_was_damaged_after_it_was_staged_is_not_promoted(tmp_path: Path) -> None:
    KnowledgeBase.init(tmp_path).add(OLD)
    staging.stage(tmp_path, as_raw_rows(NEW), Chunking(), chunk_name="none")
    fresh = set((tmp_path / "candidate" / "segments").iterdir()) - {
        tmp_path / "candidate" / "segments" / place.name for place in (tmp_path / "segments").iterdir()
    }
    rows = fresh.pop() / "kb.jsonl"
    rows.write_bytes(rows.read_bytes()[:-2])
    with pytest.raises(DataError, match="damaged"):
        staging.promote(tmp_path)
    assert seen(tmp_path) == BEFORE
