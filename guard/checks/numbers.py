"""Numbers, dates, times and units of a text in one comparable form. Pure.

"14 days", "fourteen days", "two weeks" and their Chinese and full-width spellings are the same fact; "14 hours" and
"7 days" are others. Input is normalised text (`lexicon.normalise`): full-width digits have become ASCII.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from guard.checks.numerals import BIG, BIG_ZH, DIGITS, SMALL_ZH, ZH, chinese_number
from guard.checks.units import COMPATIBLE, COUNTERS_ZH, MONTHS, PHRASES, UNITS, WEEKDAYS, WEEKDAYS_ZH
from guard.simplified import folded

_ONES_TEXT = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_ONES = _ONES_TEXT.split()
_WORD_VALUE = {w: i for i, w in enumerate(_ONES)} | {
    w: 20 + 10 * i for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
}
_WORD_SCALE = {"hundred": 100, "dozen": 12, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES = {**_WORD_SCALE, "k": 1000, "mn": 10**6, "bn": 10**9, "m": 10**6, "b": 10**9, "t": 10**12}
_SCALES |= {"百": 100, "千": 1000, **BIG_ZH}
_SCALES_ZH = frozenset(("百", "千", *BIG_ZH))

NUMBER_WORDS = frozenset(_WORD_VALUE) | frozenset(_WORD_SCALE)
"""English words that may be a number; a quick test before the slower patterns."""


def _alternatives(names: list[str]) -> str:
    return "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))


_UNIT_ZH = _alternatives([u for u in UNITS if not u.isascii()])
_UNIT_EN = _alternatives([u for u in UNITS if u.isascii() and u.isalpha()] + list(PHRASES))
_COUNTER_ZH = _alternatives(list(COUNTERS_ZH))
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_YEAR = r"(?:1[5-9]|20)\d\d"
_DAY = r"[12]\d|3[01]|0?[1-9]"
_COMMA = r"(?:\s*,)?\s*"

_LATIN_DATE = re.compile(
    rf"(?<!\d)(?P<y1>{_YEAR})[-/.](?P<m1>1[0-2]|0?[1-9])[-/.](?P<d1>{_DAY})(?!\d)"
    rf"|\b(?P<m2>{_MONTH})\s*(?P<d2>{_DAY})(?:st|nd|rd|th)?\b(?:{_COMMA}(?P<y2>{_YEAR})\b)?"
    rf"|\b(?P<d3>{_DAY})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m3>{_MONTH})(?:{_COMMA}(?P<y3>{_YEAR})\b)?"
    rf"|\b(?P<m4>{_MONTH})(?:{_COMMA}|\s+of\s+)(?P<y4>{_YEAR})\b"
)
# "may" and "march" are words of their own more often than months, so they need a preposition.
_MONTH_ALONE = re.compile(
    r"\b(january|february|april|june|july|august|september|october|november|december)\b|\b(?<=in )(may|march)\b"
)
_YEAR_ZH = rf"(?:(?P<roc>(?:中華)?民國)\s*(?P<ry>\d{{1,3}}|[{ZH}]{{1,6}})|(?P<y>\d{{2,4}}|[{DIGITS}]{{4}}))\s*年"
_ZH_DATE = re.compile(
    folded(
        rf"(?:{_YEAR_ZH}\s*)?(?P<m>\d{{1,2}}|[{ZH}]{{1,2}})\s*月(?![給薪])(?:(?P<d>\s*\d{{1,2}}|[{ZH}]{{1,3}})\s*[日號])?"
        rf"|(?P<roc2>(?:中華)?民國)\s*(?P<ry2>\d{{1,3}}|[{ZH}]{{1,6}})\s*年"
        rf"|(?P<y2>{_YEAR}|[{DIGITS}]{{4}})\s*年(?!間|以)"
        rf"|(?P<y3>(?<!\d)1\d\d|(?<![{ZH}])一[{DIGITS}]{{2}})\s*年(?=度|底(?!蘊)|初|第[一二三四1-4]季|上半|下半)"
    )
)
ROC_ALONE = range(100, 200)
"""A year of three digits is one of the Republic of China even without its name."""

# The space belongs to the word before it: a pattern that may begin with a run of spaces is tried from each of them.
_AMPM = folded(r"(?:(?P<ampm>上午|下午|晚上|晚間|傍晚|夜間|夜晚|深夜|半夜|中午|早上|清晨|凌晨)\s*)?")
_CLOCK = re.compile(
    rf"(?<![\d:.]){_AMPM}(?:(?P<h1>2[0-4]|[01]?\d):(?P<n1>[0-5]\d)(?::[0-5]\d)?(?:\s*(?P<p1>[ap])\.?m\b\.?)?"
    rf"|(?P<h2>1[0-2]|[1-9])\s*(?P<p2>[ap])\.?m\b\.?)(?![\d:])"
)
_CLOCK_ZH = re.compile(
    folded(
        rf"{_AMPM}(?P<h>2[0-4]|[01]?\d|[{ZH}]{{1,3}})\s*點(?![子心擊數{ZH}]?[、%])(?:整|鐘)?"
        rf"(?:\s*(?P<n>[0-5]?\d|[{ZH}]{{1,3}})\s*分(?!鐘|之)|(?P<half>半))?"
    )
)
_RANGE_ZH = re.compile(r"\s*(?:[到至~\uff5e-]|为止)\s*")
_CURRENCY = folded(
    r"(?:(?P<cur>us\$|nt\$|\$|€|£|¥|\b(?:usd|twd|ntd|eur|rmb|cny|gbp|jpy)\b|新台幣|台幣|人民幣|美元|歐元)\s*)?"
)
# What follows a unit of ten thousands: 5千, 5千5百, 5,000, 5000. A single digit there is as often a number of its own.
_BELOW_WAN = r"(?:\d千(?:\d百)?|\d百|\d{4}|\d,\d{3})(?![\d百千萬億]|[.,]\d)"
_BELOW_YI = rf"(?:\d千|\d百|\d{{1,4}}|\d,\d{{3}})萬(?:{_BELOW_WAN})?"
_BELOW = re.compile(folded(r"([\d,]+)([百千]?萬|[百千])?"))
# The first digit stands before what is asked of the character in front of it: patterns that begin with a set of
# characters are searched for much faster.
_ARABIC_PLAIN = re.compile(
    folded(
        r"(?P<value>\d(?<![a-z0-9_.]\d)(?:\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d*(?:\.\d+)?))(?:(?:st|nd|rd|th)\b)?"
        rf"(?:\s*(?:(?P<yi>[百千]?億)(?P<below_yi>{_BELOW_YI})?|(?P<wan>[百千]?萬)(?P<below_wan>{_BELOW_WAN})?"
        r"|(?P<scale>[百千](?![克分公])|-?(?:k|thousand|hundred|million|billion|trillion|dozen|mn|bn)\b)))?"
        r"(?:[\s-]*(?P<work>business|working)(?=[\s-]+days?\b)|[\s-]+(?:calendar|consecutive|paid|full)(?=[\s-]+\w))?"
        rf"(?:\s*(?P<unit>%(?!\s*points?\b)|°[cf]?|€|{_UNIT_ZH})|[\s-]{{0,2}}(?P<unit_en>{_UNIT_EN})\b)?"
    )
)
# "$1.5m" is money as often as "1.5m" is a length.
_ARABIC = re.compile(
    _CURRENCY + _ARABIC_PLAIN.pattern.replace("|-?(?:k|", r"|(?(cur)(?<=\d)[mbt]\b(?!-)|(?!))|-?(?:k|", 1)
)
_CURRENCIES = frozenset(["usd", "twd", "ntd", "eur", "rmb", "cny", "gbp", "jpy"])
_ZH_NUMBER = re.compile(
    folded(
        rf"(?P<pct>百分之)?(?P<value>[{ZH}][{ZH}{BIG}]*(?:點[{ZH}]+)?|半(?=年|天|小時|個小時|日))"
        rf"\s*(?P<unit>{_UNIT_ZH}|%|(?:{_COUNTER_ZH})(?!人))?"
    )
)
_FRACTION_ZH = re.compile(rf"(?P<n2>[{ZH}]{{1,3}}|\d{{1,3}})分之(?P<n1>[{ZH}]{{1,3}}|\d{{1,3}}(?:\.\d+)?)")
_OFF_ZH = re.compile(rf"(?P<off>[{ZH}]{{1,2}}|\d(?:\.\d)?|[1-9]\d)折(?![疊扣磨騰])")
_FRACTION_EN = re.compile(r"\b(one|two|three|four)[\s-](third|quarter|fifth)s?\b")
_PARTS = {"third": 3, "quarter": 4, "fifth": 5}
_EN_WORDS = re.compile(
    rf"\b(?P<times>twice|thrice)\b|\b(?:(?:{_alternatives(list(_WORD_VALUE))})|(?:a|an|"
    rf"half\s+an?)(?=[\s-]+(?:{_alternatives(list(_WORD_SCALE))}|hour)\b))"
    rf"(?:[\s-]+(?:and[\s-]+)?(?:{_alternatives(sorted(NUMBER_WORDS))})\b)*"
    rf"(?:[\s-]+(?P<work>business|working)(?=\s+days?\b))?(?:[\s-]+(?P<unit>{_UNIT_EN})\b)?"
)
_WEEKDAY = re.compile(
    folded(
        r"\b(?P<en>mon|tues?|wed(?:nes)?|thur?s?|fri|sat(?:ur)?|sun)(?:day)s?\b|(?:週|周|星期|禮拜)(?P<zh>[一二三四五六日天])"
    )
)
_DIGIT = re.compile("[0-9]")
# Quick tests: the patterns behind them are slow, and most sentences need none of them.
_YEAR_FIRST = re.compile(r"[0-9]{4}[-/.][0-9]")
_CLOCK_HINT = re.compile(r"[0-9](?::[0-9]|\s*[ap]\.?m)")
_HAN = re.compile("[\u4e00-\u9fff]")
_LETTERS = re.compile("[a-z]+")
_MAYBE_WORDS = NUMBER_WORDS | {"half", "twice", "thrice"}
_MONTH_TEXT = "january february march april may june july august september october november december"
_MONTH_WORDS = frozenset(_MONTH_TEXT.split())
_WEEKDAY_WORDS = frozenset(
    f"{day}day{s}"
    for day in ["mon", "tue", "tues", "wed", "wednes", "thu", "thur", "thus", "thurs", "fri", "sat", "satur", "sun"]
    for s in ("", "s")
)  # fmt: skip
_MONTHS = frozenset(MONTHS)
_BY_ALL_MEANS = tuple("不别勿莫要请记小")  # "ten million" before one of these is "by all means"
_EVENING = frozenset(("晚上", folded("晚間"), folded("夜間"), "夜晚", "深夜", "半夜"))
_PM = frozenset(("p", "下午", "傍晚", *_EVENING))


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


def quantities(text: str) -> tuple[list[Quantity], str]:
    """Return the numbers of normalised lower-case text, and the text with them blanked out.

    The blanked text has the same length, so that positions stay.
    """
    found: list[Quantity] = []

    def blank(match: re.Match[str], *items: Quantity) -> str:
        found.extend(items)
        return " " * (match.end() - match.start())

    has_digit = _DIGIT.search(text) is not None
    letters = set(_LETTERS.findall(text))  # nearly every quick test is one on these
    ascii_only = text.isascii() or _HAN.search(text) is None
    if not ascii_only:
        text = folded(text)
    if has_digit:
        if any([word[:3] in _MONTHS for word in letters]) or _YEAR_FIRST.search(text):  # noqa: C419 - quicker
            text = _LATIN_DATE.sub(lambda m: blank(m, *_latin_date(m)), text)
        if _CLOCK_HINT.search(text):
            text = _CLOCK.sub(lambda m: blank(m, *_clock(m)), text)
    if not letters.isdisjoint(_MONTH_WORDS):
        text = _MONTH_ALONE.sub(lambda m: blank(m, *_month_alone(m)), text)
    if not ascii_only:
        if "月" in text or "年" in text:
            text = _ZH_DATE.sub(lambda m: blank(m, *items) if (items := _zh_date(m)) else m[0], text)
        if "周" in text or "星期" in text or "礼拜" in text or "day" in text:
            text = _WEEKDAY.sub(lambda m: blank(m, _weekday(m)), text)
        if "点" in text:
            text = _clocks_zh(text, found)
        if "分之" in text:
            text = _FRACTION_ZH.sub(lambda m: blank(m, *items) if (items := _fraction_zh(m)) else m[0], text)
        if "折" in text:
            text = _OFF_ZH.sub(lambda m: blank(m, *items) if (items := _off_zh(m)) else m[0], text)
    elif not letters.isdisjoint(_WEEKDAY_WORDS):
        text = _WEEKDAY.sub(lambda m: blank(m, _weekday(m)), text)
    if has_digit:
        if text.isascii() and "$" not in text and letters.isdisjoint(_CURRENCIES):
            text = _ARABIC_PLAIN.sub(lambda m: blank(m, _arabic(m, "")), text)
        else:
            text = _ARABIC.sub(lambda m: blank(m, _arabic(m, m["cur"] or "")), text)
    if not ascii_only:
        text = _ZH_NUMBER.sub(lambda m: blank(m, *items) if (items := _zh_number(m)) else m[0], text)
    if not _MAYBE_WORDS.isdisjoint(letters) and not _MAYBE_WORDS.isdisjoint(_LETTERS.findall(text)):
        text = _FRACTION_EN.sub(lambda m: blank(m, _fraction(_WORD_VALUE[m[1]], _PARTS[m[2]], m.start())), text)
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
    # Hundreds of digits are infinite here; no number may be the same as that.
    if gap <= 1e-9 or gap <= 1e-9 * (abs(one) + abs(other)) < math.inf:
        return True
    return mine == "byte" and _same_bytes(claim, support)


def _same_bytes(claim: Quantity, support: Quantity) -> bool:
    """2 GB are 2,000 MB to some and 2,048 MB to others."""
    if claim.value / (claim.plain or 1.0) == support.value / (support.plain or 1.0):
        return False
    more, less = max(claim.value, support.value), min(claim.value, support.value)
    return more < math.inf and any(abs(more - less * 1.024**power) <= 1e-6 * more for power in (1, 2, 3))


_COMPATIBLE = frozenset((a, b) for pair in COMPATIBLE for a in pair for b in pair)
ALLIES = {one: tuple(b for a, b in sorted(_COMPATIBLE) if a == one != b) for one, _ in _COMPATIBLE}
"""The other dimensions that each may be written for."""


def _quantity(value: float, unit: str, start: int) -> Quantity:
    dimension, factor = UNITS.get(unit) or PHRASES.get(unit, ("", 1.0))
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
    year, republic = _zh_int(m["y"] or m["y2"] or m["y3"]), _zh_int(m["ry"] or m["ry2"])
    if republic is not None:
        year = republic + 1911  # Minguo calendar
    elif year is not None and year in ROC_ALONE:
        year += 1911
    month, day = _zh_int(m["m"]), _zh_int(m["d"])
    if (month is not None and not 1 <= month <= 12) or (day is not None and not 1 <= day <= 31):
        return []
    return _date(year, month, day, m.start())


def _clock(m: re.Match[str]) -> list[Quantity]:
    hour, minute = int(m["h1"] or m["h2"]), int(m["n1"] or 0)
    half_day = m["p1"] or m["p2"] or m["ampm"] or ""
    return [_time_of_day(hour, minute, half_day, m.start())]


def _time_of_day(hour: int, minute: int, half_day: str, start: int) -> Quantity:
    # Three in the deep of the night is before the morning, twelve in the evening is midnight, one at noon is after it.
    if (half_day in _PM and (5 if half_day in _EVENING else 0) <= hour < 12) or (half_day == "中午" and hour < 3):
        hour += 12
    elif half_day in (*_EVENING, "a", "凌晨") and hour == 12:
        hour = 0
    return Quantity("clock", hour % 24 * 60 + minute, hour, start)


def _clocks_zh(text: str, found: list[Quantity]) -> str:
    """Times of day; the end of a range takes the half of the day from its start (2 to 6 in the afternoon)."""
    half_day, end = "", -1

    def blank(m: re.Match[str]) -> str:
        nonlocal half_day, end
        inherited = half_day if end >= 0 and _RANGE_ZH.fullmatch(text, end, m.start()) else ""
        items = _clock_zh(m, inherited)
        half_day, end = m["ampm"] or inherited, m.end()
        found.extend(items)
        return " " * (m.end() - m.start()) if items else m[0]

    return _CLOCK_ZH.sub(blank, text)


def _clock_zh(m: re.Match[str], inherited: str = "") -> list[Quantity]:
    hour, minute = _zh_int(m["h"]), 30 if m["half"] else _zh_int(m["n"]) or 0
    half_day = m["ampm"] or inherited
    plain = not (half_day or m["n"] or m["half"]) and not m["h"].isdigit()
    if hour is None or hour > 24 or plain:  # a bare Chinese numeral before this word is as often "a little", "points"
        return []
    return [_time_of_day(hour, minute, half_day, m.start())]


def _fraction(part: float, whole: float, start: int) -> Quantity:
    """A fraction in per cent: two thirds are 66.67 %."""
    share = 100.0 * part / whole
    return Quantity("percent", share, share, start)


def _fraction_zh(m: re.Match[str]) -> list[Quantity]:
    whole = _zh_int(m["n2"])
    part = float(m["n1"]) if m["n1"][0].isascii() else chinese_number(m["n1"])
    if m["n2"] == "百":
        whole = 100
    return [_fraction(part, whole, m.start())] if whole and part is not None else []


def _off_zh(m: re.Match[str]) -> list[Quantity]:
    """What is left of a price: 8 and 80 of it are both a fifth less."""
    text = m["off"]
    left = float(text) if text[0].isascii() else chinese_number(text)
    if not left or left >= 100:
        return []
    return [_fraction(100.0 - left * (10.0 if left < 10 else 1.0), 100.0, m.start())]


def _weekday(m: re.Match[str]) -> Quantity:
    day = (WEEKDAYS_ZH.find(m["zh"]) + 1 or 7) if m["zh"] else WEEKDAYS.index(m["en"][:3]) + 1
    return Quantity("weekday", day, day, m.start())


def _arabic(m: re.Match[str], currency: str) -> Quantity:
    value = float(m["value"].replace(",", ""))
    if scale := m["yi"] or m["wan"] or m["scale"]:
        value *= math.prod(_SCALES[c] for c in scale) if scale[-1] in _SCALES_ZH else _SCALES[scale.lstrip("-")]
    for digits, unit in _BELOW.findall(m["below_yi"] or m["below_wan"] or ""):
        value += float(digits.replace(",", "")) * math.prod(_SCALES[c] for c in unit)
    unit = "workday" if m["work"] else m["unit"] or m["unit_en"] or ""
    return _quantity(value, unit or currency, m.start())


def _zh_number(m: re.Match[str]) -> list[Quantity]:
    text, unit = m["value"], m["unit"] or ""
    value = 0.5 if text == "半" else chinese_number(text)
    if value is None:
        return []
    if m["pct"]:
        return [_quantity(value, "%", m.start())]
    long = len(text) > 1 and any(c in SMALL_ZH or c in BIG_ZH for c in text)
    # A lone digit without a unit is part of a word; "one" before a counter is an article.
    if not unit and (not long or (text == "千万" and m.string[m.end() : m.end() + 1] in _BY_ALL_MEANS)):
        return []
    if text == "一" and UNITS.get(unit, ("", 0))[0] in ("", "person", "times", "yuan"):
        return []
    return [_quantity(value, unit, m.start())]


def _en_words(m: re.Match[str]) -> list[Quantity]:
    if m["times"]:
        return [_quantity(2.0 if m["times"] == "twice" else 3.0, "times", m.start())]
    words = [w for w in re.split(r"[\s-]+", m[0]) if w in NUMBER_WORDS or w in ("a", "an", "half")]
    unit = "workday" if m["work"] else m["unit"] or ""
    if words[0] == "half":  # an hour, or a million of something
        return [_quantity(0.5 * math.prod(_WORD_SCALE.get(word, 1) for word in words), unit, m.start())]
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
