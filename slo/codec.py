"""Exchange to one JSON line and back: the format of the exchange log and of replay.

Fields that are None, empty or default are left out; unknown fields of a newer version are ignored; the words of an
exchange (`text`) are optional and already redacted when they come here.
"""

from __future__ import annotations

from dataclasses import fields
from hashlib import sha256
from typing import Any

import msgspec

from slo.errors import DataError
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

LOG_VERSION = 1

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_EXCHANGE_FIELDS = tuple(f.name for f in fields(Exchange) if f.name != "findings")
_FINDING_FIELDS = tuple(f.name for f in fields(Finding))
_DEFAULTS = {f.name: f.default for f in (*fields(Exchange), *fields(Finding))}


def encode_exchange(exchange: Exchange, text: dict[str, Any] | None = None) -> bytes:
    """Return one JSON object without a line end; control characters are escaped, so one event is one line.

    >>> encode_exchange(Exchange("e1", 5.0, "chat", "r1", "stable", Outcome.OK, 200))[:44]
    b'{"v":1,"exchange_id":"e1","wall_s":5.0,"rout'
    """
    row: dict[str, Any] = {"v": LOG_VERSION}
    for name in _EXCHANGE_FIELDS:
        value = getattr(exchange, name)
        if value is not None and value != _DEFAULTS[name]:
            row[name] = value
    if exchange.findings:
        row["findings"] = [finding_to_dict(f) for f in exchange.findings]
    if text:
        row["text"] = text
    return _encode(row)


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    """Finding as a JSON object, defaults left out."""
    return {
        name: value
        for name in _FINDING_FIELDS
        if (value := getattr(finding, name)) is not None and value != _DEFAULTS.get(name)
    }


def finding_from_dict(row: dict[str, Any]) -> Finding:
    """Inverse of `finding_to_dict`. Raises ValueError, KeyError or TypeError on a foreign object."""
    known = {k: v for k, v in row.items() if k in _FINDING_FIELDS}
    known["result"] = CheckResult(known["result"])
    known["evidence"] = tuple(known.get("evidence", ()))
    return Finding(**known)


def decode_exchange(line: bytes | str, place: str = "exchange log") -> tuple[Exchange, dict[str, Any] | None]:
    """Return the exchange of one log line and its text.

    Raises:
        DataError: the line is torn or not an exchange; the message names `place`.
    """
    try:
        row = _decode(line)
        known = {k: v for k, v in row.items() if k in _EXCHANGE_FIELDS}
        known["outcome"] = Outcome(known["outcome"])
        known["cache"] = CacheStatus(known.get("cache", CacheStatus.BYPASS))
        known["findings"] = tuple(finding_from_dict(f) for f in row.get("findings", ()))
        return Exchange(**known), row.get("text")
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{place}: not an exchange ({error}); the line is left out") from error


def text_hash(text: str) -> str:
    """Short hash of a configuration text: the first 12 hex digits of SHA-256 over its UTF-8 bytes."""
    return sha256(text.encode()).hexdigest()[:12]
