"""The knowledge base: versions, quarantine, damage, search modes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag import storage
from rag.commands import kb_add, kb_init, kb_search
from rag.embedding import HashedNgramEmbedder, embedder_status
from rag.index import faiss_available, vectors_available
from rag.kb import KnowledgeBase
from rag.rows import read_jsonl
from slo.errors import ConfigError, DataError, RefusedError
from tests.kb_kit import content_files, meta_file, segment_file

RULES = Path(__file__).parent.parent / "data" / "rag_rules_zh.jsonl"
needs_faiss = pytest.mark.skipif(not faiss_available(), reason="needs the embeddings extra: " + embedder_status()[1])


@pytest.fixture
def kb_dir(tmp_path: Path) -> Path:
    kb_init(tmp_path / "kb")
    return tmp_path / "kb"


@pytest.fixture
def rules(kb_dir: Path) -> KnowledgeBase:
    kb = KnowledgeBase.open(kb_dir)
    kb.add(read_jsonl(RULES))
    return kb


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_ten_documents_then_the_same_file_with_five_more_is_the_worked_example(kb_dir: Path, tmp_path: Path) -> None:
    lines = RULES.read_text("utf-8").splitlines()
    first = tmp_path / "first.jsonl"
    first.write_text("\n".join(lines[:10]) + "\n", "utf-8")
    report = kb_add(kb_dir, jsonl=[first], embedder="none")
    assert {k: v for k, v in report.items() if k != "notes"} == {
        "added": 10, "skipped": 0, "quarantined": 0, "kb_version": 1, "doc_count": 10,
    }  # fmt: skip
    report = kb_add(kb_dir, jsonl=[RULES], embedder="none")
    assert {k: v for k, v in report.items() if k != "notes"} == {
        "added": 5, "skipped": 10, "quarantined": 0, "kb_version": 2, "doc_count": 15,
    }  # fmt: skip
    assert kb_add(kb_dir, jsonl=[RULES], embedder="none") == {
        "added": 0, "skipped": 15, "quarantined": 0, "kb_version": 2, "doc_count": 15,
    }  # fmt: skip


def test_a_new_knowledge_base_is_version_zero_with_the_names_of_the_practice(kb_dir: Path) -> None:
    meta = json.loads(meta_file(kb_dir).read_text())
    assert (meta["kb_version"], meta["doc_count"], meta["dim"]) == (0, 0, 384)
    assert meta["model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_rows_keep_their_text_as_given_and_carry_its_hash(rules: KnowledgeBase) -> None:
    stored = [json.loads(line) for line in segment_file(rules.directory, "kb.jsonl").read_text("utf-8").splitlines()]
    given = [json.loads(line) for line in RULES.read_text("utf-8").splitlines()]
    assert [(row["doc_id"], row["text"]) for row in stored] == [(row["doc_id"], row["text"]) for row in given]
    assert all(len(row["text_hash"]) == 64 for row in stored)
    mapped = json.loads(segment_file(rules.directory, "mappings.json").read_text())["rowid_to_doc_id"]
    assert mapped == [row["doc_id"] for row in given]


def test_init_over_a_knowledge_base_is_refused(kb_dir: Path) -> None:
    with pytest.raises(RefusedError, match="holds a knowledge base already"):
        kb_init(kb_dir)


def test_opening_a_directory_without_one_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no knowledge base here; sft-guard kb init --kb"):
        KnowledgeBase.open(tmp_path)


def test_a_lost_pointer_is_damage_and_not_a_free_place(rules: KnowledgeBase) -> None:
    (rules.directory / "CURRENT").unlink()
    with pytest.raises(DataError, match=r"CURRENT: is missing; damaged, refused"):
        KnowledgeBase.open(rules.directory)
    with pytest.raises(RefusedError, match="holds a knowledge base already"):
        kb_init(rules.directory)


BAD_ROWS: list[tuple[object, str]] = [
    ("{not json", "not JSON"),
    ("[1, 2]", "not a JSON object but list"),
    ({"doc_id": "a"}, "no `text`"),
    ({"text": ""}, "`text` is empty"),
    ({"text": "  \n\u3000"}, "`text` is empty"),
    ({"text": 7}, "`text` is int, not a string"),
    ({"text": None}, "`text` is NoneType"),
    ({"text": "a\u0000b"}, "control character U+0000 at character 1"),
    ({"text": "a\u001b[31mb"}, "control character U+001B at character 1"),
    ('{"text": "a\\ud800b"}', ""),
    ({"text": "x" * 100_001}, "`text` has 100001 characters"),
    ({"text": "fine", "doc_id": ["a"]}, "`doc_id` is list"),
    ({"text": "fine", "doc_id": True}, "`doc_id` is bool"),
    ({"text": "fine", "doc_id": "a\nb"}, "`doc_id` holds a control character"),
    ({"text": "fine", "title": 3}, "`title` is int"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=lambda value: str(value)[:30])
def test_a_bad_row_is_set_aside_with_place_and_reason_and_the_rest_goes_in(
    kb_dir: Path, tmp_path: Path, row: object, reason: str
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "good one"}, row, "", {"text": "good two"}])
    report = kb_add(kb_dir, jsonl=[source], embedder="none")
    assert (report["added"], report["quarantined"]) == (2, 1)
    kept = [json.loads(line) for line in (kb_dir / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert [entry["place"] for entry in kept] == ["in.jsonl:2"]
    assert reason in kept[0]["reason"]
    raw = row if isinstance(row, str) else json.dumps(row)
    assert kept[0]["raw"] == raw


def test_the_same_bad_rows_are_kept_once_however_often_they_come(kb_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'\xff\xfe bad\n{"text": ""}\n')
    for _ in range(2):
        assert kb_add(kb_dir, jsonl=[source], embedder="none")["quarantined"] == 2
    assert len((kb_dir / "quarantine.jsonl").read_bytes().splitlines()) == 2


def test_a_doc_id_that_names_another_text_is_set_aside_not_overwritten(rules: KnowledgeBase) -> None:
    report = rules.add([{"doc_id": "rule-01", "text": "something else"}])
    assert (report.added, report.quarantined, report.kb_version) == (0, 1, 1)
    assert "names another text already" in (rules.directory / "quarantine.jsonl").read_text()


def test_a_missing_doc_id_is_made_from_the_text_so_it_is_the_same_everywhere(kb_dir: Path) -> None:
    kb = KnowledgeBase.open(kb_dir)
    kb.add([{"text": "a b"}])
    assert kb.documents[0].doc_id == f"doc-{kb.documents[0].text_hash[:12]}"


def test_line_ends_of_unicode_do_not_split_a_row(kb_dir: Path) -> None:
    kb = KnowledgeBase.open(kb_dir)
    kb.add([{"text": "one\u2028two\u2029three\nfour"}])
    assert len(segment_file(kb_dir, "kb.jsonl").read_text("utf-8").splitlines()) == 1
    assert KnowledgeBase.open(kb_dir).documents[0].text == "one\u2028two\u2029three\nfour"


def test_empty_and_duplicate_rows_go_in_when_asked_for_on_purpose(kb_dir: Path) -> None:
    rows = [{"doc_id": f"r{i}", "text": "" if i < 15 else f"text {i}"} for i in range(97)]
    rows += [{"doc_id": f"r{i}", "text": f"text {i}"} for i in (20, 21, 22)]
    report = KnowledgeBase.open(kb_dir).add(rows, allow_bad=True, dedupe=False)
    assert (report.added, report.skipped, report.quarantined) == (100, 0, 0)
    kb = KnowledgeBase.open(kb_dir)
    assert sum(not document.text for document in kb.documents) == 15
    assert len({document.doc_id for document in kb.documents}) == 100
    hits = kb.search("text 20", k=5).hits
    assert len({hit.text for hit in hits}) == len(hits)


def test_chunks_get_numbered_ids_and_are_skipped_when_they_come_again(kb_dir: Path) -> None:
    kb = KnowledgeBase.open(kb_dir)
    row = {"doc_id": "long", "text": "one two three four five six", "title": "Numbers"}
    assert kb.add([row], chunk="4/1").added == 2
    assert [(d.doc_id, d.text) for d in kb.documents] == [
        ("long#1", "one two three four"),
        ("long#2", "four five six"),
    ]
    assert kb.add([row], chunk="4/1").skipped == 2


def test_text_files_go_in_whole_under_their_name(kb_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "leave.txt").write_text("Leave is 14 days.\nAsk early.", "utf-8")
    assert kb_add(kb_dir, text=[tmp_path / "leave.txt"], embedder="none")["added"] == 1
    assert KnowledgeBase.open(kb_dir).documents[0].doc_id == "leave"


def test_missing_input_is_one_clear_line(kb_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        kb_add(kb_dir, jsonl=[tmp_path / "nowhere.jsonl"], embedder="none")
    with pytest.raises(DataError, match="no input"):
        kb_add(kb_dir)
    with pytest.raises(ConfigError, match="chunk"):
        kb_add(kb_dir, jsonl=[RULES], chunk="5/9", embedder="none")
    assert KnowledgeBase.open(kb_dir).meta.kb_version == 0


def damaged(data: bytes) -> Iterator[bytes]:
    yield b""
    yield data + b"\n"
    step = max(1, len(data) // 40)
    for position in range(0, len(data), step):
        yield data[:position]
        yield data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


@pytest.mark.parametrize("with_vectors", [False, True])
def test_any_truncation_and_any_flipped_bit_is_refused(kb_dir: Path, with_vectors: bool) -> None:
    if with_vectors and not vectors_available():
        pytest.skip("needs numpy: " + embedder_status()[1])
    kb = KnowledgeBase.open(kb_dir, embedder=HashedNgramEmbedder(384) if with_vectors else None)
    kb.add(read_jsonl(RULES))
    kb.remove(["rule-03"])
    paths = list(content_files(kb_dir))
    assert len(paths) == (9 if with_vectors else 8)
    for path in paths:
        whole = path.read_bytes()
        for wrong in damaged(whole):
            if wrong == whole:
                continue
            path.write_bytes(wrong)
            with pytest.raises(DataError, match=r"^[^\n]+$"):
                KnowledgeBase.open(kb_dir)
        path.write_bytes(whole)
    assert KnowledgeBase.open(kb_dir).meta.doc_count == 14


def test_the_second_writer_is_told_to_wait_and_a_stale_one_to_open_again(rules: KnowledgeBase) -> None:
    holder = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from rag import storage; from rag.kb import KnowledgeBase\n"
            "from slo.errors import RefusedError\n"
            "d = pathlib.Path(sys.argv[1])\n"
            "with storage.writer_lock(d):\n"
            "    try:\n        KnowledgeBase.open(d).add([{'text': 'x'}])\n"
            "    except RefusedError as error:\n        print(error.reason)",
            str(rules.directory),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert holder.stdout.strip() == "locked"
    other = KnowledgeBase.open(rules.directory)
    other.add([{"text": "new"}])
    with pytest.raises(RefusedError, match="changed since it was opened") as refused:
        rules.add([{"text": "newer"}])
    assert refused.value.reason == "conflict"


def test_chinese_questions_find_their_rule_by_words_without_any_embedder(rules: KnowledgeBase) -> None:
    for question, expected in (
        ("\u8acb\u5047\u8981\u591a\u4e45\u524d\u7533\u8acb\uff1f", "rule-01"),
        ("\u75c5\u5047\u8981\u9644\u8a3a\u65b7\u8b49\u660e\u55ce\uff1f", "rule-03"),
        ("\u5fd8\u8a18\u5bc6\u78bc\uff0c\u5bc6\u78bc\u8981\u5e7e\u500b\u5b57\u5143\uff1f", "rule-07"),
        ("\uff36\uff30\uff2e\u600e\u9ebc\u9023\u7dda\uff1f", "rule-08"),
    ):
        result = rules.search(question, k=3)
        assert result.hits[0].doc_id == expected
        assert result.mode_used == "bm25"
        assert "no embedder" in result.note
        assert result.similarity_by == "character n-grams"
        assert 0.0 < result.hits[0].similarity <= 1.0
        assert result.context.startswith(result.hits[0].text)


def test_confidence_separates_what_is_in_the_rules_from_what_is_not(rules: KnowledgeBase) -> None:
    assert rules.search("\u7279\u5225\u4f11\u5047\u6eff\u4e00\u5e74\u6709\u5e7e\u5929\uff1f").confidence > 0.5
    assert rules.search("\u4eca\u5929\u53f0\u5317\u6703\u4e0b\u96e8\u55ce\uff1f").confidence < 0.5


def test_a_question_that_shares_no_word_is_a_zero_hit(rules: KnowledgeBase) -> None:
    result = rules.search("quantum chromodynamics")
    assert (result.hits, result.context, result.confidence) == ((), "", 0.0)


@pytest.mark.parametrize(
    ("query", "k", "mode"), [("", 3, "hybrid"), (" ", 3, "bm25"), ("a", 0, "bm25"), ("a", 3, "fast")]
)
def test_a_search_that_means_nothing_is_refused(rules: KnowledgeBase, query: str, k: int, mode: str) -> None:
    with pytest.raises(DataError):
        rules.search(query, k, mode)


def test_mode_embedding_without_an_embedder_says_what_to_install(rules: KnowledgeBase) -> None:
    with pytest.raises(DataError, match=r"search mode embedding: .*use hybrid or bm25"):
        rules.search("a", mode="embedding")


@needs_faiss
@pytest.mark.embeddings
def test_vectors_missing_from_an_add_without_embedder_are_made_by_the_next_one(kb_dir: Path) -> None:
    embedder = HashedNgramEmbedder(384)
    kb = KnowledgeBase.open(kb_dir, embedder=embedder)
    kb.add([{"text": "first text"}])
    bare = KnowledgeBase.open(kb_dir)
    assert "BM25" in bare.add([{"text": "second text"}]).notes[0]
    assert (bare.meta.indexed_count, bare.meta.doc_count) == (1, 2)
    full = KnowledgeBase.open(kb_dir, embedder=embedder)
    full.add([{"text": "third text"}])
    assert (full.meta.indexed_count, full.meta.doc_count) == (3, 3)
    assert full.search("second text", mode="embedding").hits[0].text == "second text"


@needs_faiss
@pytest.mark.embeddings
def test_vectors_of_another_embedder_are_never_compared(kb_dir: Path) -> None:
    KnowledgeBase.open(kb_dir, embedder=HashedNgramEmbedder(384)).add([{"text": "first text"}])
    with pytest.raises(DataError, match="its vectors were made by 'hashed-ngram-384'"):
        KnowledgeBase.open(kb_dir, embedder=HashedNgramEmbedder(512))


@needs_faiss
@pytest.mark.embeddings
def test_similarity_is_one_minus_half_the_squared_distance_that_faiss_reports(kb_dir: Path) -> None:
    import faiss
    import numpy as np

    embedder = HashedNgramEmbedder(384)
    kb = KnowledgeBase.open(kb_dir, embedder=embedder)
    kb.add(read_jsonl(RULES))
    query = "\u8acb\u5047\u898f\u5b9a\uff1f"
    index = faiss.read_index(str(segment_file(kb_dir, "kb.index")))
    assert type(index).__name__ == "IndexFlatL2"
    squared, rows = index.search(embedder.embed([query]), 3)
    hits = kb.search(query, k=3, mode="embedding").hits
    assert [hit.doc_id for hit in hits] == [kb.documents[row].doc_id for row in rows[0]]
    assert np.allclose([hit.similarity for hit in hits], 1 - squared[0] / 2, atol=1e-6)
    vectors = embedder.embed([hit.text for hit in hits])
    assert np.allclose(vectors @ embedder.embed([query])[0], [hit.similarity for hit in hits], atol=1e-6)


def test_search_command_prints_the_agreed_object(rules: KnowledgeBase) -> None:
    found = kb_search(rules.directory, "VPN", k=1, mode="bm25")
    assert list(found)[:2] == ["hits", "context"]
    hits = found["hits"]
    assert isinstance(hits, list)
    assert list(hits[0]) == ["doc_id", "text", "similarity", "score"]
    assert hits[0]["doc_id"] == "rule-08"
    assert found["context"] == hits[0]["text"]
    json.dumps(found)


def test_the_content_id_depends_on_content_alone(tmp_path: Path) -> None:
    ids = []
    for name, rows in (
        ("a", [{"text": "x"}, {"text": "y"}]),
        ("b", [{"text": "x"}]),
        ("c", [{"text": "x"}, {"text": "y"}]),
        ("d", [{"text": "x", "title": "t"}, {"text": "y"}]),  # found by other words: another content
        ("e", [{"text": "x"}, {"text": "y", "title": "t"}]),
    ):
        kb = KnowledgeBase.init(tmp_path / name)
        kb.add(rows)
        ids.append(kb.content_id)
    assert ids[0] == ids[2]
    assert len(set(ids)) == 4


def test_another_title_is_another_content_and_the_old_one_back_is_the_old_content(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "d", "text": "x", "title": "Annual leave"}, {"doc_id": "e", "text": "y"}])
    before = kb.content_id
    kb.add([{"doc_id": "d", "text": "x", "title": "Sick leave"}], update=True)
    assert kb.content_id != before
    kb.add([{"doc_id": "d", "text": "x", "title": "Annual leave"}], update=True)
    assert kb.content_id == before


def test_reading_needs_no_write_permission(rules: KnowledgeBase) -> None:
    before = {path: path.stat().st_mtime_ns for path in rules.directory.rglob("*")}
    storage.read(rules.directory)
    KnowledgeBase.open(rules.directory).search("VPN")
    assert {path: path.stat().st_mtime_ns for path in rules.directory.rglob("*")} == before
