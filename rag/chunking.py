"""Cut texts into chunks: by tokens with overlap, by sentences, or not at all. Pure.

Chunks are slices of the text as given: nothing is rewritten, so hashes and embeddings see the same characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.text import sentences, token_spans
from slo.errors import ConfigError

_TOKENS = re.compile(r"(\d+)(?:/(\d+))?")
_SENTENCES = re.compile(r"sentences?(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How to cut. kind: none | tokens | sentences; size and overlap: tokens, or sentences per chunk."""

    kind: str = "none"
    size: int = 0
    overlap: int = 0


def parse_chunking(text: str | None) -> Chunking:
    """`none`, `500/80` (tokens with overlap), `500`, `sentence` or `sentence:3`.

    >>> parse_chunking("500/80")
    Chunking(kind='tokens', size=500, overlap=80)

    Raises:
        ConfigError: not one of these forms, a size of 0, or an overlap that is not smaller than the size.
    """
    if text is None or text.strip() in ("", "none"):
        return Chunking()
    cure = "write none, SIZE/OVERLAP in tokens such as 500/80, or sentence:N"
    if match := _SENTENCES.fullmatch(text.strip()):
        size = int(match[1] or 1)
        if size < 1:
            raise ConfigError("chunk", text, cure)
        return Chunking("sentences", size)
    match = _TOKENS.fullmatch(text.strip())
    if match is None or int(match[1]) < 1 or int(match[2] or 0) >= int(match[1]):
        raise ConfigError("chunk", text, cure + "; the overlap is smaller than the size")
    return Chunking("tokens", int(match[1]), int(match[2] or 0))


def chunk(text: str, how: Chunking) -> list[str]:
    """The chunks of one text, in order; a text that needs no cutting comes back as it is."""
    return [piece for _, piece in chunk_spans(text, how)]


def chunk_spans(text: str, how: Chunking) -> list[tuple[int, str]]:
    """The chunks with the place of their first character in the text.

    >>> chunk_spans("one two three", Chunking("tokens", 2, 1))
    [(0, 'one two'), (4, 'two three')]
    """
    if how.kind == "tokens":
        return _by_tokens(text, how.size, how.overlap)
    if how.kind == "sentences":
        found = _placed_sentences(text)
        if len(found) > how.size:
            groups = [found[i : i + how.size] for i in range(0, len(found), how.size)]
            return [(group[0][0], _join([piece for _, piece in group])) for group in groups]
    return [(0, text)]


def _by_tokens(text: str, size: int, overlap: int) -> list[tuple[int, str]]:
    spans = token_spans(text)
    if len(spans) <= size:
        return [(0, text)]
    found: list[tuple[int, str]] = []
    for begin in range(0, len(spans), size - overlap):
        end = min(begin + size, len(spans))
        found.append((spans[begin][0], text[spans[begin][0] : spans[end - 1][1]]))
        if end == len(spans):
            break
    return found


def _placed_sentences(text: str) -> list[tuple[int, str]]:
    """Sentences are slices of the text, in order."""
    found: list[tuple[int, str]] = []
    position = 0
    for sentence in sentences(text):
        position = text.index(sentence, position)
        found.append((position, sentence))
        position += len(sentence)
    return found


def _join(parts: list[str]) -> str:
    """English sentences need a space between them, Chinese ones do not."""
    joined = parts[0]
    for part in parts[1:]:
        joined += part if ord(joined[-1]) > 0x2E7F else " " + part
    return joined
