"""Forward pass of a BERT sentence encoder (all-MiniLM-L6-v2) in numpy alone.

Loading torch, transformers and sentence-transformers costs seconds and half a gigabyte per process; this reads the
same safetensors file, is ready in a fraction of a second, and agrees with them to about 2e-7 per component (a test
compares). Batches are bounded by tokens, so memory stays flat however many texts come.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MAX_TOKENS = 256
"""Word pieces read of one text; the rest is cut off, as sentence-transformers does with this model."""

_TOKENS_PER_BATCH = 1024
_GELU_BLOCK = 16_384  # values worked on at a time: small enough to stay in the processor's cache
_LAYER_NORM_EPSILON = np.float32(1e-12)


class MiniLm:
    """Texts to unit vectors: six transformer layers, mean over the tokens, L2 norm.

    Args:
        directory: holds `model.safetensors`, `tokenizer.json` and `config.json`.
        weights: content of model.safetensors when it was read (and verified) already.
    """

    def __init__(self, directory: Path, weights: bytes) -> None:
        import msgspec
        from safetensors.numpy import load
        from tokenizers import Tokenizer

        config: dict[str, Any] = msgspec.json.decode((directory / "config.json").read_bytes())
        self.dim = int(config["hidden_size"])
        self._layer_count = int(config["num_hidden_layers"])
        self._head_count = int(config["num_attention_heads"])
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        # The file asks for fixed padding to 128; padding to the longest of a batch gives the same vectors sooner.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._unknown_id: int = msgspec.convert(self._tokenizer.token_to_id("[UNK]"), int)
        self._w: dict[str, Floats] = {}
        self._adopt(load(weights))

    def _adopt(self, raw: dict[str, Floats]) -> None:
        """Keep the weights with the three projections of attention joined and every matrix ready for `x @ w`."""
        tables = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight")
        for name in (*tables, "LayerNorm.weight", "LayerNorm.bias"):
            self._w[name] = raw[f"embeddings.{name}"]
        for layer in range(self._layer_count):
            prefix = f"encoder.layer.{layer}."
            parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
            self._w[f"{layer}.qkv.w"] = np.ascontiguousarray(np.concatenate([raw[f"{p}.weight"] for p in parts]).T)
            self._w[f"{layer}.qkv.b"] = np.concatenate([raw[f"{p}.bias"] for p in parts])
            for short, name in (("attn", "attention.output"), ("up", "intermediate"), ("down", "output")):
                self._w[f"{layer}.{short}.w"] = np.ascontiguousarray(raw[f"{prefix}{name}.dense.weight"].T)
                self._w[f"{layer}.{short}.b"] = raw[f"{prefix}{name}.dense.bias"]
                if short != "up":
                    self._w[f"{layer}.{short}.norm.w"] = raw[f"{prefix}{name}.LayerNorm.weight"]
                    self._w[f"{layer}.{short}.norm.b"] = raw[f"{prefix}{name}.LayerNorm.bias"]

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, shape (len(texts), dim)."""
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and (end + 1 - begin) * len(ids[order[end]]) <= _TOKENS_PER_BATCH:
                end += 1
            rows = order[begin:end]
            out[rows] = self._forward([ids[i] for i in rows])
            begin = end
        return out

    def unknown_token_ratio(self, text: str) -> float:
        """Share of the text's word pieces that the vocabulary lacks, 0..1; 0.0 for an empty text."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids.count(self._unknown_id) / len(ids) if ids else 0.0

    def _forward(self, id_lists: list[list[int]]) -> Floats:
        count, length = len(id_lists), max(len(ids) for ids in id_lists)
        ids = np.zeros((count, length), dtype=np.int64)
        mask: Floats = np.zeros((count, length), dtype=np.float32)
        for row, row_ids in enumerate(id_lists):
            ids[row, : len(row_ids)] = row_ids
            mask[row, : len(row_ids)] = 1.0
        w = self._w
        x: Floats = w["word_embeddings.weight"][ids]  # (count, length, dim)
        x += w["position_embeddings.weight"][:length]
        x += w["token_type_embeddings.weight"][0]
        rows = x.reshape(count * length, self.dim)
        x = _layer_norm(rows, w["LayerNorm.weight"], w["LayerNorm.bias"])
        shut: Floats | None = None if mask.all() else (mask * np.float32(1e9) - np.float32(1e9))[:, None, None, :]
        for layer in range(self._layer_count):
            mixed: Floats = self._attention(layer, x, count, length, shut) @ w[f"{layer}.attn.w"]
            mixed += w[f"{layer}.attn.b"]
            mixed += x
            x = _layer_norm(mixed, w[f"{layer}.attn.norm.w"], w[f"{layer}.attn.norm.b"])
            hidden: Floats = x @ w[f"{layer}.up.w"]  # (count * length, 4 * dim)
            hidden += w[f"{layer}.up.b"]
            _gelu(hidden)
            hidden = hidden @ w[f"{layer}.down.w"]
            hidden += w[f"{layer}.down.b"]
            hidden += x
            x = _layer_norm(hidden, w[f"{layer}.down.norm.w"], w[f"{layer}.down.norm.b"])
        pooled: Floats = np.einsum("nld,nl->nd", x.reshape(count, length, self.dim), mask)  # sums; the norm divides
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled

    def _attention(self, layer: int, x: Floats, count: int, length: int, shut: Floats | None) -> Floats:
        heads, size = self._head_count, self.dim // self._head_count
        joined = x @ self._w[f"{layer}.qkv.w"]
        joined += self._w[f"{layer}.qkv.b"]
        query, key, value = joined.reshape(count, length, 3, heads, size).transpose(2, 0, 3, 1, 4)
        weights = query @ key.transpose(0, 1, 3, 2)  # (count, heads, length, length)
        weights *= np.float32(size**-0.5)
        if shut is not None:
            weights += shut  # padding gets no attention
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: Floats = (weights @ value).transpose(0, 2, 1, 3).reshape(count * length, self.dim)
        return mixed


def _layer_norm(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Normalise each row in place; x: shape (rows, dim)."""
    x -= x.mean(axis=-1, keepdims=True)
    variance = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1])
    x /= np.sqrt(variance + _LAYER_NORM_EPSILON)
    x *= weight
    x += bias
    return x


def _gelu(x: Floats) -> None:
    """x * (1 + erf(x / sqrt 2)) / 2 in place; x: shape (rows, width).

    Source: erf by Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26, error below 1.5e-7: numpy has
    none, and the tanh form that is sometimes used instead is off by 1e-4.
    """
    step = max(1, _GELU_BLOCK // x.shape[1])
    for begin in range(0, x.shape[0], step):
        block = x[begin : begin + step]
        z = block * np.float32(0.7071067811865476)
        size = np.abs(z)
        t = size * np.float32(0.3275911)
        t += np.float32(1.0)
        np.reciprocal(t, out=t)
        tail = t * np.float32(1.061405429)
        for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
            tail += np.float32(coefficient)
            tail *= t
        size *= size
        np.negative(size, out=size)
        np.exp(size, out=size)
        tail *= size  # 1 - erf(|z|)
        np.subtract(np.float32(2.0), tail, out=tail, where=z >= 0)  # now 1 + erf(z) for either sign
        block *= np.float32(0.5)
        block *= tail
