"""Tokens, hosts, origins and the throttle, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.admin.access import ADDRESSES_COUNT, FAILURES_PER_WINDOW, WINDOW_S, FailureThrottle, HostList, TokenCheck
from guard.admin.access import token_id as name_of


@given(st.text(min_size=1), st.binary())
def test_only_the_configured_token_is_accepted(token: str, presented: bytes) -> None:
    try:
        expected = token.encode()
    except UnicodeEncodeError:
        return
    check = TokenCheck(token)
    assert check.accepts(expected)
    assert check.accepts(presented) is (presented == expected)


def test_a_token_id_tells_tokens_apart_without_naming_them() -> None:
    check = TokenCheck("secret-token")
    assert check.id == name_of(b"secret-token") != name_of(b"secret-tokem")
    assert len(check.id) == 8
    assert "secret" not in check.id


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True), ("LOCALHOST:8801", True), ("localhost.:80", True), ("[::1]:8801", True), ("[::1]", True),
        ("::1", False), ("guard.example:8801", True), ("guard.example", False), ("guard.example:8802", False),
        ("localhost.evil.example", False), ("evil-localhost", False), ("localhost:", False), ("localhost:x", False),
        ("localhost@evil.example", False), ("", False),
    ],
)  # fmt: skip
def test_a_host_is_allowed_by_name_or_by_name_and_port(host: str, allowed: bool) -> None:
    assert HostList(["localhost", "[::1]", "guard.example:8801"]).allows(host) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8801", True), ("https://localhost", True), ("null", False), ("", False),
        ("http://evil.example", False), ("file://localhost", False), ("http://localhost/@evil", False),
        ("http://user@localhost", False), ("localhost", False), ("http://localhost#.evil.example", False),
    ],
)  # fmt: skip
def test_an_origin_is_allowed_when_its_host_is(origin: str, allowed: bool) -> None:
    assert HostList(["localhost"]).allows_origin(origin) is allowed


def test_a_star_allows_every_host_and_still_no_null_origin() -> None:
    hosts = HostList(["*"])
    assert hosts.allows("anything:1")
    assert not hosts.allows_origin("null")


def test_five_failures_close_the_door_for_a_minute_from_the_first_of_them() -> None:
    throttle = FailureThrottle()
    for second in range(FAILURES_PER_WINDOW):
        assert throttle.wait_s("a", float(second)) == 0.0
        throttle.failed("a", float(second))
    assert throttle.wait_s("a", 10.0) == WINDOW_S - 10.0
    assert throttle.wait_s("b", 10.0) == 0.0
    assert throttle.wait_s("a", 59.9) > 0.0
    assert throttle.wait_s("a", 60.0) == 0.0
    throttle.failed("a", 60.0)
    assert throttle.wait_s("a", 60.5) == 0.5, "four failures of the last minute and one more"


@given(st.lists(st.floats(0, 40), max_size=60))
def test_no_address_ever_has_more_than_five_tries_in_a_minute(gaps: list[float]) -> None:
    throttle, now_s, tries = FailureThrottle(), 0.0, []
    for gap in gaps:
        now_s += gap
        if throttle.wait_s("a", now_s) == 0.0:
            tries.append(now_s)
            throttle.failed("a", now_s)
    for at in tries:
        assert sum(at <= other < at + WINDOW_S for other in tries) <= FAILURES_PER_WINDOW


def test_a_flood_of_addresses_does_not_grow_without_bound() -> None:
    throttle = FailureThrottle()
    for i in range(ADDRESSES_COUNT + 500):
        throttle.failed(f"address{i}", 0.0)
    assert len(throttle._failures) == ADDRESSES_COUNT
    assert f"address{ADDRESSES_COUNT + 499}" in throttle._failures
