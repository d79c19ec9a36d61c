"""What can be wrong with the text of a row, beyond what keeps it out of a knowledge base. Pure."""

from __future__ import annotations

import re
import unicodedata

MALFORMED, EMPTY, SPECIAL = "malformed", "empty", "special"
EXACT, NEAR = "exact_duplicate", "near_duplicate"
BAD = (MALFORMED, EMPTY, SPECIAL)
"""Kinds of rows that are of no use. Duplicates are of use once."""

_PLACEHOLDERS = frozenset({"null", "none", "nan", "n/a", "na", "undefined", "nil", "todo", "tbd", "-", "--"})
# UTF-8 read as Latin-1 or Windows-1252: a lead byte as a letter, and as many marks behind it as the byte announces.
# One mark behind an accented letter is ordinary French.
_TAIL = (
    "[\u0080-\u00bf\u20ac\u2122\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a]"
)
_MOJIBAKE = re.compile(f"[\u00c2\u00c3]{_TAIL}|[\u00e2-\u00ef]{_TAIL}{{2}}")
_TABS = frozenset("\t\n\r")
_SYMBOLS_MIN = 12
_SYMBOL_RATIO = 0.5


def text_defect(text: str) -> tuple[str, str] | None:
    """(kind, reason) of a text that is empty or damaged; None for one that looks like words.

    >>> text_defect(" n/a "), text_defect("caf\\u00c3\\u00a9 opens at nine")
    (('empty', "nothing but the placeholder 'n/a'"), ('special', 'UTF-8 read as another encoding at character 3'))
    >>> text_defect("\\u5be6\\u7fd2\\u751f\\u53ef\\u8acb\\u4e8b\\u5047\\u3002") is None
    True
    """
    plain = text.strip()
    if not plain:
        return EMPTY, "no text"
    if plain.casefold() in _PLACEHOLDERS:
        return EMPTY, f"nothing but the placeholder {plain!r}"
    letters = symbols = 0
    for position, ch in enumerate(text):
        if ch.isalnum():
            letters += 1
            continue
        category = unicodedata.category(ch)
        # Unassigned here may be an emoji of tomorrow; the two last of each plane never will be anything.
        never = category == "Cn" and ord(ch) & 0xFFFE == 0xFFFE
        if (category == "Cc" and ch not in _TABS) or category in ("Cs", "Co") or never or ch == "\ufffd":
            return SPECIAL, f"U+{ord(ch):04X} ({_called(ch, category)}) at character {position}"
        symbols += category[0] in "PS"  # accents and vowel signs of other scripts are no marks
    if not letters:
        return EMPTY, "no letter and no digit"
    if found := _MOJIBAKE.search(text):
        return SPECIAL, f"UTF-8 read as another encoding at character {found.start()}"
    if symbols >= _SYMBOLS_MIN and symbols / (letters + symbols) > _SYMBOL_RATIO:
        return SPECIAL, f"{symbols} of {letters + symbols} characters are marks"
    return None


def _called(ch: str, category: str) -> str:
    if ch == "\ufffd":
        return "a character that could not be read"
    names = {"Cc": "control character", "Cs": "lone surrogate", "Co": "private use"}
    return names.get(category, "no character")
