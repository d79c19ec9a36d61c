"""Bytes that are not UTF-8, not JSON, or JSON of another form: a dialect never fails on them, and passes them on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.ports import ContextSource, Route
from guard.wire.dialects import DIALECTS
from slo.errors import DataError

BODIES = (
    {"model": "gpt", "user": "u", "stream": True, "messages": [{"role": "user", "content": "7 days?"}], "id": "x"},
    {"model": "gpt", "input": [{"role": "user", "content": [{"type": "input_text", "text": "7 days?"}]}]},
    {"question": "7 days?", "answer": "yes", "contexts": ["c"]},
    {"id": "x", "choices": [{"delta": {"role": "assistant", "content": "yes"}, "message": {"content": "yes"}}],
     "usage": {"prompt_tokens": 1}},
    {"type": "response.completed", "response": {"output": [{"content": [{"text": "yes"}]}], "usage": {}}},
)  # fmt: skip


def broken_strings(body: object) -> Iterator[bytes]:
    """The body with a byte that is not UTF-8 behind each quotation mark in turn: in keys and in values."""
    whole = json.dumps(body).encode()
    for position in range(len(whole)):
        if whole[position : position + 1] == b'"':
            yield whole[: position + 1] + b"\xe5\x28" + whole[position + 1 :]


def survive(name: str, data: bytes) -> None:
    """Everything the path and the checks do with bytes from outside."""
    dialect, route = DIALECTS[name], Route("r", "/", name, ContextSource())
    facts = dialect.read_request(route, data)
    assert facts.body == data
    dialect.request_text(route, data)
    dialect.read_answer(route, data)
    for event in (b"data: " + data + b"\n\n", b"event: error\ndata: " + data + b"\n\n"):
        dialect.watch(route, facts).see(event)
    for stream in (False, True):
        with contextlib.suppress(DataError):
            dialect.extract_text(route, data, data, (), stream)
    if facts.understood:
        dialect.upstream_body(facts, "renamed")


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_string_that_is_not_utf8_stops_nothing(name: str) -> None:
    for body in BODIES:
        for data in broken_strings(body):
            survive(name, data)


@given(
    name=st.sampled_from(sorted(DIALECTS)), body=st.sampled_from(BODIES), at=st.floats(0, 1), length=st.integers(0, 9),
    put=st.binary(max_size=9),
)  # fmt: skip
def test_any_few_bytes_changed_stop_nothing(name: str, body: object, at: float, length: int, put: bytes) -> None:
    whole = json.dumps(body).encode()
    position = int(at * len(whole))
    survive(name, whole[:position] + put + whole[position + length :])
