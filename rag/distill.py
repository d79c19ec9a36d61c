"""Distil a sentence transformer into a table of word-piece vectors (model2vec), int8. Imports torch when it runs.

On top of what model2vec gives, components are brought to one spread and rows to one length before they are weighted: a
few directions that every piece shares no longer drown the rest, and how much a piece counts is its rarity alone. On the
public retrieval sets the first hit is right for 73 instead of 69 of 100 FAQ questions (docs/embedders.md).
"""

from __future__ import annotations

import importlib.util
import warnings
from contextlib import redirect_stderr
from hashlib import sha256
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rag.probing import probe_directory
from rag.static_embedder import CARD, FORMAT, PIECES, TABLE, TOKENIZER, Card
from rag.wordpiece import UNKNOWN
from slo.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Table = npt.NDArray[np.float32]

DIM_DEFAULT = 256
SIF_COEFFICIENT = 1e-4
"""a of a / (a + p): how soon frequent pieces lose weight; p by Zipf's law from the rank in the vocabulary.

model2vec's default. Source: Arora, Liang, Ma, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (2017).
"""

NEEDED = ("torch", "transformers", "model2vec", "skeletoken")
# Pieces that hold a letter beyond Latin: all but blind there, so a model that is asked to leave them out says so.
_BEYOND_LATIN = (
    r"\[unused\d+\]|.*[\u0370-\u1dff\u2c00-\ua71f\ua7ff-\uabff\uac00-\ufaff\uff66-\uffdc\U00010000-\U0010ffff]"
)
_UNUSED = r"\[unused\d+\]"


