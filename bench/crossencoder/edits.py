"""Near misses made by rule from sentences of a context: one fact changed, the rest word for word. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(?<![\w.,-])(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)(?![\w-])")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\b")
_UNITS = (
    ("days", "weeks", "months", "years", "hours", "minutes", "seconds"),
    ("km", "miles", "metres", "meters", "feet", "inches", "cm"),
    ("kg", "pounds", "grams", "ounces", "tons"),
    ("million", "billion", "thousand", "hundred"),
    ("percent", "degrees"),
)
_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*\b")
_BE = re.compile(r"\b(is|are|was|were|can|will|should|must|has|have|had|does|did|may|could|would)\b(?! not| n't)")
_OPPOSITES = (
    ("before", "after"), ("first", "last"), ("more", "less"), ("most", "least"), ("increase", "decrease"),
    ("increased", "decreased"), ("higher", "lower"), ("always", "never"), ("older", "younger"), ("north", "south"),
    ("east", "west"), ("northern", "southern"), ("eastern", "western"), ("largest", "smallest"), ("won", "lost"),
    ("early", "late"), ("all", "none"), ("with", "without"), ("above", "below"), ("minimum", "maximum"),
    ("large", "small"), ("begin", "end"), ("began", "ended"), ("open", "closed"), ("male", "female"),
    ("father", "mother"), ("brother", "sister"), ("son", "daughter"), ("best", "worst"), ("hot", "cold"),
)  # fmt: skip
_OPPOSITE = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
_WORD = re.compile(r"[A-Za-z]+")


def near_miss(sentence: str, names: Sequence[str], rng: random.Random) -> tuple[str, str] | None:
    """(kind, sentence with one fact changed), None when there is nothing to change. names: of the whole context.

    >>> near_miss("Leave expires after 14 days.", (), random.Random(1))[1] != "Leave expires after 14 days."
    True
    """
    makers = [_number, _month, _unit, _negation, _opposite, lambda s, r: _name(s, names, r)]
    rng.shuffle(makers)
    for maker in makers:
        if (made := maker(sentence, rng)) and made[1] != sentence:
            return made
    return None


def shorter(sentence: str, rng: random.Random) -> str | None:
    """A part of a sentence that the sentence still supports: without a parenthesis, or one of two joined clauses."""
    bare = re.sub(r"\s*\([^()]*\)", "", sentence)
    parts = re.split(r"(?:;|, (?:and|but|while|which|who)) ", bare)
    whole = [p for p in parts[:1] if len(p.split()) >= 5]
    made = rng.choice([bare, *whole])
    return made if made != sentence else None


def names_of(text: str) -> list[str]:
    """Capitalised runs that do not begin a sentence, each once."""
    return list(dict.fromkeys(_NAME.findall(text)))


def _swap(sentence: str, match: re.Match[str], new: str) -> str:
    return sentence[: match.start()] + new + sentence[match.end() :]


def _number(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    found = list(_NUMBER.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    text = match[0]
    value = float(text.replace(",", ""))
    if text.isdigit() and 1500 <= value <= 2100:
        new = str(int(value) + rng.choice((-20, -10, -3, -2, -1, 1, 2, 4, 10, 30)))
    elif "." in text:
        new = f"{value * rng.choice((0.5, 1.2, 2, 10)) + 0.1:.{len(text.split('.')[1])}f}"
    else:
        new = f"{max(1, int(value * rng.choice((0.5, 2, 3))) + rng.choice((1, 2, 5))):{',' if ',' in text else ''}}"
    return "number", _swap(sentence, match, new)


def _month(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    found = list(_MONTH.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    return "date", _swap(sentence, match, rng.choice([m for m in _MONTHS if m != match[0]]))


def _unit(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    found = [(m, group) for m in _WORD.finditer(sentence) for group in _UNITS if m[0].lower() in group]
    if not found:
        return None
    match, group = rng.choice(found)
    return "unit", _swap(sentence, match, rng.choice([u for u in group if u != match[0].lower()]))


def _negation(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    if " not " in sentence:
        return "negation", sentence.replace(" not ", " ", 1)
    found = list(_BE.finditer(sentence))
    if not found or rng.random() < 0.5:
        return None
    match = found[0]
    return "negation", sentence[: match.end()] + rng.choice((" not", " never")) + sentence[match.end() :]


def _opposite(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    found = [m for m in _WORD.finditer(sentence) if m[0].lower() in _OPPOSITE]
    if not found:
        return None
    match = rng.choice(found)
    return "opposite", _swap(sentence, match, _OPPOSITE[match[0].lower()])


def _name(sentence: str, names: Sequence[str], rng: random.Random) -> tuple[str, str] | None:
    found = list(_NAME.finditer(sentence))
    others = [n for n in names if n not in sentence]
    if not found or not others:
        return None
    return "name", _swap(sentence, rng.choice(found), rng.choice(others))
