"""The static embedder: the shipped table, its card, distilling, and word pieces without their library."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from guard.cli import main
from rag import distill
from rag.embedding import WEIGHTS_SHA256, Embedder, embedder_status, load_embedder, minilm_directory
from rag.static_embedder import CARD, PIECES, TABLE, StaticEmbedder
from rag.wordpiece import WordPiece
from slo.errors import DataError

SHIPPED = Path(distill.__file__).parent / "models" / "static-minilm"
CHINESE = "\u8acb\u5047\u6709\u4ec0\u9ebc\u898f\u5b9a\uff1f"
MINILM, WHY_NOT = embedder_status("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def static() -> Embedder:
    embedder = load_embedder("static")
    assert embedder is not None
    return embedder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "model"))


def cosine(embedder: Embedder, one: str, other: str) -> float:
    vectors = embedder.embed([one, other])
    return float(vectors[0] @ vectors[1])


def test_the_shipped_table_is_what_its_card_says() -> None:
    card = json.loads((SHIPPED / CARD).read_text())
    assert card["source_sha256"] == WEIGHTS_SHA256
    assert card["licence"] == "Apache-2.0"
    assert card["files"] == {name: sha256((SHIPPED / name).read_bytes()).hexdigest() for name in (TABLE, PIECES)}
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 8_000_000


def test_vectors_are_units_and_the_same_however_a_text_is_embedded(static: Embedder) -> None:
    texts = [
        "How many days of annual leave do I have?",
        "",
        "x " * 20_000,
        CHINESE[:-1],
        "Gr\u00fc\u00dfe aus K\u00f6ln",
    ]
    vectors = static.embed(texts)
    assert vectors.shape == (5, static.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 0.0, 1.0, 0.0, 1.0], abs=1e-5)
    one_by_one = np.concatenate([static.embed([text]) for text in texts])
    assert np.allclose(vectors, one_by_one, atol=1e-5)
    assert static.embed([]).shape == (0, static.dim)


def test_it_knows_meaning_beyond_shared_words(static: Embedder) -> None:
    near = cosine(static, "How do I change my password?", "Resetting a forgotten login passphrase")
    far = cosine(static, "How do I change my password?", "The cafeteria opens at noon")
    assert near > far + 0.2


def test_it_covers_latin_script_only(static: Embedder) -> None:
    assert static.covers("leave rules?")
    assert static.covers("D\u00e9marrer la journ\u00e9e \u00e0 huit heures")
    assert not static.covers(CHINESE)
    assert not static.covers("\u041a\u0430\u043a \u0434\u0435\u043b\u0430?")
    assert static.unknown_token_ratio(CHINESE[:-1]) == 1.0


def test_equal_content_has_an_equal_fingerprint_and_other_content_another(copied: Path, static: Embedder) -> None:
    again = load_embedder(str(copied))
    assert again is not None
    assert (again.fingerprint, again.name) == (static.fingerprint, str(copied))
    assert load_embedder(static.name) is not None  # a knowledge base loads its embedder by that name


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: (d / TABLE).write_bytes((d / TABLE).read_bytes()[:-1] + b"\0"), "SHA-256"),
        (lambda d: (d / PIECES).unlink(), "cannot be read"),
        (lambda d: (d / CARD).write_text("{}"), "not the card"),
        (lambda d: (d / CARD).write_text((d / CARD).read_text().replace('"format": 1', '"format": 9')), "format 9"),
    ],
    ids=["flipped", "missing", "card", "format"],
)
def test_a_damaged_table_is_refused_in_one_line(copied: Path, damage: object, says: str) -> None:
    damage(copied)  # type: ignore[operator]
    with pytest.raises(DataError, match=says) as caught:
        StaticEmbedder(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't e-mail caf\u00e9_7!", ["don", "'", "t", "e", "-", "mail", "cafe", "_", "7", "!"]),
        ("a\x00b\tc\u200dd", ["ab", "cd"]),
        ("\u4e00\u4e8c\u30ab\u30ca\u20ac5", ["\u4e00", "\u4e8c", "\u30ab\u30ca\u20ac5"]),
    ],
    ids=["marks", "control", "ideographs"],
)
def test_words_are_cut_as_bert_cuts_them(text: str, words: list[str]) -> None:
    assert WordPiece(["[UNK]"]).words(text) == words


def test_the_longest_piece_wins_and_a_word_without_pieces_is_unknown() -> None:
    pieces = WordPiece(["[UNK]", "un", "##aff", "##able", "##a", "unaff"])
    assert pieces.ids("unaffable un") == [5, 3, 1]
    assert pieces.ids("unx " + "a" * 101) == [0, 0]


def test_distilling_without_the_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(distill, "missing_packages", lambda: ["torch", "model2vec"])
    assert main(["embedder", "distill", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.strip() == (
        "sft-guard: embedder distill needs torch, model2vec: pip install 'sft-guard[embeddings]'"
    )


@pytest.mark.slow
@pytest.mark.embeddings
@pytest.mark.skipif(not MINILM or bool(distill.missing_packages()), reason=WHY_NOT)
def test_the_command_of_the_card_makes_the_shipped_table_again(tmp_path: Path) -> None:
    made = distill.distil(
        minilm_directory(), tmp_path / "again", name="static-all-MiniLM-L6-v2", source_name="x", latin_only=True,
        source_sha256=WEIGHTS_SHA256,
    )  # fmt: skip
    shipped, again = StaticEmbedder(SHIPPED), StaticEmbedder(tmp_path / "again")
    assert made.files[PIECES] == shipped.card.files[PIECES]
    texts = ["How do I reset my password?", "The limit is 14 days.", "VPN", "quarterly revenue", "a b c"]
    # Another processor rounds otherwise, and a component of the rotation may change its sign: angles stay.
    one, other = shipped.embed(texts), again.embed(texts)
    assert np.allclose(one @ one.T, other @ other.T, atol=0.01)