def missing_packages() -> list[str]:
    """What must be installed before `distil` can run."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def distil(
    source: Path,
    out: Path,
    *,
    name: str,
    source_name: str,
    dim: int = DIM_DEFAULT,
    latin_only: bool = False,
    licence: str = "",
    command: str = "",
    source_sha256: str = "",
    threads: int = 1,
) -> Card:
    """Write a static embedder to `out`, which must not exist or be empty.

    Args:
        source: directory of a transformer with tokenizer and safetensors weights.
        name: what vectors are called by; two tables with one name but other content differ by fingerprint.
        source_name: what to call the source in the card (a path means nothing elsewhere).
        dim: principal components kept.
        latin_only: leave out pieces of other scripts; the embedder then does not cover them.
        source_sha256: refuse other weights than these.
    Raises:
        ConfigError: dim is out of range, or `out` is in the way.
        DataError: the source is not a transformer that can be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", str(out), "name a directory that does not exist yet")
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        raise DataError(f"{source}: no *.safetensors in it; name the directory of a transformer or its cached name")
    digest = _digest(weights)
    if source_sha256 and digest != source_sha256:
        raise DataError(
            f"{source}: SHA-256 of its weights is {digest}, expected {source_sha256}; not the published ones"
        )
    vectors, importance, tokenizer = _token_vectors(source, latin_only, threads)
    if not 8 <= dim <= vectors.shape[1]:
        raise ConfigError("--dim", dim, f"the model has {vectors.shape[1]} dimensions: write a number from 8 to that")
    codes, scales = quantised(weighted(vectors, importance, dim))
    kind, file, lowercase = _kept_tokenizer(tokenizer)
    from safetensors.numpy import save

    files = {TABLE: save({"vectors": codes, "scales": scales}), file[0]: file[1]}
    card = Card(
        format=FORMAT, name=name, dim=dim, tokenizer=kind, lowercase=lowercase, latin_only=latin_only,
        source=source_name, source_sha256=digest, licence=licence, made_with=f"model2vec {version('model2vec')}",
        command=command, files={file: sha256(content).hexdigest() for file, content in files.items()},
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for file_name, content in files.items():
        (out / file_name).write_bytes(content)
    (out / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    return card


def _digest(weights: list[Path]) -> str:
    """SHA-256 (hex) of the one file, or of the digests of several."""
    digests = [sha256(path.read_bytes()) for path in weights]
    return digests[0].hexdigest() if len(digests) == 1 else sha256(b"".join(d.digest() for d in digests)).hexdigest()


def weighted(vectors: Table, importance: Table, dim: int) -> Table:
    """Components of one spread, rows of one length, times their importance; the first `dim` components.

    vectors: rotated to principal components, shape (vocabulary, width). importance: shape (vocabulary,).
    """
    import numpy

    spread = vectors.std(axis=0)
    whitened = vectors / numpy.where(spread > 0.0, spread, 1.0)
    norms = numpy.linalg.norm(whitened, axis=1, keepdims=True)
    norms[norms == 0.0] = 1.0
    table: Table = (whitened / norms * importance[:, None])[:, :dim].astype(numpy.float32)
    return table


def quantised(table: Table) -> tuple[Any, Any]:
    """int8 codes and one float32 scale per row; the error of a component is at most half a scale.

    >>> import numpy
    >>> codes, scales = quantised(numpy.array([[2.54, -1.27], [0.0, 0.0]], dtype=numpy.float32))
    >>> codes.tolist(), round(float(scales[0]), 4), float(scales[1])
    ([[127, -64], [0, 0]], 0.02, 0.0)
    """
    import numpy

    scales = (numpy.abs(table).max(axis=1) / 127.0).astype(numpy.float32)
    divisors = numpy.where(scales > 0.0, scales, 1.0)
    return numpy.ascontiguousarray(numpy.rint(table / divisors[:, None]), dtype=numpy.int8), scales


def _token_vectors(source: Path, latin_only: bool, threads: int) -> tuple[Table, Table, Any]:
    """Rotated vectors of every piece (all components), SIF weights, and the tokenizer that fits them."""
    probe_directory(source)
    with warnings.catch_warnings(), redirect_stderr(StringIO()):  # progress bars and deprecations of those libraries
        warnings.simplefilter("ignore")
        import numpy
        import torch
        from model2vec.distill import distill_from_model
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        try:
            model = AutoModel.from_pretrained(source, local_files_only=True, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, use_fast=True)
            made = distill_from_model(
                model,
                tokenizer,
                device="cpu",
                pca_dims="auto",
                sif_coefficient=SIF_COEFFICIENT,
                token_remove_pattern=_BEYOND_LATIN if latin_only else _UNUSED,
                quantize_to="float32",
            )
        except Exception as error:  # the libraries raise a dozen kinds for "damaged" and "of a kind I do not know"
            raise DataError(f"{source}: cannot be distilled ({' '.join(str(error).split())[:200]})") from error
    # Row by row: safetensors writes the memory as it lies, and the rotation leaves it column by column.
    vectors = numpy.ascontiguousarray(made.embedding, dtype=numpy.float32)
    importance = made.weights if made.weights is not None else numpy.ones(len(vectors))
    return vectors, numpy.asarray(importance, dtype=numpy.float32), made.tokenizer


def _kept_tokenizer(tokenizer: Any) -> tuple[str, tuple[str, bytes], bool]:
    """Kind, (file name, content), lowercase. BERT's is kept as a list of pieces, which needs no library to read."""
    described = msgspec.json.decode(tokenizer.to_str())
    model, normalizer = described["model"], described.get("normalizer") or {}
    bert = (
        model["type"] == "WordPiece"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer.get("handle_chinese_chars") is True
        and normalizer.get("strip_accents") in (None, normalizer.get("lowercase"))
        and (described.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and model["unk_token"] == UNKNOWN
    )
    if not bert:
        return "tokenizers", (TOKENIZER, tokenizer.to_str().encode()), False
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    return "wordpiece", (PIECES, "\n".join(pieces).encode()), bool(normalizer["lowercase"])


def local_source(model: str) -> Path:
    """The directory of a model given by path, or by name in the local cache.

    Raises:
        DataError: it is not on this machine; nothing is downloaded.
    """
    if Path(model).is_dir():
        return Path(model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception as error:  # a wrong name, an empty cache, a missing library: one cure for all
        raise DataError(f"--model {model!r}: not on this machine; name a directory or a model in the cache") from error
