"""What can be compared word for word: numbers, dates, URLs, paths, identifiers, names, and which way a sentence points.

Pure. A `Statement` is one sentence or clause in the form the grounding check compares; embeddings see none of these
differences ("7 days" against "14 days", "is" against "is not", one path against another).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from guard.checks.lexicon import NEGATION_FREE, normalise, stem, terms, words
from guard.checks.numbers import Quantity, quantities

_URL = r"(?:https?|ftp)://[^\s<>\"'`)\]}\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+|\bwww\.[\w.-]+\.[a-z]{2,}[^\s<>\"'`)\]}\u3000-\u303f\u4e00-\u9fff]*"
_EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_HOST = r"\b(?:[a-z0-9-]+\.)+(?:example|com|org|net|io|edu|gov|local|internal|tw|cn|jp|uk|dev|app)(?:/[\w./%~#?=&+-]*)?(?![\w])"
_PATH = r"(?<![\w.:/])(?:~?/|[a-z]:\\)[\w.~-]+(?:[/\\][\w.~-]+)*[/\\]?"
# A word that mixes letters with digits, or joins parts by _ or a dash before a digit: HR-204, v1.2.1, 802.1x, max_len.
_IDENTIFIER = (
    r"(?<![\w.])(?:[a-z]+(?:[-_.][a-z]+)*[-_.]?\d[a-z0-9]*(?:[-_.][a-z0-9]+)*|[a-z0-9]+(?:_[a-z0-9]+)+"
    r"|\d+(?:\.\d+){2,}|\d+(?:[.-]\d+)*-?[a-z]{1,3}\d[a-z0-9]*)(?![\w])"
)
_EXACT = re.compile(f"(?P<url>{_URL})|(?P<email>{_EMAIL})|(?P<host>{_HOST})|(?P<path>{_PATH})|(?P<id>{_IDENTIFIER})")
_MAY_BE_EXACT = re.compile(r"[@/\\_]|www\.|[a-z]\.[a-z]|[a-z][-.]?\d|\d[a-z]|\d\.\d+\.\d|\d-[a-z]")
_NOT_AN_IDENTIFIER = re.compile(
    r"\d+(?:st|nd|rd|th|s|k|m|g|kg|mg|cm|mm|km|ml|l|h|hr|hrs|min|mins|am|pm|kb|mb|gb|tb|mbps|gbps|kbps|bn|mn|x|ms|sec|ft|lb|lbs|oz|kw|in)"
)
_NAME = re.compile(r"(?<![.!?:]\s)(?<![\w'\"(*#-])(?:[A-Z][\w'-]*[^\W\d_]|[A-Z]{2,})(?![\w])")
_NO_NAMES = frozenset(
    "i a an the this that these those if when while for in on at it he she they we you and but or".split()
)

_NEGATION_EN = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|cannot|without|unable to|\w+n't|hardly)\b"
    r"|\bun(used|paid|taken|authori[sz]ed|available|limited|necessary|approved|known|registered|supported|encrypted|changed)\b"
)
_CONDITION = re.compile(r"\b(?:if|when|whenever|unless|until|whether|once|who|which|that|because|case|where)\b[^,.;]*$")
_AFTER = re.compile(r"[^.,;:!?()]{0,48}")
_NEGATION_FREE_EN = re.compile(
    r"\bnot only\b|\bno (?:later|more|less|fewer|longer|sooner|matter|doubt)\b(?: than)?|\bnot (?:later|more|less|fewer) than\b"
    r"|\bwhether or not\b|\bor not\b|\bif not\b|\bno\.\s*\d|\bnot necessarily\b"
)
_NEGATION_ZH = re.compile("(?:不|沒有|没有|沒|没|無|无|未|非|勿|毋|禁止|拒絕|拒绝|免於|免于)[得可能應应予會会必須须需再以有要被許许准]*([\u4e00-\u9fff]{1,4})")
_NEGATION_FREE_ZH = re.compile("|".join(NEGATION_FREE))

_OPPOSITES: tuple[tuple[str, str], ...] = (
    (r"\b(?:must|required?|mandatory|obligatory|compulsory|needs? to|has to|have to)\b", r"\b(?:optional(?:ly)?|voluntary|voluntarily|need not)\b"),
    (r"\b(?:allow(?:s|ed)?|permit(?:s|ted)?|may)\b", r"\b(?:forbid(?:s|den)?|prohibit(?:s|ed)?|ban(?:s|ned)?|disallow(?:s|ed)?|must not|may not)\b"),
    (r"\b(?:before|prior to|earlier than)\b", r"\b(?:after|following|later than)\b"),
    (r"\b(?:at least|minimum|no less than|not less than|more than|over|above|exceeds?|exceeding)\b", r"\b(?:at most|maximum|no more than|not more than|up to|less than|under|below|fewer than)\b"),
    (r"\binclud(?:e|es|ed|ing)\b", r"\bexclud(?:e|es|ed|ing)\b"),
    (r"\benabl(?:e|es|ed|ing)\b", r"\bdisabl(?:e|es|ed|ing)\b"),
    (r"\b(?:increas(?:e|es|ed|ing)|ris(?:e|es|ing)|rose|higher|raise[sd]?)\b", r"\b(?:decreas(?:e|es|ed|ing)|reduc(?:e|es|ed|ing)|lower(?:s|ed)?|falls?|fell|drops?)\b"),
    (r"\balways\b", r"\bnever\b"),
    (r"(?<!un)\bpaid\b", r"\bunpaid\b"),
    (r"\binternal(?:ly)?\b", r"\bexternal(?:ly)?\b"),
    (r"\b(?:first|earliest)\b", r"\b(?:last|latest)\b"),
    (r"\b(?:approv(?:e|es|ed|al))\b", r"\b(?:reject(?:s|ed|ion)?|den(?:y|ies|ied))\b"),
    (r"\b(?:accept(?:s|ed)?)\b", r"\b(?:refus(?:e|es|ed)|declin(?:e|es|ed))\b"),
    (r"\bweekdays?\b", r"\bweekends?\b"), (r"\b(?:domestic)\b", r"\b(?:international|overseas|abroad)\b"),
    (r"\b(?:full-time|full time)\b", r"\b(?:part-time|part time)\b"), (r"\bpermanent(?:ly)?\b", r"\btemporar(?:y|ily)\b"),
    (r"\b(?:free of charge|free)\b", r"\b(?:charged|for a fee)\b"), (r"\bmorning\b", r"\b(?:afternoon|evening)\b"),
    ("以上|超過|超过|至少|最少|不少於|不得少於|高於|高于|大於", "以下|以內|以内|至多|最多|不超過|不得超過|低於|低于|小於|未滿|不滿"),
    ("之前|以前|[日天時月年內]前|事前|提前|前提出|事先|於[^,。]{1,6}前|(?:出發|離職|到職|使用|會議|啟程|開始)前", "之後|以後|之后|以后|[日天時月年]後|事後|事后|於[^,。]{1,6}後|(?:出發|離職|到職|使用|會議|啟程|開始)後"),
    ("(?<!不)(?:可以|可(?![不能靠])|得以|允許|允许|准許|開放)", "不可|不得|禁止|不能|不允許|不允许|不准|不開放"),
    ("(?<!不)(?:必須|必须|須|应|應(?![該用變])|需要|強制)", "不必|無須|无须|無需|无需|不需|不須|免|自願|選擇性"),
    ("(?<![不未])包含|(?<![不未])包括|(?<!不)含(?!有)", "不含|不包含|不包括|排除|除外"), ("有薪|支薪|帶薪|全薪", "無薪|不支薪|半薪"),
    ("上午|早上", "下午|晚上"), ("平日|工作日|上班日", "假日|週末|例假日"),
    ("國內|境內", "國外|境外|海外"), ("增加|提高|上升|調升|成長", "減少|降低|下降|調降|衰退"), ("啟用|開啟|打開", "停用|關閉|禁用"), ("免費", "收費|付費|自費"), ("正職|全職", "兼職|約聘"), ("內部", "外部"), ("男", "女"),
    ("同意|核准|批准", "反對|駁回|拒絕"), ("永久", "暫時|臨時"), ("年滿|已滿", "未滿"),
)  # fmt: skip
_OPPOSITE_EN = [(re.compile(a), re.compile(b)) for a, b in _OPPOSITES if a.isascii()]
_OPPOSITE_ZH = [(re.compile(a), re.compile(b)) for a, b in _OPPOSITES if not a.isascii()]
_ADVERB_PERIOD = {"hourly": "hour", "daily": "day", "nightly": "night", "weekly": "week", "monthly": "month",
                  "quarterly": "quarter", "annual": "year", "annually": "year", "yearly": "year"}  # fmt: skip
_PERIOD_EN = re.compile(
    r"(?:\b(?:per|an?|each|every)\s+|/)(hour|day|night|week|month|quarter|year)\b|\b(" + "|".join(_ADVERB_PERIOD) + r")\b"
)
_PERIOD_ZH_NAME = {"日": "day", "天": "day", "晚": "night", "週": "week", "周": "week", "星期": "week", "月": "month", "個月": "month",
                   "季": "quarter", "年": "year", "小時": "hour"}  # fmt: skip
_PERIOD_ZH = re.compile("每(?:一)?(日|天|晚|週|周|星期|個月|月|季|年|小時)")
_CITATION = re.compile(
    r"\[\^?\d+(?:\s*[,;-]\s*\d+)*\]|\(?\b(?:[Pp]assages?|[Cc]ontexts?|[Dd]ocuments?|[Ss]ources?|PASSAGES?)\s*#?\d+(?:(?:\s*,\s*|\s*(?:and|&|or)\s*)#?\d+)*\)?(?::|,)?"
)
_LIST_MARK = re.compile(r"^[\s>*#\u2022\u30fb-]*(?:\(?\d{1,2}[.)\u3001]\s+|\(?[a-h]\)\s+|\d{1,2}\u3001)?[\s*_]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence or clause, ready for comparison.

    terms: content words and bigrams in order. exact: URLs, paths, identifiers, lower case. names: capitalised words
    that do not begin the sentence, lower case. lower: the normalised text that polarity is read from, on demand.
    """

    text: str
    terms: tuple[str, ...]
    numbers: tuple[Quantity, ...]
    exact: tuple[str, ...]
    names: tuple[str, ...]
    lower: str


