"""A large JSON body without its long texts: what stands beside them is read at a fraction of the price.

Of a question with 200 kB of contexts the data path needs the model's name, whether a stream is wanted, and who asks.
A JSON reader looks at every byte of what it skips; the end of a long string is found many times faster.
"""

from __future__ import annotations

from guard.wire.text import load_json

LARGE_BYTES = 16 * 1024
LONG_BYTES = 4096
CUT = "\x00cut"
"""Stands for a text that was left out."""

_CUT = b"\\u0000cut"
_FREE_STEPS, _STEP_BYTES = 64, 512
_RUN_COUNT = 64  # of backslashes; nobody writes more of them in a row


def outline(body: bytes) -> bytes:
    r"""Return `body` with each string of more than `LONG_BYTES` replaced by `CUT`; as it is when that would not pay.

    Whether the strings left out are well-formed is not looked at. Many short strings are passed over one by one, which
    takes longer than to read them: then `body` comes back.

    >>> outline(b'{"model": "m", "prompt": "%s \\" %s"}' % (b"a" * 9000, b"b" * 9000))
    b'{"model": "m", "prompt": "\\u0000cut"}'
    >>> outline(b'{"model": "m"}')
    b'{"model": "m"}'
    """
    if len(body) < LARGE_BYTES:
        return body
    kept: list[bytes] = []
    find, done, steps = body.find, 0, 0
    start = find(b'"')
    while start >= 0:
        end = start
        while True:
            end = find(b'"', end + 1)
            steps += 1
            if end < 0:
                return body  # no JSON
            run_count = _backslash_count(body, end) if body[end - 1] == 0x5C else 0
            if run_count > _RUN_COUNT or steps > _FREE_STEPS + end // _STEP_BYTES:
                return body
            if not run_count % 2:
                break
        if end - start > LONG_BYTES:
            kept += (body[done : start + 1], _CUT)
            done = end
        start = find(b'"', end + 1)
    if not kept:
        return body
    kept.append(body[done:])
    return b"".join(kept)


def _backslash_count(body: bytes, at: int) -> int:
    """How many backslashes stand before `at`, at most `_RUN_COUNT + 1`."""
    before = body[max(0, at - _RUN_COUNT - 1) : at]
    return len(before) - len(before.rstrip(b"\\"))


def is_json(body: bytes) -> bool:
    """Whether all of it is JSON, what `outline` leaves out too."""
    return load_json(body) is not None
