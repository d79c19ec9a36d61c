"""Numbers, dates, times and units of a text in one comparable form. Pure.

"14 days", "fourteen days", "two weeks" and their Chinese and full-width spellings are the same fact; "14 hours" and
"7 days" are others. Input is normalised text (`lexicon.normalise`): full-width digits have become ASCII.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from guard.checks.units import COMPATIBLE, MONTHS, UNITS, WEEKDAYS, WEEKDAYS_ZH

_DIGITS_ZH = {c: i for i, c in enumerate("零一二三四五六七八九")} | {c: i for i, c in enumerate("〇壹貳參肆伍陸柒捌玖")}
_DIGITS_ZH |= {"兩": 2, "两": 2}
_SMALL_ZH = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_BIG_ZH = {"萬": 10_000, "万": 10_000, "億": 100_000_000, "亿": 100_000_000}
_ZH = "".join((*_DIGITS_ZH, *_SMALL_ZH, "廿卅"))
_BIG = "".join(_BIG_ZH)

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_WORD_VALUE = {w: i for i, w in enumerate(_ONES)} | {
    w: 20 + 10 * i for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
}
_WORD_SCALE = {"hundred": 100, "dozen": 12, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES = {**_WORD_SCALE, "k": 1000, "mn": 10**6, "bn": 10**9, "百": 100, "千": 1000, **_BIG_ZH}
_SCALES_ZH = frozenset(("百", "千", *_BIG_ZH))

NUMBER_WORDS = frozenset(_WORD_VALUE) | frozenset(_WORD_SCALE)
"""English words that may be a number; a quick test before the slower patterns."""


def _alternatives(names: list[str]) -> str:
    return "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))


_UNIT_ZH = _alternatives([u for u in UNITS if not u.isascii()])
_UNIT_EN = _alternatives([u for u in UNITS if u.isascii() and u.isalpha()])
_COUNTER_ZH = "個|个|級|级|項|项|款|份|台|張|张|筆|笔|家|間|间|本|階段|條|条|種|种|件|組|组|班|點|倍"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_YEAR = r"(?:1[5-9]|20)\d\d"
_DAY = r"[12]\d|3[01]|0?[1-9]"

_LATIN_DATE = re.compile(
    rf"(?<!\d)(?P<y1>{_YEAR})[-/.](?P<m1>1[0-2]|0?[1-9])[-/.](?P<d1>{_DAY})(?!\d)"
    rf"|\b(?P<m2>{_MONTH})\s*(?P<d2>{_DAY})(?:st|nd|rd|th)?\b(?:\s*,?\s*(?P<y2>{_YEAR})\b)?"
    rf"|\b(?P<d3>{_DAY})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m3>{_MONTH})(?:\s*,?\s*(?P<y3>{_YEAR})\b)?"
    rf"|\b(?P<m4>{_MONTH})(?:\s*,?\s*|\s+of\s+)(?P<y4>{_YEAR})\b"
)
# "may" and "march" are words of their own more often than months, so they need a preposition.
_MONTH_ALONE = re.compile(
    r"\b(january|february|april|june|july|august|september|october|november|december)\b|\b(?<=in )(may|march)\b"
)
_ZH_DATE = re.compile(
    rf"(?:(?P<roc>民國)?\s*(?P<y>\d{{2,4}})\s*年\s*)?(?P<m>\d{{1,2}}|[{_ZH}]{{1,2}})\s*月(?![給薪])"
    rf"(?:(?P<d>\s*\d{{1,2}}|[{_ZH}]{{1,3}})\s*[日號号])?"
    rf"|(?P<roc2>民國)?(?P<y5>(?<=民國)(?:\d{{2,3}}|[{_ZH}]{{1,6}})|{_YEAR})\s*年(?!間|以)"
)
_AMPM = r"(?P<ampm>上午|下午|晚上|夜間|夜晚|中午|早上|凌晨)?\s*"
_CLOCK = re.compile(
    rf"(?<![\d:.]){_AMPM}(?:(?P<h1>2[0-4]|[01]?\d):(?P<n1>[0-5]\d)(?::[0-5]\d)?(?:\s*(?P<p1>[ap])\.?m\b\.?)?"
    rf"|(?P<h2>1[0-2]|[1-9])\s*(?P<p2>[ap])\.?m\b\.?)(?![\d:])"
)
_CLOCK_ZH = re.compile(
    rf"{_AMPM}(?P<h>2[0-4]|[01]?\d|[{_ZH}]{{1,3}})\s*[點点](?![子心擊数數{_ZH}]?[、%])(?:整|鐘|钟)?"
    rf"(?:\s*(?P<n>[0-5]?\d|[{_ZH}]{{1,3}})\s*分(?!鐘|钟)|(?P<half>半))?"
)
_ARABIC = re.compile(
    r"(?:(?P<cur>us\$|nt\$|\$|€|£|¥|\b(?:usd|twd|ntd|eur|rmb|cny|gbp|jpy)\b|新台幣|新臺幣|台幣|人民[幣币]|美元|歐元)\s*)?"
    r"(?<![a-z0-9_.])(?P<value>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?:(?:st|nd|rd|th)\b)?"
    rf"(?:\s*(?P<scale>[百千]?[{_BIG}]|[百千](?![克分公])|-?(?:k|thousand|hundred|million|billion|trillion|dozen|mn|bn)\b))?"
    r"(?:[\s-]*(?P<work>business|working)(?=[\s-]+days?\b)|[\s-]+(?:calendar|consecutive|paid|full)(?=[\s-]+\w))?"
    rf"(?:\s*(?P<unit>%|°[cf]?|€|{_UNIT_ZH})|[\s-]{{0,2}}(?P<unit_en>{_UNIT_EN})\b)?"
)
_ZH_NUMBER = re.compile(
    rf"(?P<pct>百分之)?(?P<value>[{_ZH}][{_ZH}{_BIG}]*(?:[點点][{_ZH}]+)?|\d+(?:\.\d+)?(?<=百分之\d)|半(?=年|天|小時|個小時|日))"
    rf"\s*(?P<unit>{_UNIT_ZH}|%|(?:{_COUNTER_ZH})(?!人))?"
)
_PERCENT_ZH = re.compile(r"百分之\s*(\d+(?:\.\d+)?)")
_EN_WORDS = re.compile(
    rf"\b(?:(?:{_alternatives(list(_WORD_VALUE))})|(?:a|an|"
    rf"half\s+an?)(?=[\s-]+(?:{_alternatives(list(_WORD_SCALE))}|hour)\b))"
    rf"(?:[\s-]+(?:and[\s-]+)?(?:{_alternatives(sorted(NUMBER_WORDS))})\b)*"
    rf"(?:[\s-]+(?P<work>business|working)(?=\s+days?\b))?(?:[\s-]+(?P<unit>{_UNIT_EN})\b)?"
)
_WEEKDAY = re.compile(
    r"\b(?P<en>mon|tues?|wed(?:nes)?|thur?s?|fri|sat(?:ur)?|sun)(?:day)s?\b|(?:週|周|星期|禮拜|礼拜)(?P<zh>[一二三四五六日天])"
)
NUMERAL_CHARS = 24
"""A longer run of numerals is no number anybody wrote."""

_DIGIT = re.compile("[0-9]")
# Quick tests: the patterns behind them are slow, and most sentences need none of them.
_YEAR_FIRST = re.compile(r"[0-9]{4}[-/.][0-9]")
_CLOCK_HINT = re.compile(r"[0-9](?::[0-9]|\s*[ap]\.?m)")
_HAN = re.compile("[\u4e00-\u9fff]")
_LETTERS = re.compile("[a-z]+")
_MAYBE_WORDS = NUMBER_WORDS | {"half"}
_PM = frozenset(("p", "下午", "晚上", "夜間", "夜晚"))


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a text.

    dimension: of `units.UNITS`, or "" for a bare number, "clock" (minutes of the day), "weekday" (1 = Monday),
    "year", "month_of_year", "day_of_year" (month x 100 + day). value: in the base of the dimension. plain: the number
    as written, for comparing with a text that leaves the unit out.
    """

    dimension: str
    value: float
    plain: float
    start: int


