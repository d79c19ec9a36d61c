"""BERT's word pieces in plain Python, for texts by the thousand. Pure.

A dictionary remembers the pieces of every word it has seen, so a text costs one regular expression and one look-up per
word: several times what the `tokenizers` library does on one core, and the base install needs neither it nor what it
brings along. A property test holds the two equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

UNKNOWN = "[UNK]"
WORD_CHARS_MAX = 100
"""A longer word is unknown as a whole, as in BERT."""

_WORDS_REMEMBERED = 60_000
_CONTINUED = "##"
# Letters and digits together, every other mark alone; the underscore is a mark.
_ASCII_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# Ideographs stand alone; the ranges are those of BERT, kana and hangul are not among them.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Texts to ids of pieces.

    Args:
        vocabulary: pieces; the position is the id.
        unknown: what stands for a word without pieces; must be one of the vocabulary.
        lowercase: fold case and strip accents, as uncased models do.
    """

    def __init__(self, vocabulary: Sequence[str], unknown: str = UNKNOWN, *, lowercase: bool = True) -> None:
        self._ids: Mapping[str, int] = {piece: number for number, piece in enumerate(vocabulary)}
        self.unknown_id = self._ids[unknown]
        self._lowercase = lowercase
        self._unknown_piece = (self.unknown_id,)
        self._known: dict[str, tuple[int, ...]] = {}
        self._folding = _Folding(lowercase)

    def ids(self, text: str) -> list[int]:
        """Ids of all pieces of the text, without special tokens."""
        known = self._known
        found: list[int] = []
        for word in self.words(text):
            pieces = known.get(word)
            if pieces is None:
                pieces = self._remember(word)
            found.extend(pieces)
        return found

    def words(self, text: str) -> list[str]:
        """Words and marks as the vocabulary knows them.

        >>> WordPiece(["[UNK]"]).words("Caf\\u00e9, 3.5%!")
        ['cafe', ',', '3', '.', '5', '%', '!']
        """
        if text.isascii() and self._lowercase:
            return _ASCII_WORD.findall(_ASCII_CONTROL.sub("", text).lower())
        if self._lowercase:
            text = unicodedata.normalize("NFD", text)
        return text.translate(self._folding).split()

    def _remember(self, word: str) -> tuple[int, ...]:
        if len(self._known) >= _WORDS_REMEMBERED:
            self._known.clear()
        pieces = self._known[word] = self._pieces(word)
        return pieces

    def _pieces(self, word: str) -> tuple[int, ...]:
        """The longest piece that fits, again and again; the whole word is unknown when nothing fits at one place."""
        if len(word) > WORD_CHARS_MAX:
            return self._unknown_piece
        pieces, begin = [], 0
        while begin < len(word):
            end, prefix = len(word), _CONTINUED if begin else ""
            while end > begin and (number := self._ids.get(prefix + word[begin:end])) is None:
                end -= 1
            if end == begin:
                return self._unknown_piece
            assert number is not None
            pieces.append(number)
            begin = end
        return tuple(pieces)


class _Folding(dict[int, str]):
    """Table for `str.translate`, filled one character at a time as texts bring them."""

    def __init__(self, lowercase: bool) -> None:
        super().__init__()
        self._lowercase = lowercase

    def __missing__(self, code: int) -> str:
        self[code] = folded = self._fold(chr(code))
        return folded

    def _fold(self, character: str) -> str:
        code, category = ord(character), unicodedata.category(character)
        if character in "\t\n\r" or category == "Zs":
            return " "
        if code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co"):
            return ""
        if any(low <= code <= high for low, high in _IDEOGRAPHS):
            return f" {character} "
        if self._lowercase:
            if category == "Mn":
                return ""
            lower = character.lower()
        else:
            lower = character
        if category.startswith("P") or (character.isascii() and not character.isalnum()):
            return f" {lower} "
        return lower
