"""The official OpenAI client works unchanged through the guard: answers, streams, tools, typed events and errors."""

# ruff: noqa: SIM117 - nested blocks read as a picture of what is between whom
from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from guard.ports import Timeouts
from slo.types import Outcome
from tests.faults.path_kit import Running, running, target
from tests.faults.scripted_upstream import (
    Script,
    Seen,
    Upstream,
    chat_stream,
    chunk_event,
    chunked,
    completion,
    http,
    refused_port,
)

openai = pytest.importorskip("openai", reason="needs the Python package openai (extra dev)")

pytestmark = pytest.mark.anyio

ASKED = [{"role": "user", "content": "\u7279\u4f11\u6709\u5e7e\u5929\uff1f"}]
STREAM = chat_stream(["Seven ", "days, ", "\u4e03\u5929\u3002"] * 6)


@asynccontextmanager
async def client_of(
    answer: Callable[[Seen], Script], **more: object
) -> AsyncIterator[tuple[object, Running, Upstream]]:
    async with Upstream(answer) as upstream, running(target(upstream.port), **more) as guard:
        async with openai.AsyncOpenAI(base_url=guard.base_url, api_key="sk-1", max_retries=0, timeout=10) as client:
            yield client, guard, upstream


async def test_a_chat_answer_arrives_with_its_usage():
    async with client_of(lambda _: Script(http(completion("\u4e03\u5929\u3002")))) as (client, guard, upstream):
        answer = await client.chat.completions.create(model="m-1", messages=ASKED)
    assert answer.choices[0].message.content == "\u4e03\u5929\u3002"
    assert answer.usage.total_tokens == 17
    assert upstream.requests[0].header(b"authorization") == b"Bearer sk-1"
    assert guard.sink.exchanges[0].model == "m-1"


@pytest.mark.parametrize("asks_usage", [True, False])
async def test_a_chat_stream_arrives_word_for_word(asks_usage: bool):
    stream = chat_stream(["Seven ", "days, ", "\u4e03\u5929\u3002"], usage=True)
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}
    async with client_of(lambda _: Script(chunked(stream, size=17))) as (client, guard, _):
        chunks = [
            c async for c in await client.chat.completions.create(model="m-1", messages=ASKED, stream=True, **options)
        ]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Seven days, \u4e03\u5929\u3002"
    assert [c.usage.completion_tokens for c in chunks if c.usage] == ([9] if asks_usage else [])
    assert guard.sink.told() == [(Outcome.OK, "")]
    assert guard.sink.exchanges[0].output_tokens == 9


async def test_tool_calls_pass_in_answers_and_in_streams():
    call = {"id": "t1", "type": "function", "function": {"name": "find", "arguments": '{"q": "leave"}'}}
    body = json.loads(completion(""))
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    deltas = [
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call, "function": {"name": "find"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"q": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"leave"}'}}]},
    ]
    stream = b"".join(map(chunk_event, deltas)) + chunk_event({}, "tool_calls") + b"data: [DONE]\n\n"
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]

    def answer(seen: Seen) -> Script:
        return Script(chunked(stream)) if seen.json().get("stream") else Script(http(json.dumps(body).encode()))

    async with client_of(answer) as (client, guard, upstream):
        whole = await client.chat.completions.create(model="m-1", messages=ASKED, tools=tools)
        assert whole.choices[0].message.tool_calls[0].function.arguments == '{"q": "leave"}'
        pieces = ""
        async for chunk in await client.chat.completions.create(model="m-1", messages=ASKED, tools=tools, stream=True):
            for piece in chunk.choices[0].delta.tool_calls or []:
                pieces += piece.function.arguments or ""
    assert pieces == '{"q": "leave"}'
    assert upstream.requests[0].json()["tools"] == tools
    assert [e.outcome for e in guard.sink.exchanges] == [Outcome.OK] * 2
    assert guard.sink.exchanges[1].first_token_s is not None


RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "m-1", "status": "completed", "error": None,
    "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0,
    "tool_choice": "auto", "tools": [], "top_p": 1.0,
    "output": [{
        "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Seven days.", "annotations": []}],
    }],
    "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10,
              "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
}  # fmt: skip