def chinese_number(text: str) -> float | None:
    """Value of a Chinese numeral, None when it is not one.

    >>> [chinese_number(t) for t in ("十四", "兩百五十", "三萬六千", "二〇二四")]
    [14.0, 250.0, 36000.0, 2024.0]
    """
    text = text.replace("廿", "二十").replace("卅", "三十")
    whole, _, fraction = text.replace("点", "點").partition("點")
    if not whole or len(text) > NUMERAL_CHARS:
        return None
    if all(c in _DIGITS_ZH for c in whole):
        value = float(int("".join(str(_DIGITS_ZH[c]) for c in whole)))
    else:
        total = section = digit = 0
        scale = 1  # what a trailing digit is worth: 三百五 is 350, 一萬二 is 12,000
        for char in whole:
            if char in _DIGITS_ZH:
                digit = _DIGITS_ZH[char]
                if digit == 0:
                    scale = 1
            elif char in _SMALL_ZH:
                section += (digit or (1 if not section else 0)) * _SMALL_ZH[char]
                digit, scale = 0, _SMALL_ZH[char] // 10
            elif char in _BIG_ZH:
                total = (total + section + digit) * _BIG_ZH[char] if total else (section + digit) * _BIG_ZH[char]
                section, digit, scale = 0, 0, _BIG_ZH[char] // 10
            else:
                return None
        value = float(total + section + digit * scale)
    if fraction:
        if not all(c in _DIGITS_ZH for c in fraction):
            return None
        value += float("0." + "".join(str(_DIGITS_ZH[c]) for c in fraction))
    return value


