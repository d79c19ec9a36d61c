"""A large request without its long texts says the same to the data path as the whole of it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.ports import Route
from guard.wire.openai_chat import OpenAIChat
from guard.wire.outline import CUT, LARGE_BYTES, outline

ROUTE = Route("chat", "/v1/chat/completions", "openai-chat")
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["\\", '"', '\\"', "\\\\", "\n", "\u8acb", CUT]).flatmap(
        lambda part: st.integers(1, 3000).map(lambda count: (part + "a") * count)
    ),
    st.integers(4000, 20_000).map("b".__mul__),
)
requests = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=4)},
    optional={
        "model": texts,
        "user": texts,
        "stream": st.booleans(),
        "stream_options": st.dictionaries(texts, texts, max_size=2),
        "n": st.integers(),
    },
)


def whole(body: bytes) -> object:
    """What a reader of every byte finds."""
    try:
        request = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    options = request.get("stream_options", msgspec.UNSET)
    return request.get("model", ""), request.get("user", ""), request.get("stream", False), options


@settings(max_examples=150)
@given(requests, st.booleans(), st.booleans())
def test_what_is_read_is_what_the_whole_says(request: dict[str, object], ascii_only: bool, reverse: bool) -> None:
    items = list(request.items())
    body = json.dumps(dict(reversed(items) if reverse else items), ensure_ascii=ascii_only).encode()
    facts = OpenAIChat().read_request(ROUTE, body)
    assert facts.understood
    assert facts.body is body
    assert (facts.model, facts.user, facts.stream, facts.stream_options) == whole(body)
    small = json.loads(outline(body))
    assert small.keys() == request.keys()
    if len(body) < LARGE_BYTES:
        assert outline(body) is body


def test_the_long_text_is_left_out_and_cut_bodies_are_not_understood() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": 'say "x" ' * 20_000}]}).encode()
    plain = json.dumps({"model": "m", "messages": [{"role": "user", "content": "say x " * 30_000}]}).encode()
    assert outline(body) is body  # a quotation mark every four bytes: reading is cheaper
    assert len(outline(plain)) < 100
    assert not OpenAIChat().read_request(ROUTE, plain[:-40]).understood
    assert not OpenAIChat().read_request(ROUTE, plain[:-2]).understood


@pytest.mark.parametrize("filling", [b"\\", b'"', b'\\"', b'"",', b"\\\\\\"], ids=["b", "q", "bq", "qq", "bbb"])
def test_hostile_bodies_are_given_up_soon(filling: bytes) -> None:
    body = b'{"model":"m","x":"' + filling * (2_000_000 // len(filling))
    assert outline(body) is body
