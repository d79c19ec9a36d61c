"""A key as a header carries it."""

from __future__ import annotations

from slo.errors import ConfigError


def clean_key(key: str, place: str = "API key") -> str:
    """The key without the white space around it, which a secret read from a file often ends with.

    Raises:
        ConfigError: no header can carry it. The key is not shown: HTTP libraries show theirs in full.
    """
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(place, "(not shown)", "it holds what no header carries, such as a line break; copy it anew")
    return key