def to_chinese(value: int) -> str:
    """Chinese numeral of 0 <= value < 100,000,000: the inverse that the parser is tested with.

    >>> to_chinese(20_305)
    '兩萬零三百零五'
    """
    if value >= 10_000:
        high, low = divmod(value, 10_000)
        head = ("兩" if high == 2 else to_chinese(high)) + "萬"
        return head + ("" if not low else ("零" if low < 1000 else "") + to_chinese(low))
    digits, text, gap = "零一二三四五六七八九", "", False
    for scale, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value = divmod(value, scale)
        if digit:
            text += ("零" if gap and text else "") + digits[digit] + name
            gap = False
        elif text:
            gap = True
    return text or "零"


def quantities(text: str) -> tuple[list[Quantity], str]:
    """Return the numbers of normalised lower-case text, and the text with them blanked out.

    The blanked text has the same length, so that positions stay.
    """
    found: list[Quantity] = []

    def blank(match: re.Match[str], *items: Quantity) -> str:
        found.extend(items)
        return " " * (match.end() - match.start())

    has_digit = _DIGIT.search(text) is not None
    ascii_only = text.isascii() or _HAN.search(text) is None
    if has_digit:
        if any(month in text for month in MONTHS) or _YEAR_FIRST.search(text):
            text = _LATIN_DATE.sub(lambda m: blank(m, *_latin_date(m)), text)
        if _CLOCK_HINT.search(text):
            text = _CLOCK.sub(lambda m: blank(m, *_clock(m)), text)
    if _MONTH_ALONE.search(text):
        text = _MONTH_ALONE.sub(lambda m: blank(m, *_month_alone(m)), text)
    if not ascii_only:
        text = _ZH_DATE.sub(lambda m: blank(m, *items) if (items := _zh_date(m)) else m[0], text)
        text = _WEEKDAY.sub(lambda m: blank(m, _weekday(m)), text)
        text = _CLOCK_ZH.sub(lambda m: blank(m, *items) if (items := _clock_zh(m)) else m[0], text)
        text = _PERCENT_ZH.sub(lambda m: blank(m, _quantity(float(m[1]), "%", m.start())), text)
    elif "day" in text:
        text = _WEEKDAY.sub(lambda m: blank(m, _weekday(m)), text)
    if has_digit:
        text = _ARABIC.sub(lambda m: blank(m, _arabic(m)), text)
    if not ascii_only:
        text = _ZH_NUMBER.sub(lambda m: blank(m, *items) if (items := _zh_number(m)) else m[0], text)
    if not _MAYBE_WORDS.isdisjoint(_LETTERS.findall(text)):
        text = _EN_WORDS.sub(lambda m: blank(m, *items) if (items := _en_words(m)) else m[0], text)
    return found, text


def same(claim: Quantity, support: Quantity) -> bool:
    """Whether `support` states what `claim` states; a missing unit on either side is no contradiction."""
    mine, theirs = claim.dimension, support.dimension  # written out: asked two thousand times per answer
    if mine == theirs:
        one, other = claim.value, support.value
    elif not mine or not theirs:
        one, other = claim.plain, support.plain
    elif (mine, theirs) in _COMPATIBLE:
        one, other = claim.value, support.value
    else:
        return False
    gap = abs(one - other)
    return gap <= 1e-9 or gap <= 1e-9 * (abs(one) + abs(other))


_COMPATIBLE = frozenset((a, b) for pair in COMPATIBLE for a in pair for b in pair)


def _quantity(value: float, unit: str, start: int) -> Quantity:
    dimension, factor = UNITS.get(unit, ("", 1.0))
    return Quantity(dimension, value * factor, value, start)


def _latin_date(m: re.Match[str]) -> list[Quantity]:
    year = m["y1"] or m["y2"] or m["y3"] or m["y4"]
    name = m["m2"] or m["m3"] or m["m4"]
    month = MONTHS.index(name[:3]) + 1 if name else int(m["m1"])
    day = m["d1"] or m["d2"] or m["d3"]
    return _date(int(year) if year else None, month, int(day) if day else None, m.start())


