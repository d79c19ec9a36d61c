"""Rows that change, go, are nearly known, or are not for everybody; and what is left for a search."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from rag import storage
from rag.arrays import unpack
from rag.embedding import HashedNgramEmbedder
from rag.index import EXACT_UP_TO, faiss_available, read_index, similarities, write_index
from rag.kb import KnowledgeBase
from rag.rows import RawRow
from rag.segment import words_of, write_segment
from rag.text import text_hash
from rag.types import Document
from slo.errors import ConfigError, DataError, RefusedError

Rows = list[dict[str, object]]


@pytest.fixture
def kb(tmp_path: Path) -> KnowledgeBase:
    return KnowledgeBase.init(tmp_path / "kb")


def state(kb: KnowledgeBase) -> dict[str, str]:
    return {document.doc_id: document.text for document in KnowledgeBase.open(kb.directory).documents}


def test_an_update_replaces_what_has_its_id_and_keeps_what_is_the_same(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "a", "text": "one"}, {"doc_id": "b", "text": "two"}])
    report = kb.add(
        [{"doc_id": "a", "text": "uno"}, {"doc_id": "b", "text": "two"}, {"doc_id": "c", "text": "new"}], update=True
    )
    assert (report.added, report.replaced, report.skipped, report.kb_version) == (2, 1, 1, 2)
    assert state(kb) == {"b": "two", "a": "uno", "c": "new"}
    assert [hit.doc_id for hit in kb.search("one").hits] == []
    assert kb.add([{"doc_id": "a", "text": "uno"}], update=True).kb_version == 2


def test_two_rows_may_swap_their_texts_in_one_update(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "a", "text": "one"}, {"doc_id": "b", "text": "two"}])
    kb.add([{"doc_id": "a", "text": "two"}, {"doc_id": "b", "text": "one"}], update=True)
    assert state(kb) == {"a": "two", "b": "one"}


def test_an_update_of_a_row_that_was_cut_takes_all_its_pieces_along(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "long", "text": "one two three four five six"}], chunk="2")
    assert list(state(kb)) == ["long#1", "long#2", "long#3"]
    report = kb.add([{"doc_id": "long", "text": "one two seven"}], chunk="2", update=True)
    assert (report.added, report.replaced, report.skipped) == (1, 2, 1)
    assert state(kb) == {"long#1": "one two", "long#2": "seven"}
    kb.add([{"doc_id": "long", "text": "short"}], update=True)
    assert state(kb) == {"long": "short"}


def test_pieces_know_where_they_were_cut_from(kb: KnowledgeBase) -> None:
    text = "First one. Second one here. Third."
    kb.add([{"doc_id": "d", "text": text}], chunk="sentence:1")
    hit = kb.search("second").hits[0]
    assert (hit.parent, text[slice(*hit.span)]) == ("d", "Second one here.")


def test_rows_of_a_file_are_removed_by_its_name_and_unknown_names_are_told(kb: KnowledgeBase) -> None:
    kb.add([RawRow("f:1", "", {"doc_id": f"f#{i}", "text": f"part {i}"}, parent="f") for i in range(3)])
    kb.add([{"doc_id": "other", "text": "stays"}])
    report = kb.remove(["f", "nobody"])
    assert (report.removed, report.missing, report.kb_version, report.doc_count) == (3, ("nobody",), 3, 1)
    assert state(kb) == {"other": "stays"}
    assert kb.remove(["nobody"]).kb_version == 3
    kb.add([{"doc_id": "f#1", "text": "part 1"}])
    assert state(kb) == {"other": "stays", "f#1": "part 1"}


def test_compacting_drops_deleted_texts_from_the_disk(kb: KnowledgeBase) -> None:
    for number in range(3):
        kb.add([{"doc_id": f"d{number}", "text": f"secret{number}"}])
    kb.remove(["d1"])
    content = kb.content_id
    kb.compact(keep_count=1)
    assert storage.generations(kb.directory) == [kb.generation.number]
    assert not any(b"secret1" in path.read_bytes() for path in kb.directory.rglob("*") if path.is_file())
    assert (kb.meta.kb_version, kb.content_id, len(kb.meta.segments)) == (4, content, 1)
    assert state(kb) == {"d0": "secret0", "d2": "secret2"}


def test_an_older_generation_can_be_opened_while_it_is_kept(kb: KnowledgeBase) -> None:
    for number in range(7):
        kb.add([{"doc_id": f"d{number}", "text": f"text {number}"}])
    assert storage.generations(kb.directory) == [3, 4, 5, 6, 7]
    assert KnowledgeBase.open(kb.directory, generation=4).meta.doc_count == 4
    for number, message in ((1, "not there any more, the oldest is 3"), (9, "there is no generation 9")):
        with pytest.raises(DataError, match=message):
            KnowledgeBase.open(kb.directory, generation=number)


def test_a_pointer_signed_with_a_key_is_refused_under_another_and_an_unsigned_one_under_any(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb", key=b"one")
    kb.add([{"text": "a"}])
    assert KnowledgeBase.open(tmp_path / "kb", key=b"one").generation.signature == "verified"
    assert "not checked" in KnowledgeBase.open(tmp_path / "kb").generation.signature
    with pytest.raises(DataError, match="signed with another key"):
        KnowledgeBase.open(tmp_path / "kb", key=b"two")
    storage.sign(tmp_path / "kb", kb.generation, None)
    assert KnowledgeBase.open(tmp_path / "kb").generation.signature == "unsigned"
    with pytest.raises(DataError, match="is unsigned, and there is a key"):
        KnowledgeBase.open(tmp_path / "kb", key=b"one")


def test_near_twins_are_reported_and_go_in_or_are_left_out(kb: KnowledgeBase) -> None:
    text = " ".join(f"word{i}" for i in range(60))
    kb.add([{"doc_id": "a", "text": text}])
    report = kb.add([{"doc_id": "b", "text": text + " more"}, {"doc_id": "c", "text": "other words"}], near="report")
    assert report.added == 2
    assert "1 rows are nearly the same as known ones (b ~ a): went in" in report.notes[0]
    report = kb.add(
        [{"doc_id": "d", "text": "less " + text}, {"doc_id": "e", "text": "unlike any of them at all"}], near="skip"
    )
    assert (report.added, report.skipped) == (1, 1)
    assert "(d ~ " in report.notes[0]
    with pytest.raises(ConfigError, match="off, report, skip"):
        kb.add([], near="maybe")


def test_a_document_for_a_role_does_not_exist_for_others_not_even_in_the_scores(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    public = [{"doc_id": f"p{i}", "text": f"salary form number {i}"} for i in range(5)]
    kb.add(public)
    kb.add([{"doc_id": "s", "text": "salary of the board", "acl": ["HR"]}, {"text": "salary fair", "acl": ["public"]}])
    fresh = KnowledgeBase.init(tmp_path / "fresh")
    fresh.add([*public, {"text": "salary fair"}])
    asked = kb.search("salary board", 9, roles=()).hits
    expected = fresh.search("salary board", 9)
    assert [(hit.doc_id, hit.score) for hit in asked] == [(hit.doc_id, hit.score) for hit in expected.hits]
    assert kb.search("salary board", roles=()).confidence == expected.confidence
    assert kb.search("salary board", roles=["hr"]).hits[0].doc_id == "s"
    assert kb.search("salary board").hits[0].acl == ("hr",)
    assert kb.content_id != fresh.content_id


def test_many_long_lists_of_roles_can_be_read_again(kb: KnowledgeBase) -> None:
    people = [f"user:{number:050d}" for number in range(40)]
    kb.add([{"doc_id": str(n), "text": f"note {n}", "acl": [*people, f"one:{n}"]} for n in range(700)])
    again = KnowledgeBase.open(kb.directory)
    assert [hit.doc_id for hit in again.search("note 5", roles=["one:5"]).hits] == ["5"]


def test_more_lists_of_roles_than_two_bytes_can_count(tmp_path: Path) -> None:
    documents = [Document(str(n), "x", text_hash("x"), acl=(f"u{n}",)) for n in range((1 << 16) + 2)]
    write_segment(tmp_path, documents, None, words_of(documents[:1]), [])
    arrays, extra = unpack((tmp_path / "keys.bin").read_bytes(), "here")
    assert extra["acl"][arrays["acl"][len(documents) - 1]] == [f"u{(1 << 16) + 1}"]


def test_roles_that_no_document_names_cost_no_view_of_their_own(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "s", "text": "salary board", "acl": ["hr"]}, {"doc_id": "o", "text": "salary office"}])
    for number in range(20):
        assert [hit.doc_id for hit in kb.search("salary", roles=[f"user:{number}"]).hits] == ["o"]
        assert len(kb.search("salary", roles=[f"user:{number}", "hr"]).hits) == 2
    assert kb._searcher._view_of.cache_info().currsize == 2


@pytest.mark.parametrize("acl", [[], "hr", ["a b"], [1], [""], {}])
def test_roles_that_cannot_be_read_are_set_aside_and_never_let_in_for_everybody(kb: KnowledgeBase, acl: object) -> None:
    assert kb.add([{"text": "secret", "acl": acl}]).quarantined == 1


def test_known_texts_with_other_roles_are_told_and_changed_by_an_update(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "a", "text": "one"}])
    assert "other roles" in kb.add([{"doc_id": "a", "text": "one", "acl": ["hr"]}]).notes[0]
    kb.add([{"doc_id": "a", "text": "one", "acl": ["hr"]}], update=True)
    assert kb.search("one", roles=()).hits == ()


WORDS = [f"w{i}" for i in range(30)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("embedded", [False, True])
def test_after_any_changes_a_search_finds_what_a_fresh_knowledge_base_finds(
    tmp_path: Path, seed: int, embedded: bool
) -> None:
    embedder = HashedNgramEmbedder(256) if embedded else None
    random = Random(seed)
    kb = KnowledgeBase.init(tmp_path / "kb", embedder=embedder)
    truth: dict[str, dict[str, object]] = {}
    for _ in range(30):
        kind = random.choice(["add", "add", "update", "remove", "compact"])
        rows: Rows = []
        for _ in range(random.randrange(1, 4)):
            doc_id, text = f"d{random.randrange(25)}", " ".join(random.choices(WORDS, k=6))
            acl = random.choice([None, None, ["a"], ["a", "b"]])
            rows.append({"doc_id": doc_id, "text": text, **({"acl": acl} if acl else {})})
        rows = list({str(row["doc_id"]): row for row in rows}.values())
        if kind == "add":
            rows = [row for row in rows if row["doc_id"] not in truth]
            rows = [row for row in rows if row["text"] not in [known["text"] for known in truth.values()]]
            kb.add(rows)
            truth |= {str(row["doc_id"]): row for row in rows}
        elif kind == "update":
            kb.add(rows, update=True)
            for row in rows:
                truth.pop(str(row["doc_id"]), None)
                truth[str(row["doc_id"])] = row
        elif kind == "remove":
            kb.remove([str(row["doc_id"]) for row in rows])
            for row in rows:
                truth.pop(str(row["doc_id"]), None)
        else:
            kb.compact()
    fresh = KnowledgeBase.init(tmp_path / "fresh", embedder=embedder)
    fresh.add(list(truth.values()), dedupe=False)
    again = KnowledgeBase.open(kb.directory, embedder=embedder)
    assert again.meta.doc_count == len(truth)
    assert again.content_id == fresh.content_id
    assert {d.doc_id: d.text for d in again.documents} == {doc_id: row["text"] for doc_id, row in truth.items()}
    for roles in (None, (), ("b",)):
        visible = [
            row
            for row in truth.values()
            if roles is None or not row.get("acl") or set(roles) & set(row["acl"])  # type: ignore[arg-type]
        ]
        only = KnowledgeBase.init(tmp_path / f"only{roles}", embedder=embedder)
        only.add(visible, dedupe=False)
        for mode in ("bm25", "hybrid", *(["embedding"] if embedded and visible else [])):
            query = " ".join(random.choices(WORDS, k=3))
            one, other = again.search(query, 30, mode, roles=roles), only.search(query, 30, mode)
            assert {h.doc_id: round(h.score, 6) for h in one.hits} == {h.doc_id: round(h.score, 6) for h in other.hits}
            assert one.confidence == pytest.approx(other.confidence)


def test_a_large_segment_is_searched_by_lists_when_they_reach_the_recall_and_exactly_otherwise(tmp_path: Path) -> None:
    if not faiss_available():
        pytest.skip("needs faiss: pip install 'sft-guard[embeddings]'")
    import numpy as np

    random = np.random.default_rng(3)
    centres = random.standard_normal((40, 32)).astype(np.float32)
    crowd = centres[random.integers(0, 40, 3000)] + 0.4 * random.standard_normal((3000, 32)).astype(np.float32)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    noise = random.standard_normal((3000, 32)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    meta = write_index(tmp_path / "crowd", crowd, exact_up_to=1000)
    assert (meta.kind, meta.recall_at_10 >= 0.98) == ("faiss.IndexIVFFlat", True)
    assert write_index(tmp_path / "noise", noise, exact_up_to=1000).kind == "faiss.IndexFlatL2"
    assert write_index(tmp_path / "few", crowd[:100]).kind == "faiss.IndexFlatL2"
    assert EXACT_UP_TO > 1000
    index = read_index(tmp_path / "crowd", memoryview(b""), meta)
    exact = crowd @ crowd[7]
    assert index.top(crowd[7], 1, None)[0][0] == 7
    assert similarities(index, crowd[7], [3, 2999])[2999] == pytest.approx(float(exact[2999]), abs=1e-5)
    visible = np.zeros(3000, np.bool_)
    visible[[5, 9, 2000]] = True
    found = index.top(crowd[7], 10, visible)
    assert [row for row, _ in found] == sorted([5, 9, 2000], key=lambda row: -exact[row])


def test_a_damaged_file_is_found_when_a_lazy_writer_first_needs_it(kb: KnowledgeBase) -> None:
    kb.add([{"doc_id": "a", "text": "one"}])
    path = next(kb.directory.rglob("keys.bin"))
    path.write_bytes(path.read_bytes()[:-1])
    lazy = KnowledgeBase.open(kb.directory, lazy=True)
    with pytest.raises(DataError, match="damaged, refused"):
        lazy.add([{"doc_id": "b", "text": "two"}])


def test_init_in_a_used_directory_is_refused(kb: KnowledgeBase) -> None:
    with pytest.raises(RefusedError, match="holds a knowledge base"):
        KnowledgeBase.init(kb.directory)