def typed_event(kind: str, number: int, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (
        kind.encode(), json.dumps({"type": kind, "sequence_number": number, **fields}).encode(),
    )  # fmt: skip


def response_stream(*, whole: bool) -> bytes:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events = [typed_event("response.created", 0, response={**RESPONSE, "status": "in_progress", "output": []})]
    events += [
        typed_event("response.output_text.delta", n + 1, delta=w, **place) for n, w in enumerate(["Seven ", "days."])
    ]
    return b"".join(events) + (typed_event("response.completed", 3, response=RESPONSE) if whole else b"")


async def test_the_responses_api_works_whole_and_streamed():
    def answer(seen: Seen) -> Script:
        if seen.json().get("stream"):
            return Script(chunked(response_stream(whole=True), size=40))
        return Script(http(json.dumps(RESPONSE).encode()))

    async with client_of(answer) as (client, guard, _):
        whole = await client.responses.create(model="m-1", input="How many days?")
        stream = await client.responses.create(model="m-1", input="How many days?", stream=True)
        kinds = [event.type async for event in stream]
    assert whole.output_text == "Seven days."
    assert kinds == ["response.created", *["response.output_text.delta"] * 2, "response.completed"]
    for exchange in guard.sink.exchanges:
        assert (exchange.route, exchange.outcome) == ("responses", Outcome.OK)
        assert (exchange.usage, exchange.input_tokens, exchange.output_tokens) == ("reported", 7, 3)


@pytest.mark.parametrize("how", ["cut", "no_end", "stall"])
async def test_a_broken_responses_stream_raises(how: str):
    response = chunked(response_stream(whole=how != "no_end"), size=50)
    at = len(response) - 300
    script = {
        "cut": Script(response, cut_at=at), "stall": Script(response, stall_at=at), "no_end": Script(response),
    }[how]  # fmt: skip
    async with client_of(lambda _: script, timeouts=Timeouts(idle_s=0.15, drain_s=0.2)) as (client, guard, _):
        with pytest.raises(openai.APIError):
            async for _event in await client.responses.create(model="m-1", input="?", stream=True):
                pass
    assert guard.sink.exchanges[0].outcome is Outcome.INCOMPLETE


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", openai.BadRequestError),
        ("401 Unauthorized", openai.AuthenticationError),
        ("404 Not Found", openai.NotFoundError),
        ("429 Too Many Requests", openai.RateLimitError),
        ("500 Internal Server Error", openai.InternalServerError),
        ("503 Service Unavailable", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_errors_of_the_upstream_raise_what_they_raise_without_a_guard(status: str, error: type, stream: bool):
    body = b'{"error":{"message":"from upstream","type":"t","param":null,"code":"c"}}'
    async with client_of(lambda _: Script(http(body, status=status))) as (client, _, _):
        with pytest.raises(error, match="from upstream") as raised:
            await client.chat.completions.create(model="m-1", messages=ASKED, stream=stream)
    assert raised.value.code == "c"


async def test_errors_of_the_guard_raise_with_their_type():
    async with running(target(refused_port())) as guard:
        async with openai.AsyncOpenAI(base_url=guard.base_url, api_key="k", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError) as raised:
                await client.chat.completions.create(model="m-1", messages=ASKED)
    assert raised.value.type == "upstream_connect"
    assert raised.value.status_code == 502


async def test_every_cut_of_a_stream_raises_in_the_client():
    response = chunked(STREAM, size=90)
    end = response.index(b"data: [DONE]")
    offsets = iter(range(response.index(b"\r\n\r\n") + 5, end, 67))
    cuts = len(range(response.index(b"\r\n\r\n") + 5, end, 67))
    async with client_of(lambda _: Script(response, cut_at=next(offsets))) as (client, guard, _):
        for _ in range(cuts):
            with pytest.raises(openai.APIError):
                async for _chunk in await client.chat.completions.create(model="m-1", messages=ASKED, stream=True):
                    pass
    assert set(guard.sink.told()) == {(Outcome.INCOMPLETE, "upstream_cut")}


async def test_a_stalled_stream_and_an_error_inside_a_stream_raise_in_the_client():
    inband = chat_stream(["a"], done=False) + b'data: {"error":{"message":"gpu lost"}}\n\n'
    scripts = iter([Script(chunked(STREAM), stall_at=900), Script(chunked(inband))])
    async with client_of(lambda _: next(scripts), timeouts=Timeouts(idle_s=0.15, drain_s=0.2)) as (client, guard, _):
        for message in ("stopped in the middle", "gpu lost"):
            with pytest.raises(openai.APIError, match=message):
                async for _chunk in await client.chat.completions.create(model="m-1", messages=ASKED, stream=True):
                    pass
    assert guard.sink.told() == [(Outcome.INCOMPLETE, "upstream_stalled"), (Outcome.SERVER_ERROR, "inband_error")]


async def test_leaving_a_stream_early_cancels_it():
    stream = chat_stream(["a"] * 50)
    script = Script(chunked(stream), drip_bytes=500, pause_s=0.02)
    async with client_of(lambda _: script) as (client, guard, _):
        async with await client.chat.completions.create(model="m-1", messages=ASKED, stream=True) as chunks:
            async for _chunk in chunks:
                break
        exchange = await guard.sink.arrived()
    assert exchange.outcome is Outcome.CANCELLED
