"""Personal data and secrets in text: found by pattern and checksum, replaced before anything is stored. Pure.

Every pattern is linear in the length of the text. A number counts as a card, an IBAN or a national id only when its
checksum is right, so that order numbers stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from slo.types import CheckResult, Finding

CHECK = "pii"
TEXT_CHARS = 256_000
EVIDENCE_COUNT = 8

ALWAYS_A_LEAK = frozenset({"secret", "card", "iban", "national_id", "private_key"})
"""Kinds that fail the check even when the contexts hold them; mail addresses and phones may be published contacts."""


@dataclass(frozen=True, slots=True)
class Match:
    """One find. start, end: position in the text."""

    kind: str
    start: int
    end: int


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


def _us_ssn(text: str) -> bool:
    area, group, serial = text[:3], text[4:6], text[7:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


def _random_looking(text: str) -> bool:
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text) and len(set(text)) >= 6


_W = r"(?<![A-Za-z0-9])"
_E = r"(?![A-Za-z0-9])"
_PATTERNS: tuple[tuple[str, str, re.Pattern[str], Callable[[str], bool] | None], ...] = (
    ("private_key", "key", re.compile(
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,8000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"), None),
    ("secret", "long", re.compile(
        rf"{_W}(?:sk-(?:proj-|ant-|live-|test-)?[A-Za-z0-9_-]{{16,200}}|(?:gh[pousr]|glpat|npm|hf|"
        rf"xox[abprs]|pypi|dop_v1|shpat)[_-][A-Za-z0-9_-]{{16,200}}"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|(?:sk|rk|pk)_(?:live|"
        r"test)_[A-Za-z0-9]{10,200}|whsec_[A-Za-z0-9+/=]{16,200}"
        r"|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,4000}(?:\.[A-Za-z0-9_-]{0,2000})?)"), None),
    ("secret", "word", re.compile(r"(?i)\bbearer\s+(?P<s>[A-Za-z0-9._~+/=-]{16,2000})"), _random_looking),
    ("secret", "word", re.compile(
        r"(?i)(?:password|passwd|pwd|secret|token|api[_ -]?key|access[_ -]?key|client[_ -]?secret|"
        r"\u5bc6\u78bc|\u91d1\u9470)[\"']?\s{0,3}(?:is|"
        r"[:=\uff1a\u662f])\s{0,3}[\"']?(?P<s>[^\s\"',;\uff0c\u3002]{8,200})"), _random_looking),
    ("secret", "at", re.compile(r"(?i)[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,100}:(?P<s>[^\s/@]{3,200})@"), None),
    ("email", "at", re.compile(
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"), None),
    ("iban", "digits", re.compile(
        rf"{_W}[A-Z]{{2}}\d{{2}}(?:[ -]?[A-Z0-9]{{4}}){{2,7}}(?:[ -]?[A-Z0-9]{{1,3}})?{_E}"), _iban),
    # In one run or in the usual groups: a looser pattern would swallow the number that stands next to a card.
    ("card", "digits", re.compile(
        r"(?<!\d)(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}[ -]\d{6}[ -]\d{5})(?!\d)"), _card),
    ("national_id", "digits", re.compile(rf"{_W}[A-Za-z][1289A-Da-d]\d{{8}}{_E}"), _taiwan_id),
    ("national_id", "digits", re.compile(rf"{_W}[1-9]\d{{5}}(?:19|20)\d{{9}}[\dXx]{_E}"), _china_id),
    ("national_id", "digits", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _us_ssn),
    # Taiwan: mobile 09xx-xxx-xxx, land line (02) xxxx-xxxx, +886; then international and North American forms.
    ("phone", "digits", re.compile(
        r"(?<![\d.-])(?:\+?886[ -]?\(?0?\)?[ -]?9\d{2}[ -]?\d{3}[ -]?\d{3}|09\d{2}[ -]?\d{3}[ -]?\d{3}"
        r"|(?:\+?886[ -]?|\(?0)[2-8]\d{0,2}\)?[ -]\d{3,4}[ -]?\d{4})(?!\d)"), _phone),
    ("phone", "digits", re.compile(r"(?<![\w.])\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}(?!\d)"), _phone),
    ("phone", "digits", re.compile(r"(?<![\w.-])(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-][2-9]\d{2}[ .-]\d{4}(?!\d)"), _phone),
)  # fmt: skip

KINDS = tuple(dict.fromkeys(kind for kind, _, _, _ in _PATTERNS))
"""Closed set of kinds."""

_DIGITS = re.compile(r"\d(?:[ ().-]{0,2}[\dXx]){7}")
_LONG = re.compile(r"[A-Za-z0-9_-]{18}|\beyJ|[rs]k_")
_SECRET_WORD = re.compile(r"passw|pwd|secret|token|key|bearer|\u5bc6\u78bc|\u91d1\u9470", re.IGNORECASE)
_HINTS: dict[str, Callable[[str], object]] = {
    "key": lambda text: "PRIVATE KEY" in text,
    "at": lambda text: "@" in text,
    "digits": _DIGITS.search,
    "long": _LONG.search,
    "word": _SECRET_WORD.search,
}
"""Quick tests: most texts need none of the patterns."""


def find_pii(text: str) -> list[Match]:
    """Finds in order, never overlapping; of two that overlap the earlier pattern of the table stays."""
    text = text[:TEXT_CHARS]
    hints = {hint for hint, test in _HINTS.items() if test(text)}
    if not hints:
        return []
    found: list[Match] = []
    for kind, hint, pattern, check in _PATTERNS:
        if hint not in hints:
            continue
        for match in pattern.finditer(text):
            start, end = match.span("s" if "s" in pattern.groupindex else 0)  # s: the secret itself
            if check is not None and not check(text[start:end]):
                continue
            if all(end <= other.start or start >= other.end for other in found):
                found.append(Match(kind, start, end))
    return sorted(found, key=lambda m: m.start)


def redact(text: str) -> tuple[str, int]:
    """Return the text with every find replaced by its kind in brackets, and how many there were.

    Text beyond `TEXT_CHARS` is cut off: what was not looked at is not stored. Width is left as it is, but full-width
    digits and letters are looked through.

    >>> redact("Write to amy@corp.example or 0912-345-678.")
    ('Write to [email] or [phone].', 2)
    """
    text = text[:TEXT_CHARS]
    finds = find_pii(text if text.isascii() else text.translate(_HALF_WIDTH))  # same length: positions hold
    parts: list[str] = []
    at = 0
    for find in finds:
        parts += (text[at : find.start], f"[{find.kind}]")
        at = find.end
    return "".join(parts) + text[at:], len(finds)


_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


def check_pii(answer: str, allowed: Sequence[str] = ()) -> Finding:
    """Whether the answer gives away personal data or secrets.

    allowed: contexts and question; addresses and phone numbers that stand there are published contacts and pass. Score:
    number of leaks, capped at 10, as a share of 10. Evidence names kinds, never the values.
    """
    if not answer.strip():
        return Finding(CHECK, CheckResult.SKIPPED, None, "empty answer")
    plain = answer.translate(_HALF_WIDTH) if not answer.isascii() else answer
    leaks = [m.kind for m in _leaks(plain, allowed)]
    if not leaks:
        return Finding(CHECK, CheckResult.PASS, 0.0, "", (), "patterns")
    counts = tuple(f"{kind}: {leaks.count(kind)}" for kind in dict.fromkeys(leaks))
    return Finding(
        CHECK, CheckResult.FAIL, min(len(leaks), 10) / 10, ", ".join(counts), counts[:EVIDENCE_COUNT], "patterns"
    )


def _leaks(answer: str, allowed: Sequence[str]) -> Iterator[Match]:
    finds = find_pii(answer)
    if not finds:
        return
    known = [a if a.isascii() else a.translate(_HALF_WIDTH) for a in allowed]
    for find in finds:
        value = answer[find.start : find.end]
        if find.kind in ALWAYS_A_LEAK or not any(value in k for k in known):
            yield find
