"""Exchange to one JSON line and back: the format of the exchange log and of replay.

The encoder works on the dataclass itself (5 us against 16 us for a line without its defaults, which matters once per
answer); unknown fields of a newer version are ignored and missing ones take their defaults. The words of an exchange
(`text`) are optional and already redacted when they come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from slo.errors import DataError
from slo.types import Exchange, Finding

LOG_VERSION = 1

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes from outside raises: no JSON or another form, a string that is not UTF-8, nesting without end."""

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode_exchange = msgspec.json.Decoder(Exchange).decode
_HEAD = b'{"v":%d,' % LOG_VERSION


class _Words(msgspec.Struct):
    """The part of a line beside the exchange."""

    v: int
    text: dict[str, Any] | None = None


_decode_words = msgspec.json.Decoder(_Words).decode


def encode_exchange(exchange: Exchange, text: dict[str, Any] | None = None) -> bytes:
    """Return one JSON object without a line end; control characters are escaped, so one event is one line.

    >>> from slo.types import Outcome
    >>> encode_exchange(Exchange("e1", 5.0, "chat", "r1", "stable", Outcome.OK, 200))[:44]
    b'{"v":1,"exchange_id":"e1","wall_s":5.0,"rout'
    """
    line = _HEAD + _encode(exchange)[1:]
    return b'%s,"text":%s}' % (line[:-1], _encode(text)) if text else line


# A quotation mark inside a value is escaped, and so is a line feed: these bytes stand nowhere else.
_LINE_START, _NO_FINDINGS_END = b'\n{"exchange_id":', b'"findings":[]}\n'


def encode_exchanges(exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> bytes:
    """Lines of many exchanges without text, each with its line end; `findings`, which all share, are encoded once.

    exchanges: as they ended, with no findings of their own.

    >>> from slo.types import CheckResult, Outcome
    >>> findings = (Finding("pii", CheckResult.PASS),)
    >>> bare, full = (Exchange("e1", 5.0, "chat", "r1", "stable", Outcome.OK, 200, findings=f) for f in ((), findings))
    >>> encode_exchanges([bare, bare], findings) == (encode_exchange(full) + b"\\n") * 2
    True
    """
    lines = (b"\n" + _encode_lines(exchanges)).replace(_LINE_START, b'\n%s"exchange_id":' % _HEAD)
    return lines[1:].replace(_NO_FINDINGS_END, b'"findings":%s}\n' % _encode(findings))


def decode_exchange(line: bytes | str, place: str = "exchange log") -> tuple[Exchange, dict[str, Any] | None]:
    """Return the exchange of one log line and its text.

    Raises:
        DataError: the line is torn or not an exchange; the message names `place`.
    """
    try:
        return _decode_exchange(line), _decode_words(line).text
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{place}: not an exchange ({error}); the line is left out") from error


def header_text(value: bytes) -> str:
    r"""The words of a header's value. Who writes other scripts into one writes UTF-8; what is none is Latin-1.

    >>> header_text("\u8ca1\u52d9".encode()) == "\u8ca1\u52d9", header_text(b"caf\xe9")
    (True, 'café')
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    """Finding as a JSON object."""
    row: dict[str, Any] = msgspec.to_builtins(finding)
    return row


def text_hash(text: str) -> str:
    """Short hash of a configuration text: the first 12 hex digits of SHA-256 over its UTF-8 bytes."""
    return sha256(text.encode()).hexdigest()[:12]
