"""Chinese numerals: value of one, and back. Traditional, simplified and the forms of bank notes. Pure."""

from __future__ import annotations

from guard.simplified import folded

DIGITS_ZH = {c: i for i, c in enumerate("零一二三四五六七八九")} | {c: i for i, c in enumerate("〇壹貳參肆伍陸柒捌玖")}
DIGITS_ZH |= {"兩": 2, "○": 0, "◯": 0}
DIGITS_ZH |= {folded(c): value for c, value in DIGITS_ZH.items()}
SMALL_ZH = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
BIG_ZH = {"萬": 10_000, "万": 10_000, "億": 100_000_000, "亿": 100_000_000}
DIGITS = "".join(DIGITS_ZH)
ZH = "".join((*DIGITS_ZH, *SMALL_ZH, "廿卅"))
"""Characters of a numeral under ten thousand."""

BIG = "".join(BIG_ZH)
NUMERAL_CHARS = 24
"""A longer run of numerals is no number anybody wrote."""


def chinese_number(text: str) -> float | None:
    """Value of a Chinese numeral, None when it is not one.

    >>> [chinese_number(t) for t in ("十四", "兩百五十", "三萬六千", "二〇二四")]
    [14.0, 250.0, 36000.0, 2024.0]
    """
    text = text.replace("廿", "二十").replace("卅", "三十")
    whole, _, fraction = text.replace("点", "點").partition("點")
    if not whole or len(text) > NUMERAL_CHARS:
        return None
    if all(c in DIGITS_ZH for c in whole):
        value = float(int("".join(str(DIGITS_ZH[c]) for c in whole)))
    else:
        total = section = digit = 0
        unit = scale = 1  # scale: what a trailing digit is worth: 三百五 is 350, 一萬二 is 12,000
        for char in whole:
            if char in DIGITS_ZH:
                digit = DIGITS_ZH[char]
                if digit == 0:
                    scale = 1
            elif char in SMALL_ZH:
                section += (digit or (1 if not section else 0)) * SMALL_ZH[char]
                digit, scale = 0, SMALL_ZH[char] // 10
            elif char in BIG_ZH:
                # 一萬億 is ten thousand times a hundred million; 一億二千萬 is a hundred million and twenty.
                below = BIG_ZH[char] < unit
                total = total + (section + digit) * BIG_ZH[char] if below else (total + section + digit) * BIG_ZH[char]
                unit = BIG_ZH[char]
                section, digit, scale = 0, 0, BIG_ZH[char] // 10
            else:
                return None
        value = float(total + section + digit * scale)
    if fraction:
        if not all(c in DIGITS_ZH for c in fraction):
            return None
        value += float("0." + "".join(str(DIGITS_ZH[c]) for c in fraction))
    return value


def to_chinese(value: int) -> str:
    """Chinese numeral of 0 <= value < 10,000,000,000,000,000: the inverse that the parser is tested with.

    >>> to_chinese(20_305), to_chinese(120_000_000)
    ('兩萬零三百零五', '一億二千萬')
    """
    for unit, name in ((100_000_000, "億"), (10_000, "萬")):
        if value >= unit:
            high, low = divmod(value, unit)
            head = ("兩" if high == 2 else to_chinese(high)) + name
            return head + ("" if not low else ("零" if low * 10 < unit else "") + to_chinese(low))
    digits, text, gap = "零一二三四五六七八九", "", False
    for scale, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value = divmod(value, scale)
        if digit:
            text += ("零" if gap and text else "") + digits[digit] + name
            gap = False
        elif text:
            gap = True
    return text or "零"
