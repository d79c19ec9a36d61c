"""Any transformer by path, on models of a few thousand numbers made here: embedding, and distilling into a table."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.cli import main
from rag import distill
from rag.embedding import embedder_status, load_embedder
from rag.static_embedder import CARD, PIECES, TOKENIZER, StaticEmbedder
from slo.errors import ConfigError, DataError

MISSING = distill.missing_packages() or [] if embedder_status("some/name")[0] else ["sentence-transformers"]
pytestmark = [
    pytest.mark.embeddings,
    pytest.mark.skipif(bool(MISSING), reason=f"needs the embeddings extra: {', '.join(MISSING)} missing"),
]

WORDS = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("a", "an", "el", "ix", "o")]
PIECES_OF_BERT = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghij",
    *("##" + c for c in "abcdefghij"),
    *WORDS,
]
HIDDEN = 16


def bert(directory: Path, tokenizer: Any) -> Path:
    """A BERT of one layer with random weights, as a sentence-transformers directory (mean of tokens, unit length)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside those libraries
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer
        from transformers import BertConfig, BertModel

        torch.manual_seed(3)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        )  # fmt: skip
        parts = directory / "parts"
        BertModel(config).save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        body = Transformer(str(parts))
        SentenceTransformer(modules=[body, Pooling(HIDDEN)], device="cpu").save(str(directory / "model"))
    return directory / "model"


@pytest.fixture(scope="module")
def wordpiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    made = Tokenizer(models.WordPiece({p: i for i, p in enumerate(PIECES_OF_BERT)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return bert(tmp_path_factory.mktemp("bert"), BertTokenizerFast(tokenizer_object=made, model_max_length=64))


def test_any_sentence_transformers_directory_embeds(wordpiece_model: Path) -> None:
    embedder = load_embedder(str(wordpiece_model))
    again = load_embedder(str(wordpiece_model))
    assert embedder is not None
    assert again is not None
    vectors = embedder.embed(["ban del", "ban del", "zix"])
    assert (embedder.name, embedder.dim, vectors.shape) == (str(wordpiece_model), HIDDEN, (3, HIDDEN))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert float(vectors[0] @ vectors[1]) == pytest.approx(1.0, abs=1e-5)
    assert embedder.fingerprint == again.fingerprint
    assert embedder.covers("ban del zix")
    assert not embedder.covers("\u8acb\u5047\u898f\u5b9a")


def test_distilling_keeps_the_angles_of_single_words(wordpiece_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    assert main(["embedder", "distill", "--model", str(wordpiece_model), "--dim", "16", "--out", str(out)]) == 0
    card = json.loads((out / CARD).read_text())
    assert (card["tokenizer"], card["dim"], card["name"], card["source"]) == ("wordpiece", 16, "static-model", "model")
    assert "/" not in card["source"]  # a path of this machine means nothing elsewhere
    assert [w for w in (out / PIECES).read_text().split("\n") if w in WORDS] == WORDS
    embedder = load_embedder(str(out))
    assert isinstance(embedder, StaticEmbedder)
    # By hand: the mean of two words, each as long as it is telling.
    one, other, both = embedder.embed(["ban", "del", "ban del"])
    weights = np.linalg.norm(embedder._vectors[embedder._ids("ban del")], axis=1, keepdims=True)
    expected = (np.stack([one, other]) * weights).sum(axis=0)
    assert both == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    teacher = load_embedder(str(wordpiece_model))
    assert teacher is not None
    sample = WORDS[::5]
    ours, theirs = embedder.embed(sample), teacher.embed(sample)
    upper = np.triu_indices(len(sample), 1)
    # Rows that were laid out column by column once gave vectors that had nothing to do with the words.
    assert np.corrcoef((ours @ ours.T)[upper], (theirs @ theirs.T)[upper])[0, 1] > 0.3


def test_another_tokenizer_is_kept_as_it_is(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    scores = [("<pad>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    scores += [(f"\u2581{w}", -3.0) for w in WORDS] + [(c, -6.0) for c in "abcdefgklmnoprstvxz"]
    made = Tokenizer(models.Unigram(scores, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>", model_max_length=64,
    )  # fmt: skip
    source = bert(tmp_path / "xlm", tokenizer)
    card = distill.distil(source, tmp_path / "table", name="t", source_name="x", dim=8)
    assert card.tokenizer == "tokenizers"
    assert (tmp_path / "table" / TOKENIZER).exists()
    embedder = StaticEmbedder(tmp_path / "table")
    vectors = embedder.embed(["ban del", "del ban", "zix", ""])
    assert float(vectors[0] @ vectors[1]) == pytest.approx(1.0, abs=1e-5)  # a bag of words
    assert float(vectors[0] @ vectors[2]) < 0.9
    assert not vectors[3].any()
    assert embedder.unknown_token_ratio("\u8acb\u5047") == 0.5  # the mark of a word, and what follows it


def test_mistakes_are_one_line(wordpiece_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="from 8 to that"):
        distill.distil(wordpiece_model, tmp_path / "a", name="t", source_name="x", dim=900)
    with pytest.raises(DataError, match="not the published ones"):
        distill.distil(wordpiece_model, tmp_path / "b", name="t", source_name="x", dim=8, source_sha256="0" * 64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for model, out in ((str(wordpiece_model), "full"), ("no/such-model", "new"), (str(tmp_path), "new")):
        assert main(["embedder", "distill", "--model", model, "--out", str(tmp_path / out)]) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("distilling")]
        assert len(said) == 1
        assert said[0].startswith("sft-guard: ")
    assert not (tmp_path / "new").exists()
