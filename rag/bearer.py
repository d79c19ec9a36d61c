"""Keys as a header carries them, and URLs that carry none."""

from __future__ import annotations

from urllib.parse import urlsplit

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


def plain_url(url: str, place: str) -> str:
    """The URL, which names an http(s) host and no user or password: those would stand in logs and files.

    Raises:
        ConfigError: the password is not shown.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, brackets that do not close
        parts, good = None, False
    if parts is None or not good:
        raise ConfigError(place, url, "write an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(place, url, "no user or password in a URL; name the variable that holds the key")
    return url
