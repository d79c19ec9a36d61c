"""Words and numbers of guard.yaml as people write them: durations, sizes, shares, names, origins."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from guard.ports import Endpoint
from slo.spec import parse_duration_s

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
DIALECT_NAMES = ("openai-chat", "openai-responses", "json", "passthrough")
_HOST = re.compile(r"[0-9A-Za-z._:%~-]+")
_PATH = re.compile(r"[!-~]*")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|kB|MB|GB)?\s*$")
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def _duration(value: object) -> object:
    return parse_duration_s(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if not match:
        raise ValueError("write a size such as 64MiB or 4096")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def show_size(size_bytes: int) -> str:
    """A size as guard.yaml writes it.

    >>> show_size(64 * 2**20), show_size(1000)
    ('64MiB', '1000')
    """
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes >= _SIZE_UNITS[unit] and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return str(size_bytes)


def _ratio(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        # Percent is a border form; rounding keeps 0.1 % from becoming 0.0009999....
        return round(float(value.strip()[:-1]) / 100, 9)
    return value


DURATION = BeforeValidator(_duration, json_schema_input_type=float | str)
SIZE = BeforeValidator(_size, json_schema_input_type=int | str)
Seconds = Annotated[
    float,
    DURATION,
    Field(gt=0, le=366 * 86400, description="Seconds, or a duration such as 30s, 10m, 24h."),
]
Bytes = Annotated[int, SIZE, Field(gt=0, description="Bytes, or 64MiB.")]
Ratio = Annotated[
    float,
    BeforeValidator(_ratio, json_schema_input_type=float | str),
    Field(ge=0, le=1, description="A share: 0.1 or 10%."),
]
Name = Annotated[str, Field(pattern=NAME, description="Lower-case letters, digits, dot, dash, underscore.")]
EnvName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$", description="Name of an environment variable.")]


class Model(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)


def parse_origin(text: str) -> Endpoint:
    """`https://host:port/base` as an Endpoint; a host in another script in its ASCII form.

    Raises:
        ValueError: another scheme, user info, query or fragment, no host, or a path that no request line can carry.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"`{text}`: write http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in a URL; use api_key_env or headers")
    if parts.query or parts.fragment:
        raise ValueError(f"`{text}`: no query or fragment here")
    if not parts.hostname:
        raise ValueError(f"`{text}`: the host is missing")
    if not _PATH.fullmatch(parts.path):
        raise ValueError(f"`{text}`: write its path as {quote(parts.path, safe='/%:@!$&()*+,;=~')}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Endpoint(parts.scheme, _host(parts.hostname, text), port, parts.path.rstrip("/"))


def _host(name: str, text: str) -> str:
    """As DNS, the Host header and certificates have it."""
    try:
        host = name.encode("idna").decode()
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise ValueError(f"`{text}`: `{name}` is no host name")
    return host


def split_host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:8800` or `[::1]:8800` in two parts. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535 or not host:
        raise ValueError(f"`{text}`: write host:port, for example 127.0.0.1:8800")
    return host.strip("[]"), int(port)
