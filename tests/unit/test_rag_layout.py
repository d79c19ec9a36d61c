"""The four-file layout out and in again, differences, rerankers, and the worked example byte for byte."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from rag import kb_commands
from rag.commands import kb_add, kb_init, kb_search
from rag.embedding import HashedNgramEmbedder
from rag.kb import KnowledgeBase
from rag.layout import write_layout
from rag.practice import read_layout
from rag.rows import read_jsonl
from slo.errors import DataError, RefusedError

RULES = Path(__file__).parent.parent / "data" / "rag_rules_zh.jsonl"


@pytest.fixture
def kb(tmp_path: Path) -> KnowledgeBase:
    kb = KnowledgeBase.init(tmp_path / "kb", embedder=HashedNgramEmbedder(384))
    kb.add(list(read_jsonl(RULES))[:10])
    kb.add(read_jsonl(RULES))
    return kb


def test_the_layout_of_the_worked_example_has_the_hashes_of_its_texts_and_counts_as_there(
    kb: KnowledgeBase, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    write_layout(kb, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "kb.jsonl").read_text("utf-8").splitlines()]
    given = [json.loads(line) for line in RULES.read_text("utf-8").splitlines()]
    assert [row["doc_id"] for row in rows] == [row["doc_id"] for row in given]
    for row in rows:  # normalised white space, then SHA-256
        assert row["text_hash"] == hashlib.sha256(" ".join(row["text"].split()).encode()).hexdigest()
    mapping = json.loads((tmp_path / "out" / "mappings.json").read_text())
    assert mapping == {"rowid_to_doc_id": [row["doc_id"] for row in given]}
    meta = json.loads((tmp_path / "out" / "kb_meta.json").read_text())
    assert (meta["kb_version"], meta["doc_count"], meta["dim"]) == (2, 15, 384)
    assert meta["index_type"] == "faiss.IndexFlatL2"


def test_what_was_exported_comes_in_again_with_its_version_and_its_vectors(kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_layout(kb, tmp_path / "out")
    again, note = read_layout(tmp_path / "out", tmp_path / "again", embedder=HashedNgramEmbedder(384))
    assert note == "took over 15 vectors of hashed-ngram-384"
    assert (again.meta.kb_version, again.meta.indexed_count, again.content_id) == (2, 15, kb.content_id)
    again.attach(HashedNgramEmbedder(384))
    query = json.loads(RULES.read_text("utf-8").splitlines()[3])["text"]
    assert again.search(query, mode="embedding").hits == kb.search(query, mode="embedding").hits
    assert again.add([{"text": "one more"}]).kb_version == 3
    with pytest.raises(RefusedError, match="holds a knowledge base already"):
        read_layout(tmp_path / "out", tmp_path / "again")


def test_vectors_of_another_embedder_are_not_taken_over(kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_layout(kb, tmp_path / "out")
    again, note = read_layout(tmp_path / "out", tmp_path / "again", embedder=HashedNgramEmbedder(512))
    assert "does not make these vectors" in note
    assert again.meta.indexed_count == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("kb.jsonl", '"rule-02"', '"rule-99"', "does not list the doc_ids"),
        ("kb.jsonl", "\u5929", "\u65e5", "`text_hash` is not the SHA-256"),
        ("kb_meta.json", '"doc_count": 15', '"doc_count": 14', "doc_count 14, and kb.jsonl has 15 rows"),
        ("kb_meta.json", '"dim": 384', '"dim": "x"', "dim 'x', model 'hashed-ngram-384'; export it again"),
        ("mappings.json", "{", "[", "not JSON"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(
    kb: KnowledgeBase, tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_layout(kb, out)
    text = (out / name).read_text("utf-8")
    assert old in text
    (out / name).write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(DataError, match=message):
        read_layout(out, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_mapping_that_counts_from_one_is_refused_with_a_reason(kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_layout(kb, tmp_path / "out")
    path = tmp_path / "out" / "mappings.json"
    named = json.loads(path.read_text())["rowid_to_doc_id"]
    for first, message in ((0, ""), (1, "does not list the doc_ids")):
        path.write_text(json.dumps({"rowid_to_doc_id": {str(n): name for n, name in enumerate(named, first)}}))
        if message:
            with pytest.raises(DataError, match=message):
                read_layout(tmp_path / "out", tmp_path / f"again{first}")
        else:
            assert read_layout(tmp_path / "out", tmp_path / f"again{first}")[0].meta.doc_count == 15


@pytest.mark.parametrize("number", [float("nan"), 1000.0], ids=["nan", "long"])
def test_vectors_that_are_none_are_not_taken_over(kb: KnowledgeBase, tmp_path: Path, number: float) -> None:
    (tmp_path / "out").mkdir()
    path = write_layout(kb, tmp_path / "out")["kb.index"]
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", number))
    again, note = read_layout(tmp_path / "out", tmp_path / "again", embedder=HashedNgramEmbedder(384))
    assert "does not make these vectors" in note
    assert again.meta.indexed_count == 0


def test_diff_names_what_was_added_removed_and_changed_between_generations(tmp_path: Path) -> None:
    kb_init(tmp_path / "kb")
    kb = KnowledgeBase.open(tmp_path / "kb")
    kb.add([{"doc_id": name, "text": f"text {name}"} for name in "abc"])
    kb.add([{"doc_id": "b", "text": "other"}, {"doc_id": "d", "text": "new"}], update=True)
    kb.remove(["a"])
    found = kb_commands.kb_diff(f"{tmp_path / 'kb'}@1", str(tmp_path / "kb"))
    assert (found["added_ids"], found["removed_ids"], found["changed_ids"], found["same"]) == (["d"], ["a"], ["b"], 1)
    assert found["fields"] == {"kb_version": [1, 3]}
    assert kb_commands.kb_diff(str(tmp_path / "kb"), str(tmp_path / "kb"))["same"] == 3


def test_commands_remove_compact_tell_and_sign(tmp_path: Path) -> None:
    kb_init(tmp_path / "kb")
    (tmp_path / "hr.md").write_text("# Leave\nAsk early.\n# Travel\nBook late.\n", "utf-8")
    report = kb_add(tmp_path / "kb", files=[tmp_path / "hr.md"], embedder="none", roles=["hr"], near="report")
    assert report["added"] == 2
    assert kb_search(tmp_path / "kb", "leave", mode="bm25", roles=[])["hits"] == []
    (tmp_path / "hr.md").write_text("# Leave\nAsk very early.\n", "utf-8")
    report = kb_add(tmp_path / "kb", files=[tmp_path / "hr.md"], embedder="none", roles=["hr"], update=True)
    assert (report["added"], report["replaced"], report["doc_count"]) == (1, 2, 1)
    assert kb_commands.kb_remove(tmp_path / "kb", ["hr", "x"])["missing"] == ["x"]
    assert kb_commands.kb_compact(tmp_path / "kb", 1)["segments"] == 0
    assert kb_commands.kb_sign(tmp_path / "kb", key=b"k")["signed"]
    assert kb_commands.kb_info(tmp_path / "kb", key=b"k")["signature"] == "verified"


class Backwards:
    """Thinks the shortest text fits best."""

    name = "backwards"

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return [-float(len(text)) for text in texts]


def test_a_reranker_orders_the_best_and_its_scores_are_shown(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": f"d{i}", "text": "vpn " + "more " * i} for i in range(9)])
    kb.use_reranker(Backwards())
    hits = kb.search("vpn", 2).hits
    assert [(hit.doc_id, hit.score) for hit in hits] == [("d0", -4.0), ("d1", -9.0)]


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="needs pip install 'sft-guard[embeddings]'"
)
@pytest.mark.embeddings
@pytest.mark.filterwarnings("ignore")
def test_a_cross_encoder_is_loaded_by_path_and_one_with_several_scores_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    from rag.reranking import load_reranker

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "vpn", "leave", "form"]
    for labels in (1, 3):
        home = tmp_path / f"tiny{labels}"
        home.mkdir()
        (home / "vocab.txt").write_text("\n".join(words))
        BertTokenizer(str(home / "vocab.txt")).save_pretrained(home)
        config = BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                            intermediate_size=8, max_position_embeddings=32, num_labels=labels)  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(home)
    reranker = load_reranker(str(tmp_path / "tiny1"))
    scores = reranker.scores("vpn form", ["vpn", "leave", "vpn"])
    assert scores[0] == pytest.approx(scores[2], abs=1e-5)
    assert reranker.scores("vpn", []) == []
    with pytest.raises(DataError, match="gives 3 scores a pair"):
        load_reranker(str(tmp_path / "tiny3"))
    with pytest.raises(DataError, match="cannot be loaded"):
        load_reranker(str(tmp_path / "nowhere"))
