"""Text in two scripts: sentences, tokens, white space, width. Pure.

English and Traditional Chinese are both first class. Width (full / half) is folded for scoring and near-duplicate
hashes only; what is stored, embedded and shown stays as it was given.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from hashlib import sha256

from rag.words import ABBREVIATIONS, BEFORE_NUMBERS, MAY_END, STOP_BIGRAMS, STOP_WORDS

_CJK = (
    "\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0002fa1f"
)
_CJK_CHAR = re.compile(f"[{_CJK}]")
_CJK_RUN = re.compile(f"[{_CJK}]+")
# A word may hold inner dots, dashes, slashes and apostrophes between its letters: v1.2.1, HR-204, 3.5, don't.
_UNIT = re.compile(
    rf"(?P<cjk>[{_CJK}])"
    rf"|(?P<word>[^\W_{_CJK}]+(?:['\u2019._/-][^\W_{_CJK}]+)*)"
    r"|(?P<mark>[^\w\s]|_)"
)
_WORD_OR_RUN = re.compile(rf"(?P<run>[{_CJK}]+)|(?P<word>[^\W_{_CJK}]+(?:['\u2019._/-][^\W_{_CJK}]+)*)")
_PART = re.compile(r"[^\W_]+")

_TERMINATOR = re.compile("[.!?\u3002\uff01\uff1f\uff61\u2026\u22ef]+[\"'\u201d\u2019\u300d\u300f\uff09)\\]\u3011]*")
_FULL_STOP = frozenset("\u3002\uff01\uff1f\uff61")
_BREAK = re.compile(r"\n[^\S\n]*\n\s*|\n(?=[^\S\n]*(?:[-*\u2022\u30fb]|\d{1,2}[.)\u3001])[^\S\n]*\S)")


def normalise_space(text: str) -> str:
    """Every run of white space (the ideographic space too) becomes one space; none at the ends.

    >>> normalise_space("  two\\u3000 words\\n")
    'two words'
    """
    return " ".join(text.split())


def text_hash(text: str) -> str:
    """SHA-256 (hex) of the text with white space normalised: what makes two rows the same document."""
    return sha256(normalise_space(text).encode("utf-8", "surrogatepass")).hexdigest()


def fold_width(text: str) -> str:
    """Full-width forms become half-width ones, case is folded. For scoring, never for storing.

    >>> fold_width("\\uff36\\uff30\\uff2e\\uff1f")
    'vpn?'
    """
    return unicodedata.normalize("NFKC", text).casefold()


def near_hash(text: str) -> str:
    """SHA-256 (hex) of letters and digits alone: equal for texts that differ in width, case and punctuation."""
    letters = "".join(ch for ch in fold_width(text) if ch.isalnum())
    return sha256(letters.encode("utf-8", "surrogatepass")).hexdigest()


def has_cjk(text: str) -> bool:
    """Whether any Chinese, Japanese or Korean letter is in the text."""
    return _CJK_CHAR.search(text) is not None


def cjk_characters(text: str) -> set[str]:
    """The different CJK characters of a text, width folded."""
    return set(_CJK_CHAR.findall(fold_width(text)))


def cjk_ratio(text: str) -> float:
    """Share of CJK characters among CJK characters and other words; 0.0 for a text without either.

    >>> cjk_ratio("VPN \\u5bc6\\u78bc")
    0.6666666666666666
    """
    cjk_count = other_count = 0
    for match in _UNIT.finditer(text):
        if match.lastgroup == "cjk":
            cjk_count += 1
        elif match.lastgroup == "word":
            other_count += 1
    return cjk_count / (cjk_count + other_count) if cjk_count else 0.0


def latin_ratio(text: str) -> float:
    """Share of letters in Latin script; 1.0 for a text without letters. CJK characters weigh as whole words.

    >>> latin_ratio("Gr\\u00fc\\u00dfe"), latin_ratio("\\u8acb\\u5047")
    (1.0, 0.0)
    """
    if text.isascii():
        return 1.0
    if cjk := cjk_ratio(text):
        return 1.0 - cjk
    letters = [ch for ch in text if ch.isalpha()]
    latin = sum(
        1 for ch in letters if ch.isascii() or unicodedata.name(ch, "").startswith(("LATIN", "FULLWIDTH LATIN"))
    )
    return latin / len(letters) if letters else 1.0


def language(text: str) -> str:
    """`zh-TW` when three in ten units are CJK characters, else `en`: which words an answer is framed in."""
    return "zh-TW" if cjk_ratio(text) >= 0.3 else "en"


def token_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every unit: a CJK character, a word or number, or a punctuation mark.

    Close to what model tokenizers count for both scripts, and needs none of them.
    """
    return [match.span() for match in _UNIT.finditer(text)]


def count_tokens(text: str) -> int:
    """Number of units of `token_spans`; an estimate of model tokens (English words often cost a little more)."""
    return sum(1 for _ in _UNIT.finditer(text))


