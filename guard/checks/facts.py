"""What can be compared word for word: numbers, dates, URLs, paths, identifiers and names.

Pure. A `Statement` is one sentence or clause in the form the grounding check compares; embeddings see none of these
differences ("7 days" against "14 days", "is" against "is not", one path against another).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from guard.checks.lexicon import normalise, single_words, terms, words
from guard.checks.numbers import Quantity, quantities
from guard.simplified import folded

_URL_STOP = r"\s<>\"'`)\]}\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"
_URL = rf"(?:https?|ftp)://[^{_URL_STOP}]+|\bwww\.[\w.-]{{1,200}}\.[a-z]{{2,}}[^{_URL_STOP}]*"
# Every repeat that could start anew at each character is bounded: text comes from outside and may be hostile.
_EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
_HOST = (
    r"(?<![\w-])(?:[a-z0-9-]{1,63}\.){1,8}(?:example|com|org|net|io|edu|gov|local|internal|tw|cn|jp|uk|dev|app)"
    r"(?:/[\w./%~#?=&+-]*)?(?![\w])"
)
_PATH = r"(?<![\w.:/])(?:~?/|[a-z]:\\)[\w.~-]+(?:[/\\][\w.~-]+)*[/\\]?"
# A word that mixes letters with digits, or joins parts by _ or a dash before a digit: HR-204, v1.2.1, 802.1x, max_len.
_IDENTIFIER = (
    r"(?<![\w.])(?:[a-z]+(?:[-_.][a-z]+){0,6}[-_.]?\d[a-z0-9]*(?:[-_.][a-z0-9]+){0,6}|[a-z0-9]+(?:_[a-z0-9]+){1,8}"
    r"|\d+(?:\.\d+){2,8}|\d+(?:[.-]\d+){0,4}-?[a-z]{1,3}\d[a-z0-9]*)(?![\w])"
)
_EXACT = re.compile(f"(?P<url>{_URL})|(?P<email>{_EMAIL})|(?P<host>{_HOST})|(?P<path>{_PATH})|(?P<id>{_IDENTIFIER})")
_DOTTED_OR_DIGIT = re.compile(r"[0-9/@_\\]|[a-z]\.[a-z]")
_EXACT_MARK = re.compile(r"[\d/@_\\]|\.[a-z]")
_NOT_AN_IDENTIFIER = re.compile(
    r"\d+(?:st|nd|rd|th|s|k|m|g|kg|mg|cm|mm|km|ml|l|h|hr|hrs|min|mins|am|pm|kb|mb|gb|tb|mbps|gbps|"
    r"kbps|bn|mn|x|ms|sec|ft|lb|lbs|oz|kw|in)"
)
# What it looks behind for is no name below either; here it keeps a run of capitals from being tried from each of them.
_NAME = re.compile(r"(?<![\w'-])[A-Z][\w'-]*[^\W\d_](?!\w)")
_NOT_BEFORE_NAME = "'\"(*#-_"
_NO_NAMES_TEXT = "i a an the this that these those if when while for in on at it he she they we you and but or"
_NO_NAMES = frozenset(_NO_NAMES_TEXT.split())
_CITATION = re.compile(
    r"\[\^?\d+(?:\s*[,;-]\s*\d+)*\]|\(?\b(?:[Pp]assages?|[Ss]teps?|[Cc]ontexts?|[Dd]ocuments?|[Ss]ources?|"
    r"PASSAGES?)\s*#?\d+(?:(?:\s*,\s*|\s*(?:and|&|or)\s*)#?\d+)*\)?(?::|,)?"
)
_MAY_CITE = re.compile(r"(?:assage|[Ss]tep|ontext|ocument|ource|ASSAGE)S?s? ?#?\d")
_LIST_MARK = re.compile(r"^[\s>*#\u2022\u30fb-]*(?:\(?\d{1,2}[.)\u3001]\s+|\(?[a-h]\)\s+|\d{1,2}\u3001)?[\s*_]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence or clause, ready for comparison.

    words: every word in order, function words too; a Chinese character is one.
    terms: content words and bigrams in order; term_set: each once. exact: URLs, paths, identifiers, lower case. names:
    capitalised words that do not begin the sentence, lower case. lower: the normalised text, as it is reported. folded:
    the same, Chinese in simplified characters, position by position; terms and whatever is compared come from it.
    """

    text: str
    words: tuple[str, ...]
    terms: tuple[str, ...]
    term_set: frozenset[str]
    numbers: tuple[Quantity, ...]
    exact: tuple[str, ...]
    names: tuple[str, ...]
    lower: str
    folded: str


def statement(text: str) -> Statement:
    """Read one sentence; a short one once, because questions, quotes and set phrases come back. Never raises."""
    return _read_cached(text) if len(text) <= CACHED_CHARS else _read(text)


def _read(text: str) -> Statement:
    clean = normalise(text)
    if "[" in clean or _MAY_CITE.search(clean):
        clean = _CITATION.sub(" ", clean)
    if not clean[:1].isalpha() and (mark := _LIST_MARK.match(clean)):
        clean = clean[mark.end() :]
    lower = clean.lower()
    exact: list[str] = []
    masked = _without_exact(lower, exact) if _DOTTED_OR_DIGIT.search(lower) else lower
    numbers, rest = quantities(masked)
    names = [] if clean == lower else _names(clean)
    raw_words = words(rest)
    found = tuple(terms(raw_words))
    return Statement(
        text=text.strip(),
        words=tuple(raw_words) if rest.isascii() else tuple(single_words(raw_words)),
        terms=found,
        term_set=frozenset(found),
        numbers=tuple(numbers),
        exact=tuple(exact),
        names=tuple(names),
        lower=lower,
        folded=folded(lower),
    )


CACHED_CHARS = 400
_read_cached = lru_cache(maxsize=4096)(_read)
"""At most about 12 MB."""


def _without_exact(lower: str, found: list[str]) -> str:
    """The text with URLs, paths and identifiers blanked out; they are added to `found`.

    None of them holds a space, so only the stretches between spaces that have a mark of one are looked at.
    """
    parts: list[str] = []
    at = 0
    while mark := _EXACT_MARK.search(lower, at):
        begin = lower.rfind(" ", at, mark.start()) + 1 or at
        end = lower.find(" ", mark.end())
        end = len(lower) if end < 0 else end
        parts += (lower[at:begin], _EXACT.sub(lambda m: _take_exact(m, found), lower[begin:end]))
        at = end
    return "".join(parts) + lower[at:]


def _take_exact(match: re.Match[str], found: list[str]) -> str:
    text = match[0]
    if match.lastgroup == "id" and _NOT_AN_IDENTIFIER.fullmatch(text):
        return text
    found.append(text.rstrip(".,;:!?/").removeprefix("https://").removeprefix("http://").removeprefix("www."))
    return " " * len(text)


def _names(clean: str) -> list[str]:
    found: list[str] = []
    for match in _NAME.finditer(clean):
        start = match.start()
        before = clean[start - 1] if start else "."
        if before.isalnum() or before in _NOT_BEFORE_NAME:
            continue  # inside a word, or set off by quotes and marks: a title as often as a name
        if start < 2 or (before == " " and clean[start - 2] in ".!?:"):
            continue  # the first word of a sentence is capitalised anyway
        name = match[0].lower()
        if name not in _NO_NAMES:
            found.append(name)
    return found
