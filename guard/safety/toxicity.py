"""Abusive words by list, English and Chinese. Pure but for `load_words`.

A list is blunt: it knows no irony, no quotation and no context, and misses every insult that uses ordinary words. It
tells that an answer holds a word no support bot should say, nothing more. Latin words match whole words only; words of
scripts without spaces match anywhere, so they are chosen long enough to stand in no harmless word.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import msgspec

from slo.errors import ConfigError
from slo.types import CheckResult, Finding

CHECK = "toxicity"
QUESTION_CHECK = "question_toxicity"
TEXT_CHARS = 64_000
FILE_BYTES = 1_000_000
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_TOKEN = re.compile(r"[^\W_]+")
# Chinese, Japanese and Korean have no spaces: a Latin word between their characters ends where they begin.
_UNSPACED = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_LEET = str.maketrans("013457@$!", "oieastasi")


def load_words(path: Path) -> tuple[str, ...]:
    """Words of a list: one word or phrase a line, # for comments.

    Raises:
        ConfigError: the file cannot be read, is too large, or a line is too short to be told apart.
    """
    try:
        if path.stat().st_size > FILE_BYTES:
            raise ConfigError(path.name, f"{path.stat().st_size} bytes", f"word lists have at most {FILE_BYTES} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(str(path), error.strerror, "give the path of a readable word list") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path.name, str(error)[:80], "save the list as UTF-8") from error
    words = []
    for number, line in enumerate(lines, start=1):
        word = folded(line.partition("#")[0]).strip()
        if not word:
            continue
        if len(word) < 2:
            raise ConfigError(f"{path.name}:{number}", word, "a single character would match everywhere; write a word")
        words.append(word)
    return tuple(words)


def folded(text: str) -> str:
    """Width, case and invisible characters folded away.

    >>> folded("ＦＯＯ\\u200b Bar")
    'foo bar'
    """
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()


class WordLists:
    """The shipped lists and those of the user, ready to search."""

    def __init__(self, word_files: tuple[str, ...] = ()) -> None:
        """Raises ConfigError: see `load_words`."""
        words = [folded(word) for word in shipped_words()]
        for name in word_files:
            words += load_words(Path(name))
        # Latin words in one alternation, longest first; the others by plain search in another.
        spaced = sorted({w for w in words if not _packs(w)}, key=lambda w: (-len(w), w))
        packed = sorted({w for w in words if _packs(w)}, key=lambda w: (-len(w), w))
        # Words of each listed phrase by the first of them; of one that begins with a mark nothing is known.
        self._words_by_first: dict[str, list[frozenset[str]]] = {}
        for phrase in spaced:
            if _TOKEN.match(phrase):
                parts = _TOKEN.findall(phrase)
                self._words_by_first.setdefault(parts[0], []).append(frozenset(parts))
        self._begin_with_letters = all(map(_TOKEN.match, spaced))
        self._spaced = re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, spaced))})(?![^\W_])") if spaced else None
        self._packed = re.compile("|".join(map(re.escape, packed))) if packed else None

    def found(self, text: str) -> list[str]:
        """The listed words of a text, in order; digits that stand for letters are read as letters as well."""
        plain = folded(text[:TEXT_CHARS])[:TEXT_CHARS]  # one letter may fold to eighteen
        hits: list[str] = []
        if self._spaced is not None:
            latin = plain if plain.isascii() else _UNSPACED.sub("\n", plain)
            hits += self._listed(latin)
            if not hits and any(char in latin for char in "013457@$!"):
                hits += self._listed(latin.translate(_LEET))
        if self._packed is not None and not plain.isascii():
            hits += [m[0] for m in self._packed.finditer(plain)]
        return hits

    def _listed(self, plain: str) -> list[str]:
        if self._spaced is None:
            return []
        if self._begin_with_letters:
            # All words of a listed phrase are whole words of the text: a look at those spares most texts the search.
            words = set(_TOKEN.findall(plain))
            begun = self._words_by_first.keys() & words
            if not any(phrase <= words for first in begun for phrase in self._words_by_first[first]):
                return []
        return [m[0] for m in self._spaced.finditer(plain)]


def _packs(word: str) -> bool:
    return word[0] >= "\u2e80" or _UNSPACED.search(word) is not None


@lru_cache(maxsize=1)
def shipped_words() -> tuple[str, ...]:
    """Our own lists: few words, each abusive in nearly every use."""
    data = files("guard.safety").joinpath("toxic_words.json").read_bytes()
    return tuple(word for words in msgspec.json.decode(data, type=dict[str, list[str]]).values() for word in words)


def check_toxicity(text: str, lists: WordLists, *, check: str = CHECK) -> Finding:
    """Score: number of listed words, capped at 10, as a share of 10. The words themselves are not repeated."""
    if not text.strip():
        return Finding(check, CheckResult.SKIPPED, None, "no words")
    count = len(lists.found(text))
    if not count:
        return Finding(check, CheckResult.PASS, 0.0, "", (), "word list")
    reason = f"{count} listed word{'s' if count > 1 else ''}"
    return Finding(check, CheckResult.FAIL, min(count, 10) / 10, reason, (), "word list")