def _month_alone(m: re.Match[str]) -> list[Quantity]:
    return _date(None, MONTHS.index((m[1] or m[2])[:3]) + 1, None, m.start())


def _date(year: int | None, month: int | None, day: int | None, start: int) -> list[Quantity]:
    parts: list[Quantity] = []
    if year is not None:
        parts.append(Quantity("year", year, year, start))
    if month is not None and day is not None:
        parts.append(Quantity("day_of_year", month * 100 + day, day, start))
    elif month is not None:
        parts.append(Quantity("month_of_year", month, month, start))
    return parts


def _zh_int(text: str | None) -> int | None:
    if text is None or not (text := text.strip()):
        return None
    value = float(text) if text.isdigit() else chinese_number(text)
    return None if value is None else int(value)


def _zh_date(m: re.Match[str]) -> list[Quantity]:
    year = _zh_int(m["y"] or m["y5"])
    if year is not None and (m["roc"] or m["roc2"]):
        year += 1911  # Minguo calendar
    month, day = _zh_int(m["m"]), _zh_int(m["d"])
    if (month is not None and not 1 <= month <= 12) or (day is not None and not 1 <= day <= 31):
        return []
    return _date(year, month, day, m.start())


def _clock(m: re.Match[str]) -> list[Quantity]:
    hour, minute = int(m["h1"] or m["h2"]), int(m["n1"] or 0)
    half_day = m["p1"] or m["p2"] or m["ampm"] or ""
    return [_time_of_day(hour, minute, half_day, m.start())]


def _time_of_day(hour: int, minute: int, half_day: str, start: int) -> Quantity:
    if half_day in _PM and hour < 12:
        hour += 12
    elif half_day == "a" and hour == 12:
        hour = 0
    return Quantity("clock", hour * 60 + minute, hour, start)


def _clock_zh(m: re.Match[str]) -> list[Quantity]:
    hour, minute = _zh_int(m["h"]), 30 if m["half"] else _zh_int(m["n"]) or 0
    plain = not (m["ampm"] or m["n"] or m["half"]) and not m["h"].isdigit()
    if hour is None or hour > 24 or plain:  # a bare Chinese numeral before this word is as often "a little", "points"
        return []
    return [_time_of_day(hour, minute, m["ampm"] or "", m.start())]


def _weekday(m: re.Match[str]) -> Quantity:
    day = (WEEKDAYS_ZH.find(m["zh"]) + 1 or 7) if m["zh"] else WEEKDAYS.index(m["en"][:3]) + 1
    return Quantity("weekday", day, day, m.start())


def _arabic(m: re.Match[str]) -> Quantity:
    value = float(m["value"].replace(",", ""))
    if scale := m["scale"]:
        value *= math.prod(_SCALES[c] for c in scale) if scale[-1] in _SCALES_ZH else _SCALES[scale.lstrip("-")]
    unit = "workday" if m["work"] else m["unit"] or m["unit_en"] or ""
    return _quantity(value, unit or (m["cur"] or ""), m.start())


def _zh_number(m: re.Match[str]) -> list[Quantity]:
    text, unit = m["value"], m["unit"] or ""
    value = 0.5 if text == "半" else chinese_number(text)
    if value is None:
        return []
    if m["pct"]:
        return [_quantity(value, "%", m.start())]
    long = len(text) > 1 and any(c in _SMALL_ZH or c in _BIG_ZH for c in text)
    # A lone digit without a unit is part of a word; "one" before a counter is an article.
    if not unit and not long:
        return []
    if text == "一" and UNITS.get(unit, ("", 0))[0] in ("", "person", "times", "yuan"):
        return []
    return [_quantity(value, unit, m.start())]


def _en_words(m: re.Match[str]) -> list[Quantity]:
    words = [w for w in re.split(r"[\s-]+", m[0]) if w in NUMBER_WORDS or w in ("a", "an", "half")]
    unit = "workday" if m["work"] else m["unit"] or ""
    if words[0] == "half":
        return [_quantity(0.5, "hour", m.start())]
    if words == ["one"] and UNITS.get(unit, ("",))[0] not in ("time", "month", "workday"):
        return []  # as often a pronoun
    total = current = 0.0
    for word in words:
        if word in _WORD_VALUE:
            current += _WORD_VALUE[word]
        elif word in _WORD_SCALE:
            current = (current or 1) * _WORD_SCALE[word]
            if _WORD_SCALE[word] >= 1000:
                total, current = total + current, 0.0
    return [_quantity(total + current, unit, m.start())]
