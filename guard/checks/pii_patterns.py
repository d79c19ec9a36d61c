"""What personal data and secrets look like: a pattern for each kind, and the checksum that proves it. Pure.

Every pattern is linear in the length of the text. Digits that only look like a phone number count when they are written
as one (country code, area code, national groups) or when a word beside them says what they are.

What may not stand beside a find is spelled out in ASCII: a Han character is a letter to `\\w` and `\\b`, and Chinese
puts no space between a word and a number.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable


def luhn(digits: str) -> bool:
    """Checksum of payment cards.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for i, char in enumerate(reversed(digits)):
        value = int(char) * (2 if i % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def _named_card(text: str) -> bool:
    """12 digits, or the old JCB ranges: too many numbers pass Luhn by chance, so the word "card" must stand before."""
    digits = re.sub(r"\D", "", text)
    return digits.startswith(("5", "6", "1800", "2131")) and len(set(digits)) > 1 and luhn(digits)


def _iban(text: str) -> bool:
    plain = re.sub(r"[\s-]", "", text).upper()
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


_TAIWAN_LETTER = {c: i + 10 for i, c in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO")}


def _taiwan_id(text: str) -> bool:
    text = text.upper()
    first = _TAIWAN_LETTER.get(text[0])
    if first is None:
        return False
    # Resident certificates of the older form carry a second letter.
    second = _TAIWAN_LETTER[text[1]] % 10 if text[1] in "ABCD" else int(text[1])
    digits = [second, *map(int, text[2:])]
    weights = (8, 7, 6, 5, 4, 3, 2, 1, 1)
    return (first // 10 + first % 10 * 9 + sum(d * w for d, w in zip(digits, weights, strict=True))) % 10 == 0


def _china_id(text: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10X98765432"[sum(int(c) * w for c, w in zip(text[:17], weights, strict=True)) % 11] == text[17].upper()


def _hong_kong_id(text: str) -> bool:
    plain = re.sub(r"[()\s]", "", text).upper()
    letters, digits, check = re.fullmatch(r"([A-Z]{1,2})(\d{6})([0-9A])", plain).groups()  # type: ignore[union-attr]
    values = [36, *(ord(c) - 55 for c in letters)][-2:] + [int(c) for c in digits]
    total = sum(v * w for v, w in zip(values, range(9, 1, -1), strict=True))
    return (total + int(check, 16)) % 11 == 0


def _singapore_id(text: str) -> bool:
    text = text.upper()
    total = sum(int(c) * w for c, w in zip(text[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += 4 if text[0] in "TG" else 0
    return text[8] == ("JZIHGFEDCBA" if text[0] in "ST" else "XWUTRQPNMLK")[total % 11]


def _spain_id(text: str) -> bool:
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(text[:8]) % 23] == text[-1].upper()


def _korea_id(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    month, day = digits[2] * 10 + digits[3], digits[4] * 10 + digits[5]
    total = sum(d * w for d, w in zip(digits[:12], weights, strict=True))
    return 1 <= month <= 12 and 1 <= day <= 31 and (11 - total % 11) % 10 == digits[12]


def _us_ssn(text: str) -> bool:
    area, group, serial = text[:3], text[4:6], text[7:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


_DATED = re.compile(r"(?:19|20)\d\d[-/. ]\d|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d$")


def _named_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2 and not _DATED.match(text)


def _grouped_phone(text: str) -> bool:
    """05.12.2024 has the groups of a phone and is a day."""
    return _phone(text) and not _DATED.match(text)


def _public_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global


def entropy_bits(text: str) -> float:
    """Bits per character of a text by its own letter counts.

    >>> entropy_bits("aabb")
    1.0
    """
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _unguessable(text: str) -> bool:
    kinds = (any(c.isdigit() for c in text), any(c.islower() for c in text), any(c.isupper() for c in text))
    return all(kinds) and entropy_bits(text) >= 4.2 and not re.search(r"[a-z]{7}|[A-Za-z]{12}", text)


def _random_looking(text: str) -> bool:
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text) and len(set(text)) >= 6


_W = r"(?<![A-Za-z0-9])"
_E = r"(?![A-Za-z0-9])"
PATTERNS: tuple[tuple[str, str, re.Pattern[str], Callable[[str], bool] | None], ...] = (
    ("private_key", "key", re.compile(
        # Dashes in it: an encrypted one begins with headers such as "Proc-Type: 4,ENCRYPTED".
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----)){0,8000}"
        r"(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?"), None),
    ("secret", "long", re.compile(
        rf"{_W}(?:sk-(?:proj-|ant-|live-|test-)?[A-Za-z0-9_-]{{16,200}}|(?:gh[pousr]|github_pat|glpat|npm|hf|"
        rf"xox[abprs]|pypi|dop_v1|shpat)[_-][A-Za-z0-9_-]{{16,200}}"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|(?:sk|rk|pk)_(?:live|"
        r"test)_[A-Za-z0-9]{10,200}|whsec_[A-Za-z0-9+/=]{16,200}"
        r"|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,4000}(?:\.[A-Za-z0-9_-]{0,2000})?)"), None),
    ("secret", "word", re.compile(rf"(?i){_W}bearer\s+(?P<s>[A-Za-z0-9._~+/=-]{{16,2000}})"), _random_looking),
    ("secret", "word", re.compile(
        r"(?i)(?:password|passwd|pwd|secret|token|api[_ -]?key|access[_ -]?key|client[_ -]?secret|"
        r"\u5bc6\u78bc|\u5bc6\u7801|\u91d1\u9470)[\"']?\s{0,3}(?:is|"
        # None has Han or full-width characters: "密碼是8到12位英數字" is a rule about passwords.
        r"[:=\uff1a\u662f\u70ba\u4e3a])\s{0,3}[\"']?(?P<s>[^\s\"',;\u2e80-\uffef]{8,200})"), _random_looking),
    ("secret", "at", re.compile(r"(?i)[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,100}:(?P<s>[^\s/@]{3,200})@"), None),
    ("email", "at", re.compile(
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"), None),
    ("iban", "digits", re.compile(
        rf"{_W}[A-Za-z]{{2}}\d{{2}}(?:[ -]?[A-Za-z0-9]{{4}}){{2,7}}(?:[ -]?[A-Za-z0-9]{{1,3}})?{_E}"), _iban),
    # In one run or in the usual groups: a looser pattern would swallow the number that stands next to a card.
    ("card", "digits", re.compile(
        r"(?<![A-Za-z\d])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}[ -]\d{6}[ -]\d{5})(?!\d)"), _card),
    ("card", "digits", re.compile(
        rf"(?i)(?:{_W}(?:cards?|cc){_E}|\u5361)[^\d\n]{{0,24}}(?P<s>\d{{12}}|(?:1800|2131)\d{{11}})(?!\d)"),
     _named_card),
    ("national_id", "digits", re.compile(rf"{_W}[A-Za-z][1289A-Da-d]\d{{8}}{_E}"), _taiwan_id),
    ("national_id", "digits", re.compile(rf"{_W}[1-9]\d{{5}}(?:19|20)\d{{9}}[\dXx]{_E}"), _china_id),
    ("national_id", "digits", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _us_ssn),
    ("national_id", "digits", re.compile(rf"{_W}[A-Za-z]{{1,2}}\d{{6}} ?\([0-9Aa]\)"), _hong_kong_id),
    ("national_id", "digits", re.compile(rf"{_W}[STFGstfg]\d{{7}}[A-Za-z]{_E}"), _singapore_id),
    ("national_id", "digits", re.compile(rf"{_W}\d{{8}}-?[A-Za-z]{_E}"), _spain_id),
    ("national_id", "digits", re.compile(r"(?<![\d-])\d{6}-[1-4]\d{6}(?![\d-])"), _korea_id),
    ("national_id", "digits", re.compile(
        rf"{_W}[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D]{_E}"), None),  # United Kingdom
    # Taiwan: mobile 09xx-xxx-xxx, land line (02) xxxx-xxxx, +886; then international and North American forms.
    ("phone", "digits", re.compile(
        r"(?<![\d.-])(?:\+?886[ -]?\(?0?\)?[ -]?9\d{2}[ -]?\d{3}[ -]?\d{3}|09\d{2}[ -]?\d{3}[ -]?\d{3}"
        r"|(?:\+?886[ -]?|\(?0)[2-8]\d{0,2}\)?[ -]\d{3,4}[ -]?\d{4})(?!\d)"), _phone),
    ("phone", "digits", re.compile(
        r"(?<![A-Za-z0-9_.])\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}(?!\d)"), _phone),
    ("phone", "digits", re.compile(
        r"(?<![A-Za-z0-9_.-])(?:(?:\+?1|001)[ .-])?\(?[2-9]\d{2}\)?[ .-]?[2-9]\d{2}[.-]\d{4}(?:x\d{1,5})?(?!\d)"),
     _phone),
    ("phone", "digits", re.compile(
        r"(?<![A-Za-z0-9_.-])(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-][2-9]\d{2}[ .-]\d{4}(?!\d)"), _phone),
    # National groups that begin with 0, at least three of them, one kind of gap: 0490 39 07 81, 03.93.92.16.85.
    ("phone", "digits", re.compile(
        r"(?<![A-Za-z0-9_.,/:-])(?<!\d[ .-])\(?0[1-9]\d{0,3}\)?(?P<gap>[ .-])\d{2,4}(?:(?P=gap)\d{2,4}){1,3}"
        r"(?![A-Za-z0-9_/]|[.,-]\d)"), _grouped_phone),
    ("phone", "digits", re.compile(
        r"(?i)(?:(?<![A-Za-z0-9_])(?:(?:tele)?phones?(?: numbers?)?|tel|mobiles?|cell(?:phone)?|fax|desk|whatsapp|sms|"
        r"hotline"
        r"|(?:call|dial|text|ring|phone|reach)(?:ing)?(?: (?:me|us|him|her|them|back))?(?: (?:at|on|under))?|"
        r"answering (?:at|on)"
        r"|messages? to|my registered(?: (?:number|mobile))?)|\u96fb\u8a71|\u7535\u8bdd|\u624b\u6a5f|\u624b\u673a"
        r"|\u884c\u52d5|\u50b3\u771f|\u5ba2\u670d\u5c08\u7dda|\u5c08\u7dda|\u64a5\u6253|\u4f86\u96fb)"
        # A space between any two parts: where it may be missing, a run of digits can be cut in as many ways as it has
        # sets of five places, and a hundred digits take a minute.
        r"(?: (?:is|no|number))?[\s:.#\uff1a\u662f\u70ba]{0,4}(?P<s>\(?\+?\d[\d().-]*(?: "
        r"[\d().-]+){0,5}(?<=[\d().-]\d)(?:x\d{1,5})?)(?![A-Za-z0-9_/%])"),
     _named_phone),
    ("ip", "dots", re.compile(
        r"(?i)(?<![A-Za-z0-9_.])(?<!version )(?<!release )(?<!build )(?<!section )"
        r"(?<!\u7248\u672c)(?<!\u7248\u672c )(?<!\u7b2c)(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d)"),
     _public_address),
    ("ip", "colons", re.compile(
        r"(?<![A-Za-z0-9_:])(?:[0-9A-Fa-f]{1,4}:){4,7}(?::?[0-9A-Fa-f]{1,4})(?![A-Za-z0-9_:])"), _public_address),
    # A long word that nobody could guess, behind nothing that makes it an address.
    ("token", "long", re.compile(r"(?<![A-Za-z0-9_/+.=-])[A-Za-z0-9_-]{32,128}(?![A-Za-z0-9_/+=-])"), _unguessable),
)  # fmt: skip