def statement(text: str) -> Statement:
    """Read one sentence. Never raises, whatever the text."""
    clean = _LIST_MARK.sub("", _CITATION.sub(" ", normalise(text)), count=1)
    lower = clean.lower()
    exact: list[str] = []
    masked = lower
    if _MAY_BE_EXACT.search(lower):
        masked = _EXACT.sub(lambda m: _take_exact(m, exact), lower)
    numbers, rest = quantities(masked)
    names = [] if clean == lower else _names(clean)
    return Statement(
        text=text.strip(),
        terms=tuple(terms(words(rest))),
        numbers=tuple(numbers),
        exact=tuple(exact),
        names=tuple(names),
        lower=lower,
    )


def _take_exact(match: re.Match[str], found: list[str]) -> str:
    text = match[0]
    if match.lastgroup == "id" and _NOT_AN_IDENTIFIER.fullmatch(text):
        return text
    found.append(text.rstrip(".,;:!?/").removeprefix("https://").removeprefix("http://").removeprefix("www."))
    return " " * len(text)


def _names(clean: str) -> list[str]:
    found = (m[0].lower() for m in _NAME.finditer(clean) if m.start() > 0)
    return [name for name in found if name not in _NO_NAMES]


@lru_cache(maxsize=4096)
def negated(lower: str) -> tuple[frozenset[str], frozenset[str]]:
    """Terms that are denied: the first behind each negator, and all near it; stems, or bigrams in Chinese.

    Phrases that only look negative ("not only", "no later than") and conditions ("if it does not start") deny nothing.

    >>> [sorted(part) for part in negated("split tunnelling is not allowed here; unpaid leave")]
    [['allow', 'paid'], ['allow', 'paid']]
    """
    first: set[str] = set()
    near: set[str] = set()
    if "n" in lower:
        text = _NEGATION_FREE_EN.sub(" ", lower) if "no" in lower else lower
        for match in _NEGATION_EN.finditer(text):
            if match[1]:
                first.add(stem(match[1]))
                continue
            following = terms(words(_AFTER.match(text, match.end())[0]))[:2]  # type: ignore[index]
            near.update(following)
            if not _CONDITION.search(text, max(0, match.start() - 48), match.start()):
                first.update(following[:1])
    if not lower.isascii():
        for match in _NEGATION_ZH.finditer(_NEGATION_FREE_ZH.sub(" ", lower)):
            run = match[1]
            near.update(run[i : i + 2] for i in range(len(run) - 1))
            first.add(run[:2])
    return frozenset(first), frozenset(first | near)


