"""Token counts where the upstream reports none. Estimates, and called so wherever they are shown."""

from __future__ import annotations

LATIN_CHARS_PER_TOKEN = 4.0
CJK_CHARS_PER_TOKEN = 1.5


def estimate_tokens(text: str) -> float:
    """Return about how many tokens `text` has: 4 characters each in Latin script, 1.5 in Chinese, Japanese, Korean.

    >>> estimate_tokens("four"), estimate_tokens("\u8acb\u5047\u898f")
    (1.0, 2.0)
    """
    if text.isascii():
        return len(text) / LATIN_CHARS_PER_TOKEN
    # From U+2E80 on (radicals, kana, ideographs, Hangul, full-width forms) one character is a large part of a token.
    wide = sum(char >= "\u2e80" for char in text)
    return wide / CJK_CHARS_PER_TOKEN + (len(text) - wide) / LATIN_CHARS_PER_TOKEN
