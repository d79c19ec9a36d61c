"""A head that comes a byte a packet: looked at once, whatever its length, and judged as if it had come in one piece."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.wire.http1 import FIELDS_COUNT_MAX, OPTIONS_COUNT_MAX, bare_lf
from tests.faults.path_kit import post, running, take_apart, target, tell
from tests.faults.scripted_upstream import Script, Upstream, completion, http
from tests.faults.test_path_smuggling import HARMLESS, PROBES

pytestmark = pytest.mark.anyio
BARE_LF = re.compile(rb"(?<!\r)\n")


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"GET / HTTP/1.1", b"\r\n\n"]), max_size=12))
def test_only_what_is_new_is_looked_at_and_nothing_is_missed(pieces: list[bytes]) -> None:
    seen = b""
    for piece in pieces:
        whole = seen + piece
        if not BARE_LF.search(seen):
            assert bare_lf(whole, len(seen)) == bool(BARE_LF.search(whole)), (seen, piece)
        seen = whole


@pytest.mark.parametrize("name", [*list(PROBES)[::4], *HARMLESS])
async def test_a_head_in_single_bytes_is_judged_as_in_one_piece(name: str):
    whole = HARMLESS[name] if name in HARMLESS else PROBES[name][0]
    if name in HARMLESS:
        whole = whole.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1) if b"\r\n\r\n" in whole[2:] else whole
    async with Upstream(lambda _: Script(http(completion()))) as upstream, running(target(upstream.port)) as guard:
        at_once = take_apart(await tell(guard.port, whole))
        dripped = take_apart(await tell(guard.port, *(whole[n : n + 1] for n in range(len(whole)))))
    assert dripped.status == at_once.status


async def test_more_fields_or_options_than_anybody_needs_are_refused():
    fields = [f"X-{number}: y" for number in range(FIELDS_COUNT_MAX)]
    options = "Connection: " + ",".join(f"x{number}" for number in range(OPTIONS_COUNT_MAX + 2))
    async with Upstream(lambda _: Script(http(completion()))) as upstream, running(target(upstream.port)) as guard:
        many = take_apart(await tell(guard.port, post(b"{}", *fields)))
        assert (many.status, many.error_type) == (431, "too_large")
        few = take_apart(await tell(guard.port, post(b"{}", *fields[: FIELDS_COUNT_MAX // 2])))
        assert few.status == 200
        assert take_apart(await tell(guard.port, post(b"{}", options))).status == 400
        assert guard.path.stats().refused == {"too_large": 1, "bad_request": 1}
