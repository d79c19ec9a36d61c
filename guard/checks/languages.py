"""Which calibration judges a text, and whether it was made for its language. Pure.

The combiner is calibrated for English and Chinese. Words and facts of other languages are compared all the same, but
what a score means there nobody measured: the finding says so.
"""

from __future__ import annotations

import re
from collections.abc import Container

from guard.checks.lexicon import is_cjk

LOOKED_AT_CHARS = 400
LEAST_WORDS = 3
"""Frequent words of another language that must be there, and twice as many as English ones, before it is named."""

_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
)
SCRIPT_RATIO = 0.3
"""Share of the letters from which a script decides; a Greek letter in a formula does not."""

_FREQUENT = {
    "en": "the of to and in is that for a on are with it be as at by or not you your can this from",
    "de": "der die das und ist nicht ein eine zu mit von den im auf dem sie werden wird sind oder",
    "fr": "le la les des et est un une du dans pour que qui pas sur au vous par ne sont ou",
    "es": "el la los las de que y en un una es por con para se del al su no son",
    "it": "il di che la e un una per con del della non sono gli le si da nel",
    "pt": "o os as de que e em um uma para com do da no na se por mais",
    "nl": "de het een en van niet dat op te voor met zijn wordt u of bij",
    "vi": "v\u00e0 c\u1ee7a c\u00f3 l\u00e0 cho \u0111\u01b0\u1ee3c kh\u00f4ng c\u00e1c trong",
    "id": "yang dan di untuk dengan tidak dari pada ini itu adalah",
}
_SETS = {name: frozenset(words.split()) for name, words in _FREQUENT.items()}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _name, _frequent in _SETS.items():
    for _word in _frequent:
        _LANGUAGES_OF.setdefault(_word, []).append(_name)
_WORDS = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """ISO 639-1 code of a text, as far as script and frequent words tell; "en" when nothing speaks against it.

    >>> language_of("Der Urlaub ist mit dem Formular zu beantragen."), language_of("Ask for leave with the form.")
    ('de', 'en')
    """
    text = text[:LOOKED_AT_CHARS]
    if not text.isascii():
        letter_count = sum(map(str.isalpha, text))
        for name, pattern in _SCRIPTS:
            if len(pattern.findall(text)) > SCRIPT_RATIO * letter_count:
                return name
        if is_cjk(text):
            return "zh"
    words = _WORDS.findall(text.lower())
    counts = dict.fromkeys(_SETS, 0)
    for word in words:
        for name in _LANGUAGES_OF.get(word, ()):
            counts[name] += 1
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] >= LEAST_WORDS and counts[best] >= 2 * counts["en"] else "en"


def calibration_for(text: str, known: Container[str]) -> tuple[str, str]:
    """The name of the calibration that judges a text, and the text's language when it has none of its own, else "".

    >>> calibration_for("Der Urlaub ist mit dem Formular zu beantragen.", ("en", "zh"))
    ('en', 'de')
    """
    language = language_of(text)
    if language in known:
        return language, ""
    return "zh" if is_cjk(text) else "en", language
