"""Personal data and secrets in text: found by pattern and checksum, replaced before anything is stored. Pure.

A number counts as a card, an IBAN or a national id only when its checksum is right, so order numbers stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from guard.checks.pii_patterns import PATTERNS
from slo.types import CheckResult, Finding

CHECK = "pii"
QUESTION_CHECK = "question_pii"
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


KINDS = tuple(dict.fromkeys(kind for kind, _, _, _ in PATTERNS))
"""Closed set of kinds."""

_DIGITS = re.compile(r"\d(?:[ ().-]{0,2}[\dXx]){6}")
_DOTS = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")
_LONG = re.compile(r"[A-Za-z0-9_-]{18}")
LONG_CHARS = 18
_SECRET_WORDS = ("passw", "pwd", "secret", "token", "key", "bearer", "\u5bc6\u78bc", "\u5bc6\u7801", "\u91d1\u9470")


def _long_word(text: str) -> bool:
    if "eyJ" in text or "k_" in text:
        return True
    return max(map(len, text.split()), default=0) >= LONG_CHARS and _LONG.search(text) is not None


def _secret_word(text: str) -> bool:
    lower = text.casefold()
    return any([word in lower for word in _SECRET_WORDS])  # noqa: C419 - a list is quicker than a generator


_HINTS: dict[str, Callable[[str], object]] = {
    "key": lambda text: "PRIVATE KEY" in text,
    "at": lambda text: "@" in text,
    "digits": _DIGITS.search,
    "long": _long_word,
    "dots": _DOTS.search,
    "colons": lambda text: text.count(":") > 3,
    "word": _secret_word,
}
"""Quick tests: most texts need none of the patterns."""

REMEMBERED_COUNT, REMEMBERED_CHARS = 16, 8_000


def find_pii(text: str) -> list[Match]:
    """Finds in order, never overlapping; of two that overlap the earlier pattern of the table stays.

    The same answer is looked through for leaks and again before it is stored, so the last few texts are remembered.
    """
    return list(_find_remembered(text) if len(text) <= REMEMBERED_CHARS else _find(text))


def _find(text: str) -> list[Match]:
    text = text[:TEXT_CHARS]
    hints = {hint for hint, test in _HINTS.items() if test(text)}
    if not hints:
        return []
    found: list[Match] = []
    for kind, hint, pattern, check in PATTERNS:
        if hint not in hints:
            continue
        for match in pattern.finditer(text):
            start, end = match.span("s" if "s" in pattern.groupindex else 0)  # s: the secret itself
            if check is not None and not check(text[start:end]):
                continue
            if all(end <= other.start or start >= other.end for other in found):
                found.append(Match(kind, start, end))
    return sorted(found, key=lambda m: m.start)


_find_remembered = lru_cache(maxsize=REMEMBERED_COUNT)(_find)


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


def excerpt(text: str, chars: int) -> str:
    """The first `chars` of a text for people; redacted first, because no pattern finds half a number.

    >>> excerpt("Write to amy@corp.example for more.", 20)
    'Write to [email] for'
    """
    return text if len(text) <= chars else redact(text)[0][:chars]


_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


def check_pii(answer: str, allowed: Sequence[str] = ()) -> Finding:
    """Whether the answer gives away personal data or secrets.

    allowed: contexts and question; mail, phone and network addresses that stand there are published and pass. Score:
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


def check_pii_question(question: str) -> Finding:
    """Whether a question holds personal data or secrets. Score and evidence as in `check_pii`."""
    found = check_pii(question)
    return Finding(QUESTION_CHECK, found.result, found.score, found.reason, found.evidence, found.detector)


def _leaks(answer: str, allowed: Sequence[str]) -> Iterator[Match]:
    finds = find_pii(answer)
    if not finds:
        return
    known = [a if a.isascii() else a.translate(_HALF_WIDTH) for a in allowed]
    for find in finds:
        value = answer[find.start : find.end]
        if find.kind in ALWAYS_A_LEAK or not any(value in k for k in known):
            yield find
