"""Unpacking of compressed answers for reading them, with caps: the answer itself is forwarded as it came.

A few hundred bytes can unpack to gigabytes; whoever reads an answer stops at an absolute size, at a ratio and at a
number of gzip members, and says that it could not look.
"""

from __future__ import annotations

import zlib

from slo.errors import DataError

MAX_BYTES = 10 * 1024 * 1024
MAX_RATIO = 100
MAX_MEMBERS = 16
_STEP_BYTES = 64 * 1024
_RATIO_GRACE_BYTES = 64 * 1024  # small answers of one repeated word are no bombs


def unpack(data: bytes, coding: str, *, max_bytes: int = MAX_BYTES, partial: bool = False) -> bytes:
    """Return `data` without its content coding: "", "identity", "gzip", "x-gzip" or "deflate".

    partial: the data may end in the middle (a capture that was cut); what is there is returned.

    Raises:
        DataError: another coding, damaged data, or a cap was hit; the message starts with "undecodable".
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return data
    if coding in ("gzip", "x-gzip"):
        window_bits = 31
    elif coding == "deflate":
        # Two formats go by this name; the zlib header tells which.
        window_bits = 15 if len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0 else -15
    else:
        raise DataError(f"undecodable: content coding {coding[:40]!r} is not read; let the upstream send gzip or none")
    out: list[bytes] = []
    size = members = 0
    rest = data
    while rest:
        members += 1
        if members > MAX_MEMBERS:
            raise DataError(f"undecodable: more than {MAX_MEMBERS} compressed members")
        member = zlib.decompressobj(window_bits)
        while not member.eof:
            try:
                piece = member.decompress(rest, _STEP_BYTES)
            except zlib.error as error:
                raise DataError(f"undecodable: damaged {coding} data ({error})") from None
            rest = member.unconsumed_tail
            size += len(piece)
            out.append(piece)
            if size > max_bytes or size > MAX_RATIO * len(data) + _RATIO_GRACE_BYTES:
                raise DataError(f"undecodable: {len(data)} bytes unpack to more than {size}; the cap is hit")
            if not rest and not piece and not member.eof:
                if partial:
                    return b"".join(out)
                raise DataError(f"undecodable: {coding} data ends early")
        rest = member.unused_data if window_bits == 31 else b""
    return b"".join(out)
