"""Texts that are nearly the same as one that is known: found by their sketches, reported or left out.

In rules a near twin is often another rule ("7 days", "14 days"), so twins are reported and go in, unless they are to be
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from rag.likeness import BAND, BINS, SAME_BINS, Sketch, alike_ratio, sketch_of
from rag.types import Document

LOOKED_AT_MAX = 16
"""Texts that are compared with one new text at most: a phrase that a whole manual repeats must not cost its square."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A new document and the known one it is nearly the same as. alike_ratio: estimated overlap of their words."""

    doc_id: str
    known_id: str
    alike_ratio: float


def band_keys(text: str) -> list[int]:
    """What texts with a large overlap have in common, 64 bits each; none for a text too short to have a near twin."""
    sketch = sketch_of(text)
    return [] if sketch is None else _keys(sketch)


def twins(document: Document, candidates: Iterable[Document]) -> Iterator[Twin]:
    """Those of the candidates that nearly say the same, the first few looked at."""
    sketch = sketch_of(document.text)
    if sketch is None:
        return
    for number, known in enumerate(candidates):
        if number == LOOKED_AT_MAX:
            return
        other = sketch_of(known.text)
        if other is not None and known.doc_id != document.doc_id:
            ratio = alike_ratio(sketch, other)
            if ratio >= SAME_BINS / BINS:
                yield Twin(document.doc_id, known.doc_id, round(ratio, 2))


def shown(found: Sequence[Twin], *, skipped: bool) -> str:
    """One note for a person."""
    pairs = ", ".join(f"{twin.doc_id} ~ {twin.known_id}" for twin in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    done = "left out" if skipped else "went in; look at them, and leave such rows out with --near skip"
    return f"{len(found)} rows are nearly the same as known ones ({pairs}{more}): {done}"


def _keys(sketch: Sketch) -> list[int]:
    return [
        int.from_bytes(blake2b(repr((at, sketch[at : at + BAND])).encode(), digest_size=8).digest(), "little")
        for at in range(0, BINS, BAND)
    ]