def tokens(text: str) -> list[str]:
    """Words in lower case, and character bigrams of CJK runs (a run of one character is itself).

    >>> tokens("VPN \\u7533\\u8acb\\u8868 v1.2")
    ['vpn', '\\u7533\\u8acb', '\\u8acb\\u8868', 'v1.2']
    """
    found: list[str] = []
    for match in _WORD_OR_RUN.finditer(fold_width(text)):
        unit = match.group()
        if match.lastgroup == "run" and len(unit) > 1:
            found.extend(unit[i : i + 2] for i in range(len(unit) - 1))
        else:
            found.append(unit)
    return found


def search_tokens(text: str) -> list[str]:
    """Tokens as they are matched: stop words out, a light stem, compounds whole and in parts.

    A text of nothing but stop words keeps them: something must be searched for.
    """
    plain = tokens(text)
    kept: list[str] = []
    for token in plain:
        if token in STOP_WORDS or token in STOP_BIGRAMS:
            continue
        if token.isascii():
            parts = _PART.findall(token)
            if len(parts) > 1:
                kept.append(token)  # the exact identifier counts on top of its parts
                kept.extend(stem(part) for part in parts if len(part) > 1 and part not in STOP_WORDS)
                continue
            token = stem(token)
        kept.append(token)
    return kept or plain


def stem(word: str) -> str:
    """Cut the commonest English endings so that `resets`, `resetting` and `reset` meet. Digits stay untouched.

    >>> [stem(w) for w in ("policies", "resetting", "booked", "classes", "pass", "bus")]
    ['policy', 'reset', 'book', 'class', 'pass', 'bus']
    """
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        base = word[: -len(ending)]
        if word.endswith(ending) and len(base) >= 3 and any(vowel in base for vowel in "aeiouy"):
            if base[-1] == base[-2] and base[-1] not in "lsz":
                return base[:-1]
            return base
    # `e` goes last so that `reserve`, `reserved` and `reserving` share one stem.
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def char_ngrams(text: str, low: int = 2, high: int = 4) -> Counter[str]:
    """Counts of character n-grams, `low` to `high` long, inside words (marked at both ends) and CJK runs.

    CJK runs give n-grams of one to three characters: a Chinese word is short.
    """
    grams: list[str] = []
    for match in _WORD_OR_RUN.finditer(fold_width(text)):
        unit, cjk = match.group(), match.lastgroup == "run"
        if not cjk:
            unit = f"<{unit}>"
        for size in range(1 if cjk else low, (3 if cjk else high) + 1):
            grams += [unit[start : start + size] for start in range(len(unit) - size + 1)]
    return Counter(grams)


def sentences(text: str) -> list[str]:
    """Split into sentences: both scripts, abbreviations, decimals, URLs and closing quotes respected.

    Nothing is lost: the sentences together are the text without the white space between them. A single line break
    does not end a sentence (texts are hard-wrapped), a blank line or a list item does.

    >>> sentences("Ask Dr. Lee by 5 p.m. today. It costs 3.5 USD! See https://a.example/b.c?d=1. Done")
    ['Ask Dr. Lee by 5 p.m. today.', 'It costs 3.5 USD!', 'See https://a.example/b.c?d=1.', 'Done']
    """
    found: list[str] = []
    begin = 0
    for block in _BREAK.finditer(text):
        found.extend(_sentences_of_block(text[begin : block.start()]))
        begin = block.end()
    found.extend(_sentences_of_block(text[begin:]))
    return found


def _sentences_of_block(block: str) -> list[str]:
    found: list[str] = []
    begin = 0
    for match in _TERMINATOR.finditer(block):
        if match.end() < len(block) and not _ends_sentence(block, begin, match):
            continue
        if piece := block[begin : match.end()].strip():
            found.append(piece)
        begin = match.end()
    if rest := block[begin:].strip():
        found.append(rest)
    return found


def _ends_sentence(block: str, begin: int, match: re.Match[str]) -> bool:
    marks = match.group()
    following = block[match.end()]
    if any(mark in _FULL_STOP for mark in marks):
        return True
    if not following.isspace():
        # "...嗎?請...": half-width marks in Chinese text have no space behind them.
        before = block[match.start() - 1] if match.start() else ""
        return _CJK_CHAR.match(following) is not None and not before.isdigit()
    if marks[0] != ".":
        upcoming = block[match.end() :].lstrip()[:1]
        return not (upcoming.isascii() and upcoming.islower()) or marks[0] in "!?"
    if len(marks) > 1 and marks.strip(".") == "":  # an ellipsis ends a sentence before a capital only
        return block[match.end() :].lstrip()[:1].isupper()
    word = block[begin : match.start()].rsplit(None, 1)[-1] if block[begin : match.start()].strip() else ""
    upcoming = block[match.end() :].lstrip()[:1]
    if word.isdigit() and block[begin : match.start()].strip() == word:
        return False  # "1. Open the form": the number of a list item
    plain = word.lstrip("(\"'\u201c[").casefold()
    if plain in BEFORE_NUMBERS:
        return not upcoming.isdigit()  # "form No. 5", but "he said no."
    if plain in ABBREVIATIONS:
        return plain in MAY_END and upcoming.isupper()
    if len(plain) == 1 and plain.isalpha() and word.lstrip("(\"'")[:1].isupper() and plain != "i":
        return False  # an initial: "J. Smith"
    return not (upcoming.isascii() and upcoming.islower())
