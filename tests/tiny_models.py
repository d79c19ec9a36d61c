"""Tiny Hugging Face models with their own tokenizer, made in seconds: weights are set by hand, not trained.

The encoder is one layer whose output is (nearly) its word embedding, so what the classifier says is decided by words:
the token classifier flags FLAGGED, the NLI model says that a claim with FLAGGED contradicts, and that any other claim
is entailed where the window holds ANCHOR.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLAGGED, ANCHOR = "zebra", "anchor"
SENTENCE = ("the", "office", "opens", "at", "nine", "and", "closes", "late", ".", "filler")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", FLAGGED, ANCHOR, *SENTENCE)
HIDDEN = 32


def tokenizer() -> Any:
    """Words between blanks, pairs as BERT has them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def token_model(directory: Path, id2label: Mapping[int, str] | None = None) -> Path:
    """A token classifier that calls FLAGGED unsupported and everything else supported."""
    import torch
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    names = dict(id2label or {0: "LABEL_0", 1: "LABEL_1"})
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=64, id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    model = BertForTokenClassification(config).eval()
    with torch.no_grad():
        _identity(model.bert)
        words = model.bert.embeddings.word_embeddings.weight
        words.copy_(torch.eye(len(WORDS), HIDDEN) * 10)
        head = model.classifier
        head.weight.zero_()
        head.bias.copy_(torch.tensor([4.0, 0.0]))
        head.weight[1, WORDS.index(FLAGGED)] = 4.0
    return _saved(directory, model)


def nli_model(directory: Path, id2label: Mapping[int, str] | None = None) -> Path:
    """A sequence classifier (entailment, neutral, contradiction) that reads the whole window as a bag of words."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    names = dict(id2label or {0: "entailment", 1: "neutral", 2: "contradiction"})
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=64, id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        _identity(model.bert, mixed=True)
        words = model.bert.embeddings.word_embeddings.weight
        words.zero_()  # words that mean nothing here must not thin out those that do
        for word in ("[CLS]", FLAGGED, ANCHOR):
            words[WORDS.index(word), WORDS.index(word)] = 10.0
        pooler, head = model.bert.pooler.dense, model.classifier
        pooler.weight.copy_(torch.eye(HIDDEN))
        pooler.bias.zero_()
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        head.weight[0, WORDS.index(ANCHOR)] = 30.0
        head.weight[2, WORDS.index(FLAGGED)] = 60.0
    return _saved(directory, model)


def _identity(bert: Any, *, mixed: bool = False) -> None:
    """No positions, no types, no feed-forward. mixed: attention adds the mean of all tokens to each."""
    import torch

    bert.embeddings.position_embeddings.weight.zero_()
    bert.embeddings.token_type_embeddings.weight.zero_()
    layer = bert.encoder.layer[0]
    own = layer.attention.self
    heads = (own.query, own.key, own.value, layer.attention.output.dense)
    for part in (*heads, layer.intermediate.dense, layer.output.dense):
        part.weight.zero_()
        part.bias.zero_()
    if mixed:
        own.value.weight.copy_(torch.eye(HIDDEN))
        layer.attention.output.dense.weight.copy_(torch.eye(HIDDEN) * 16)


def _saved(directory: Path, model: Any) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer().save_pretrained(directory)
    return directory


def chance_model(directory: Path) -> Path:
    """An NLI model of the size of BERT-tiny (2 layers of 128, 512 positions) with weights of chance, for timing."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    names = {0: "entailment", 1: "neutral", 2: "contradiction"}
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        max_position_embeddings=512, id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    _saved(directory, BertForSequenceClassification(config).eval())
    made = tokenizer()
    made.model_max_length = 512
    made.save_pretrained(directory)
    return directory