@lru_cache(maxsize=4096)
def sides_of(lower: str) -> int:
    """Which sides of the known opposites the text takes: bit 2i for the first of pair i, bit 2i + 1 for the second."""
    mask = 0
    table, shift = (_OPPOSITE_EN, 0) if lower.isascii() else (_OPPOSITE_ZH, 2 * len(_OPPOSITE_EN))
    for i, (one, other) in enumerate(table):
        rest = other.sub(" ", lower)
        if rest != lower:
            mask |= 2 << (2 * i + shift)
        if one.search(rest):
            mask |= 1 << (2 * i + shift)
    return mask


def periods_of(lower: str) -> frozenset[str]:
    """Periods of a rate: "per month", "a year", "weekly" and their Chinese forms."""
    found = {m[1] or _ADVERB_PERIOD[m[2]] for m in _PERIOD_EN.finditer(lower)}
    if not lower.isascii():
        found.update(_PERIOD_ZH_NAME[m[1]] for m in _PERIOD_ZH.finditer(lower))
    return frozenset(found)


def opposed(claim: int, support: int) -> bool:
    """Whether the claim takes only the other side of a pair that the support takes only one side of."""
    return bool(
        (claim & _FIRST) & ((support & _SECOND) >> 1) & ~((claim & _SECOND) >> 1) & ~(support & _FIRST)
    ) or bool(((claim & _SECOND) >> 1) & (support & _FIRST) & ~(claim & _FIRST) & ~((support & _SECOND) >> 1))


_FIRST = sum(1 << (2 * i) for i in range(len(_OPPOSITES)))
_SECOND = _FIRST << 1
