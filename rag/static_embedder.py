"""Sentence vectors by looking words up: a table distilled from a transformer, made by `sft-guard embedder distill`.

A text is the mean of the vectors of its word pieces, each scaled by how telling the piece is. No context, no torch, and
thousands of texts a second on one core. A model is a directory:

    static.json         name, dimension, tokenizer, where it comes from, SHA-256 of the other files
    model.safetensors   vectors: int8, shape (vocabulary, dim); scales: float32, shape (vocabulary,)
    vocab.txt           word pieces, one a line; or tokenizer.json for models with another tokenizer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rag.retrieval import STATIC
from rag.text import latin_ratio
from rag.wordpiece import WordPiece
from slo.codec import NOT_JSON
from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

CARD, TABLE, PIECES, TOKENIZER = "static.json", "model.safetensors", "vocab.txt", "tokenizer.json"
FORMAT = 1

_PIECES_PER_BATCH = 8192  # gathered at a time: 8 MB at 256 dimensions
_LATIN_RATIO_MIN = 0.7
_UNKNOWN_RATIO_MAX = 0.2


class Card(msgspec.Struct, frozen=True):
    """Content of static.json. files: SHA-256 (hex) by name. latin_only: other scripts were left out."""

    format: int
    name: str
    dim: int
    tokenizer: str  # "wordpiece" | "tokenizers"
    lowercase: bool
    latin_only: bool
    source: str
    source_sha256: str
    licence: str
    made_with: str
    command: str
    files: dict[str, str]


class StaticEmbedder:
    """Unit vectors of texts from a directory as above. An empty text, or one of unknown pieces only, is all zeros.

    Raises:
        DataError: a file is missing, damaged, or not the one that the card names.
    """

    every_answer = True
    scale = STATIC

    def __init__(self, directory: Path, name: str | None = None) -> None:
        import numpy
        from safetensors.numpy import load

        from rag.embedding import PROBES, fingerprint_of

        self._np = numpy
        self.card = _card(directory)
        self.files = (directory / CARD, *(directory / file for file in self.card.files))
        content = {file: _verified(directory / file, digest) for file, digest in self.card.files.items()}
        self._ids, self._unknown_id = _tokenizer(self.card, content)
        try:
            table = load(content[TABLE])
            self._vectors = table["vectors"].astype(numpy.float32) * table["scales"].astype(numpy.float32)[:, None]
        except Exception as error:  # the decoder raises kinds of its own for what a matching hash should rule out
            raise DataError(f"{directory / TABLE}: not a table of vectors ({error}); distil it again") from error
        if self._unknown_id >= 0:
            self._vectors[self._unknown_id] = 0.0
        self.name = name or self.card.name
        self.dim = int(self._vectors.shape[1])
        self.fingerprint = fingerprint_of(self.card.name, self.dim, self.card.files[TABLE], self.embed(PROBES))

    def embed(self, texts: Sequence[str]) -> Vectors:
        np = self._np
        out: Vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        rows: list[int] = []
        batch: list[list[int]] = []
        waiting_count = 0
        for row, text in enumerate(texts):
            ids = self._ids(text)
            if len(ids) > _PIECES_PER_BATCH:  # by counting, so that a book needs no more memory than a sentence
                out[row] = np.bincount(ids, minlength=len(self._vectors)).astype(np.float32) @ self._vectors
            elif ids:
                if waiting_count + len(ids) > _PIECES_PER_BATCH:
                    out[rows] = self._sums(batch)
                    rows, batch, waiting_count = [], [], 0
                rows.append(row)
                batch.append(ids)
                waiting_count += len(ids)
        if rows:
            out[rows] = self._sums(batch)
        norms = np.sqrt(np.einsum("ij,ij->i", out, out))
        norms[norms == 0.0] = 1.0
        out /= norms[:, None]
        return out

    def unknown_token_ratio(self, text: str) -> float:
        ids = self._ids(text)
        return ids.count(self._unknown_id) / len(ids) if ids else 0.0

    def covers(self, text: str) -> bool:
        """Known word pieces, and Latin script where the model has no other. Plain ASCII always is."""
        if text.isascii():
            return True
        if self.card.latin_only and latin_ratio(text) < _LATIN_RATIO_MIN:
            return False
        return self.unknown_token_ratio(text) <= _UNKNOWN_RATIO_MAX

    def _sums(self, batch: Sequence[Sequence[int]]) -> Vectors:
        """Sum of the vectors of each list of ids; the norm makes means of them. No list is empty."""
        np = self._np
        lengths = [len(ids) for ids in batch]
        flat = np.fromiter(chain.from_iterable(batch), dtype=np.intp, count=sum(lengths))
        starts = np.cumsum([0, *lengths[:-1]])
        sums: Vectors = np.add.reduceat(self._vectors[flat], starts, axis=0)
        return sums


def _card(directory: Path) -> Card:
    path = directory / CARD
    try:
        card = msgspec.json.decode(path.read_bytes(), type=Card)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make one with `sft-guard embedder distill`"
        ) from error
    except NOT_JSON as error:
        raise DataError(f"{path}: not the card of a static embedder ({error}); distil it again") from error
    if card.format != FORMAT:
        raise DataError(f"{path}: format {card.format}, this program reads {FORMAT}; distil it again")
    return card


def _verified(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); distil it again, or reinstall") from error
    found = sha256(content).hexdigest()
    if found != digest:
        raise DataError(f"{path}: SHA-256 is {found}, {CARD} says {digest}; distil it again, or reinstall")
    return content


def _tokenizer(card: Card, content: dict[str, bytes]) -> tuple[Callable[[str], list[int]], int]:
    """What turns a text into ids, and the id of what is unknown."""
    if card.tokenizer == "wordpiece":
        pieces = WordPiece(content[PIECES].decode("utf-8").split("\n"), lowercase=card.lowercase)
        return pieces.ids, pieces.unknown_id
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        from rag.embedding import INSTALL_LINE

        raise DataError(f"embedder {card.name!r} needs the tokenizers package: {INSTALL_LINE}") from error
    tokenizer: Any = Tokenizer.from_str(content[TOKENIZER].decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = msgspec.json.decode(content[TOKENIZER])["model"]
    unknown = model.get("unk_id")
    if unknown is None and model.get("unk_token"):
        unknown = tokenizer.token_to_id(model["unk_token"])

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    return ids, -1 if unknown is None else int(unknown)
