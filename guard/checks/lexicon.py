"""Words as the grounding check sees them: stems, character bigrams, how much a word says. Pure.

Latin words become light stems; Chinese, Japanese and Korean runs become character bigrams, because they have no
spaces and the usual embedders are blind in them. Weights are rarity by word class, not by corpus: a sidecar has no
corpus on its first day.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import rag.text

CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
CJK_CHAR = re.compile(f"[{CJK}]")
_WORD = re.compile(f"[{CJK}]+|[^\\W\\d_{CJK}]+(?:'[^\\W\\d_{CJK}]+)*")
_CJK_FIRST = "\u3040"  # the smallest code point of the ranges above except CJK extension A, which starts at 3400

_STOPWORDS_TEXT = """
a about above after again all also am an and any are as at be because been before being below between both but
by can could did do does doing down during each either else ever every few for from further had has have having
he her here hers herself him himself his how however i if in into is it its itself just let like may me might
mine more most much must my myself neither nor of off on once only onto or other others our ours ourselves out
over own per rather same shall she should since so some such than that the their theirs them themselves then
there these they this those though through thus to too toward towards under until up upon us very via was we
were what whatever when where whether which while who whom whose why will with within would yet you your yours
yourself yourselves it's that's there's i'm you're they're we're i've you've they've we've i'd you'd he'd she'd
we'd they'd i'll you'll he'll she'll we'll they'll don't doesn't didn't isn't aren't wasn't weren't won't
wouldn't can't cannot couldn't shouldn't not no never none without s t etc eg ie e.g i.e therefore moreover
furthermore additionally instead well even still already though although passage passages provided according
based mentioned mention mentions stated states context contexts summary overall answer question information
given example including additionally however important note
"""
STOPWORDS = frozenset(_STOPWORDS_TEXT.split())
"""Words that carry no claim of their own; polarity is looked at separately."""

_COMMON_TEXT = """
according answer ask based become begin call case certain change come common consider contain context depend
different document end example find first follow follow generally get give given go good great help important
include information involve item keep kind know last later least lead left less level little long look lot main
make many mean mention method move name need new next number often old one open order part particular passage
people place point possible process provide provided put question reason refer regard related require result
right said say second see seem set several show side similar simply sometimes source specific start state step
take tell text thing think time type typically understand use used user using usual usually various want way
word work year
"""
COMMON = frozenset(_COMMON_TEXT.split())
"""Frequent words: half the weight of others."""

_CJK_STOP = frozenset("的了和與与及或是在有也都就而之其這这那個个為为以於于被將将會会可能能讓让使到從从對对並并且但")
"""A bigram made only of these says nothing."""


def normalise(text: str) -> str:
    """Full width to half width (NFKC), typographic quotes to plain ones; what is compared is always this form.

    >>> normalise("\\uff17\\u5929 \\u201cVPN\\u201d")
    '7\\u5929 "VPN"'
    """
    if text.isascii():
        return text
    if _VULGAR_SIGN.search(text):
        text = _VULGAR.sub(_decimal, text)
    text = unicodedata.normalize("NFKC", text)
    return text.translate(_QUOTES)


_VULGAR_SIGN = re.compile("[\xbc-\xbe\u2150-\u215e]")
_VULGAR = re.compile(f"(?:(\\d)|((?<!\\d\\d\\d)\\d)[ \u2009\u202f])?({_VULGAR_SIGN.pattern})")


def _decimal(match: re.Match[str]) -> str:
    """ "2\xbd" and "2 \xbd" are 2.5; of NFKC alone the first would be 21/2. In "2020 \xbd" a year stands before it."""
    return (match[1] or match[2] or "0") + f"{unicodedata.numeric(match[3]):g}".removeprefix("0")


_QUOTES = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "\u2011": "-",
    "\u200b": "", "\ufeff": "", "\u00ad": "",
})  # fmt: skip

stem = lru_cache(maxsize=65_536)(rag.text.stem)


@lru_cache(maxsize=65_536)
def _terms_of(word: str) -> tuple[str, ...]:
    """Terms of one raw word of the text: a stem, nothing (stopword), or the bigrams of a CJK run."""
    if word[0] >= _CJK_FIRST and CJK_CHAR.match(word):
        if len(word) == 1:
            return () if word in _CJK_STOP else (word,)
        return tuple(
            pair for pair in map("".join, pairwise(word))
            if not (pair[0] in _CJK_STOP and pair[1] in _CJK_STOP)
        )  # fmt: skip
    lower = word.lower()
    return () if lower in STOPWORDS else (stem(lower.removesuffix("'s").replace("'", "")),)


_COMMON_STEMS = frozenset(stem(w) for w in COMMON)


def words(text: str) -> list[str]:
    """Raw words and CJK runs of normalised text, in order; digits and punctuation are left out."""
    return _WORD.findall(text)


def single_words(raw_words: list[str]) -> Iterator[str]:
    """Raw words with runs of Chinese, Japanese or Korean taken apart into characters."""
    for word in raw_words:
        if word[0] >= _CJK_FIRST and CJK_CHAR.match(word):
            yield from word
        else:
            yield word


def terms(raw_words: list[str]) -> list[str]:
    """Content terms in order, with repeats.

    >>> terms(words("The employees must submit \\u8acb\\u5047\\u55ae forms"))
    ['employe', 'submit', '請假', '假單', 'form']
    """
    found: list[str] = []
    for word in raw_words:
        found.extend(_terms_of(word))
    return found


@lru_cache(maxsize=65_536)
def weight(term: str) -> float:
    """How much a term says, 0.5 to 1.25: frequent words half, long words more."""
    if term[0] >= _CJK_FIRST and CJK_CHAR.match(term):
        return 0.3 if any(c in _CJK_STOP for c in term) else 0.6
    if term in _COMMON_STEMS:
        return 0.5
    return 1.25 if len(term) > 6 else 1.0


def is_cjk(text: str) -> bool:
    """Whether at least a fifth of the letters are Chinese, Japanese or Korean."""
    if text.isascii():
        return False
    cjk = len(CJK_CHAR.findall(text))
    return cjk > 0 and cjk * 5 >= sum(map(str.isalpha, text))


_NEGATION_FREE_TEXT = """
不僅 不仅 不但 不只 不過 不过 不同 不少 不錯 不错 不久 不斷 不断 不論
不论 不管 不妨 不然 不便 不足 不良 不好意思 不好 差不多 對不起 对不起 不超過 不得超過
不低於 不少於 不得少於 不晚於 不遲於 無論 无论 無線 无线 無障礙 無法確定 非常 除非 並非不
未來 未来 未婚 是否 能否 要不要 可不可 是不是 有沒有 有没有 沒關係 没关系 無誤 不明
"""
NEGATION_FREE = tuple(_NEGATION_FREE_TEXT.split())
"""Chinese words with a negating character that negate nothing."""
