"""Embedders by language, and hashed TF-IDF: who serves which text, and what is never compared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from rag.by_language import ByLanguage, with_every_script
from rag.embedding import load_embedder
from rag.hashed import HashedTfIdfEmbedder, gram_weight
from rag.static_embedder import StaticEmbedder
from rag.wordpiece import WordPiece
from slo.errors import DataError

ENGLISH = "How many days of annual leave do I have?"
CHINESE = "\u7b2c\u4e00\u5e74\u6709\u5e7e\u5929\u7279\u5225\u4f11\u5047\uff1f"
CHINESE_TOO = "\u7279\u5225\u4f11\u5047\u7b2c\u4e00\u5e74\u70ba\u4e03\u5929\u3002"
FOREIGN = "\u4f3a\u670d\u5668\u6a5f\u623f\u4e0d\u5f97\u98f2\u98df\u3002"


@pytest.fixture(scope="module")
def by_language() -> ByLanguage:
    static = load_embedder("static")
    assert isinstance(static, StaticEmbedder)
    return with_every_script(static)


def test_a_text_goes_to_the_first_member_that_covers_it(by_language: ByLanguage) -> None:
    static, hashed = by_language.members
    assert by_language.member_for(ENGLISH) is static
    assert by_language.member_for(CHINESE) is hashed
    assert by_language.member_for(ENGLISH, CHINESE) is hashed  # what is compared goes to one member as a whole
    assert by_language.member_for("VPN " + CHINESE) is hashed
    assert by_language.covers(CHINESE)
    assert with_every_script(by_language) is by_language


def test_vectors_of_different_members_never_meet(by_language: ByLanguage) -> None:
    vectors = by_language.embed([ENGLISH, CHINESE, "annual leave days", CHINESE_TOO])
    assert vectors.shape == (4, by_language.dim)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] == cosines[0, 3] == cosines[2, 1] == 0.0
    static, hashed = by_language.members
    one, other = static.embed([ENGLISH, "annual leave days"])
    assert cosines[0, 2] == pytest.approx(float(one @ other), abs=1e-6)
    one, other = hashed.embed([CHINESE, CHINESE_TOO])
    assert cosines[1, 3] == pytest.approx(float(one @ other), abs=1e-6)


def test_every_member_has_its_fingerprint_and_a_new_member_changes_the_whole(by_language: ByLanguage) -> None:
    static, hashed = by_language.members
    assert by_language.fingerprints == {static.name: static.fingerprint, hashed.name: hashed.fingerprint}
    other = ByLanguage(static, HashedTfIdfEmbedder(512))
    assert len({by_language.fingerprint, other.fingerprint, static.fingerprint, hashed.fingerprint}) == 4
    assert set(static.files) <= set(by_language.files)


def test_hashed_tfidf_finds_what_a_chinese_question_is_about() -> None:
    embedder = HashedTfIdfEmbedder()
    asked, right, wrong, empty = embedder.embed([CHINESE, CHINESE_TOO, FOREIGN, ""])
    assert float(asked @ right) > float(asked @ wrong) + 0.3
    assert np.linalg.norm(asked) == pytest.approx(1.0, abs=1e-6)
    assert not empty.any()


def test_function_characters_and_stop_words_say_little() -> None:
    # By hand: half for one character, 0.15 for function characters, half a gram of them costs a quarter.
    assert gram_weight("\u7279") == 0.5
    assert gram_weight("\u7684") == pytest.approx(0.075)
    assert gram_weight("\u7279\u7684") == 0.75
    assert gram_weight("<the>") == 0.15
    assert gram_weight("<vpn>") == 1.0


def test_the_size_is_part_of_the_name() -> None:
    small = load_embedder("hashed-tfidf-512")
    assert small is not None
    assert (small.name, small.dim) == ("hashed-tfidf-512", 512)
    with pytest.raises(DataError, match="hashed-tfidf-N with N from 256 to 8192"):
        load_embedder("hashed-tfidf-5")


PIECES = [
    "[UNK]",
    "a",
    "b",
    "##b",
    "##a",
    "ab",
    "e",
    "1",
    "##1",
    ",",
    "-",
    "_",
    "\u4e00",
    "\u30ab",
    "##\u30ab",
    "\u20ac",
]
# Characters whose class has not changed between versions of Unicode: the two libraries read different ones.
CHARACTERS = st.characters(
    min_codepoint=0, max_codepoint=0x33FF, categories=("L", "N", "P", "S", "Z", "Cc", "Mn")
).filter(lambda c: ord(c) < 0x250 or 0x2010 <= ord(c) < 0x2070 or 0x3000 <= ord(c) < 0x3100)


@given(st.text(st.one_of(CHARACTERS, st.sampled_from("ab1 ,-_\u4e00\u30ab\u20ac\u0301\u0130")), max_size=30))
def test_word_pieces_are_those_of_the_tokenizers_library(text: str) -> None:
    mine = WordPiece(PIECES)
    assert mine.ids(text) == REFERENCE.encode(text).ids


REFERENCE = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
REFERENCE.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
REFERENCE.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
