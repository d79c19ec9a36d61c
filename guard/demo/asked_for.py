"""What kind of thing a question asks for, and whether a sentence holds one: an amount, a time, a form... Pure.

Word patterns in two languages, tried from the most particular kind to the most general one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """asks: how a question says so (lower case). holds: what a sentence must hold to answer it."""

    name: str
    asks: re.Pattern[str]
    holds: re.Pattern[str]


def _kind(name: str, asks: tuple[str, ...], holds: tuple[str, ...]) -> Kind:
    return Kind(name, re.compile("|".join(asks)), re.compile("|".join(holds)))


KINDS = (
    _kind(
        "form",
        (r"\bforms?\b", "哪張表|什麼表|表單|填.{0,6}表"),
        (r"\b[A-Z]{2,4}-\d+",),
    ),
    _kind(
        "contact",
        (
            r"\bextension|\bcall\b|\baddress\b|\bwhom?\b.{0,20}\b(?:write|writes|ask|contact)",
            "分機|電話|哪個信箱|寄?信到|寄到",
        ),
        (r"@|\+\d|\b\d{4}\b",),
    ),
    _kind(
        "place",
        (r"\bwhere\b|\b(?:which|what) room\b", "哪裡|哪邊|哪一?室|去哪|在哪"),
        (r"https?://|\b[A-Z]-\d{3}\b|\b(?:site|building|in the)\b", "棟|室|機房"),
    ),
    _kind(
        "money",
        (
            r"\bhow much\b|\bcosts?\b|\bprices?\b|\bamounts?\b|\bfees?\b|\bcharge\b|\bfare\b|\bpay (?:for|in)\b",
            r"\bguests pay\b|\bbonus\b|\bbudget\b|\ballowance\b|\bmileage\b",
            "多少錢|多少元|費用|金額|租金|補助|獎金|禮金|奠儀|預算|津貼|支費",
        ),
        (r"NT\$\s?\d|\d+ percent|\d times", r"\d\s?元|倍|成"),
    ),
    _kind(
        "time",
        (
            r"\bhow (?:long|often|early|far ahead|quickly|soon)\b|\bwhen\b|\bwhat time\b|\bby (?:what|which)\b",
            r"\bfrom which day\b|\bdeadline\b|\buntil\b|\bwithin\b|\bperiod\b|\bhours\?|\bpay day\b|\bweekday\b",
            r"\bcore time\b|\blength\b",
            "多久|多長|何時|時候|幾點|幾號|幾天|期限|效期|星期幾|哪一天",
        ),
        (
            r"\d[\d,.]*(?:st|nd|rd|th)?\s+(?:working\s+)?(?:minute|hour|day|week|month|year|night|time)s?",
            r"\d:\d\d|\d(?:st|nd|rd|th)\b|\b\d+ [A-Z][a-z]+|\b[A-Z][a-z]+days?\b|every|once",
            r"\d\s?個?(?:分鐘|小時|工作天|天|週|月|年|日|次|點|晚)|星期|每週",
        ),
    ),
    _kind(
        "number",
        (
            r"\bhow (?:many|big|large|high|fast|far|short)\b|\bmax(?:imum)?\b|\bminimum\b|\blimit\b|\bnumber\b",
            r"\bpercent\b|\bdiscount\b|\bshare\b|\bversion\b",
            "幾|多少|多大|上限|版本|折扣",
        ),
        (r"\d|成",),
    ),
)

_COUNTED = re.compile(r"\bhow many ([a-z]+)(?: ([a-z]+))?")
_COUNTED_ZH = re.compile("幾(個工作天|個月|個字元|小時|分鐘|位數|[天週次台種位個人頁級晚倍成])")
_PLURAL = re.compile(r"(?<=[a-z])s$")


def answers_kind(question: str, sentence: str) -> bool:
    """Whether the sentence holds the kind of thing the question asks for; True when that is not known.

    >>> answers_kind("How many days of leave?", "Leave is 16 days."), answers_kind("Which form?", "Leave is 16 days.")
    (True, False)
    """
    low = question.casefold()
    if match := _COUNTED.search(low):
        # "how many unused days", "how many days a year": one of the two words is what is counted.
        units = "|".join(re.escape(_PLURAL.sub("", word)) for word in match.groups() if word)
        counted = rf"(?:\d|\b(?:two|three|four|five|ten)\b)[\d,.]*\s+(?:[a-z]+\s+){{0,2}}(?:{units})"
        return re.search(counted, sentence, re.IGNORECASE) is not None
    if match := _COUNTED_ZH.search(low):
        unit = match[1].removeprefix("個") or "個"
        return re.search(rf"[\d一二三四五六七八九十兩]\s?個?{unit}", sentence) is not None
    for kind in KINDS:
        if kind.asks.search(low):
            return kind.holds.search(sentence) is not None
    return True
