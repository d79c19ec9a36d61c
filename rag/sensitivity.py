"""Which questions may not leave the premises. Pure.

A question is sensitive when its sender says so, when it holds one of the listed words, or when retrieval found a
document that is listed: the answer would carry what the document says. Nobody can take the mark away, only set it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rag.fixed_answers import holds, padded_letters
from rag.types import Hit

MARK = "sensitive"
"""Value of the request header `x-guard-sensitivity` (and of `metadata.sensitivity`) that keeps a question inside."""


@dataclass(frozen=True, slots=True)
class SensitiveRule:
    """words: whole Latin words, or Chinese ones anywhere. doc_ids: with `*`; of a document, or of what it was cut from.

    always: everything is sensitive.
    """

    words: tuple[str, ...] = ()
    doc_ids: tuple[str, ...] = ()
    always: bool = False

    def applies(self, question: str, hits: Iterable[Hit], marked: str = "") -> bool:
        """Whether this question has to stay.

        marked: what the sender said; anything but "" and "normal" counts, so that a typing error does not let go.
        """
        if self.always or marked.strip().lower() not in ("", "normal"):
            return True
        # A document that was cut is found by its pieces; what is said of the whole holds for each.
        names = {name for hit in hits for name in (hit.doc_id, hit.parent) if name}
        if any(fnmatchcase(name, pattern) for name in names for pattern in self.doc_ids):
            return True
        padded = padded_letters(question)
        return any(holds(padded, word) for word in self.words)
