"""Each dialect: what it reads of a request, asks for, sees in a stream, and takes out as words."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.ports import ContextSource, ExchangeText, Reason, Route
from guard.wire.dialect import RequestFacts
from guard.wire.dialects import DIALECTS
from guard.wire.tokens import estimate_tokens
from guard.wire.unpack import unpack
from slo.errors import DataError

CHAT, RESPONSES, ASK = DIALECTS["openai-chat"], DIALECTS["openai-responses"], DIALECTS["json"]


def route(adapter: str = "openai-chat", **contexts: str) -> Route:
    return Route("r", "/", adapter, ContextSource(**contexts))


def sse(*events: object) -> bytes:
    return (
        b"".join(b"data: " + json.dumps(e, ensure_ascii=False).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"
    )


def delta(text: str, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


QUESTION = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "\u5e7e\u5929\uff1f"}]}
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "\u4e03\u5929\u3002"}}]}


def words(
    adapter: str, request: object, response: bytes, *, stream: bool = False, headers: object = (), **ctx: str
) -> ExchangeText:
    asked = json.dumps(request, ensure_ascii=False).encode()
    return DIALECTS[adapter].extract_text(route(adapter, **ctx), asked, response, tuple(headers), stream)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m","stream":true}', b'{"stream_options":{"include_usage":true},"model":"m","stream":true}'),
        (b' \n{ "stream":true,"t":1.50}', b' \n{"stream_options":{"include_usage":true}, "stream":true,"t":1.50}'),
        (
            b'{"stream":true,"stream_options":{"include_usage":false,"x":1},"t":1.50}',
            b'{"stream":true,"stream_options":{"include_usage":true,"x":1},"t":1.50}',
        ),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
    ],
)
def test_usage_is_asked_for_without_touching_anything_else(body: bytes, sent: bytes):
    facts = CHAT.read_request(route(), body)
    assert facts.asks_usage
    assert CHAT.upstream_body(facts, "") == sent


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b'{"stream":false}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b"not json",
        b'["stream"]',
        b"",
        b'{"model":' + b"[" * 100_000,
    ],
)
def test_everything_else_is_passed_on_byte_for_byte(body: bytes):
    for dialect in DIALECTS.values():
        facts = dialect.read_request(route(), body)
        assert dialect.upstream_body(facts, "") == body
        if not facts.understood:
            assert dialect.upstream_body(facts, "other") == body


def test_requests_are_read_for_model_stream_and_user():
    body = b'{"model":"m","stream":true,"user":"anna","safety_identifier":"sid"}'
    for dialect, user in ((CHAT, "anna"), (RESPONSES, "sid"), (ASK, "anna")):
        facts = dialect.read_request(route(), body)
        assert (facts.model, facts.stream, facts.user) == ("m", True, user)
        assert json.loads(dialect.upstream_body(facts, "m2"))["model"] == "m2"
    odd = CHAT.read_request(route(), b'{"model":7,"stream":"yes","user":{}}')
    assert (odd.model, odd.stream, odd.user) == ("", False, "")


def watched(adapter: str, *raws: bytes) -> object:
    dialect = DIALECTS[adapter]
    watcher = dialect.watch(route(adapter), dialect.read_request(route(), b'{"stream":true}'))
    for raw in raws:
        watcher.see(raw)
    return watcher


def event(data: object, name: str = "") -> bytes:
    prefix = f"event: {name}\n".encode() if name else b""
    return prefix + b"data: " + json.dumps(data).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        (event(delta("")), False),
        (event({"choices": [{"delta": {"role": "assistant"}}]}), False),
        (event({"choices": [{"delta": {"reasoning_content": "hm"}}]}), False),
        (event({"choices": [{"delta": {}, "finish_reason": "stop"}]}), False),
        (b": ping\n\n", False),
        (event(delta("a")), True),
        (event({"choices": [{"delta": {"refusal": "no"}}]}), True),
        (event({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}), True),
        (event({"choices": [{"text": "a"}]}), True),
    ],
)
def test_content_is_words_and_calls_not_roles_and_reasoning(raw: bytes, content: bool):
    watcher = watched("openai-chat", raw)
    assert watcher.has_content is content
    assert not watcher.complete
    assert watcher.reason is Reason.NONE


@pytest.mark.parametrize(
    ("adapter", "raw", "complete", "reason"),
    [
        ("openai-chat", b"data: [DONE]\n\n", True, Reason.NONE),
        ("openai-chat", b"data:[DONE]\r\n\r\n", True, Reason.NONE),
        ("openai-chat", event({"error": {"message": "x"}}), False, Reason.INBAND_ERROR),
        ("openai-chat", event({"message": "x"}, "error"), False, Reason.INBAND_ERROR),
        ("openai-chat", b"data: {oops\n\n", False, Reason.MALFORMED),
        ("openai-chat", b'data: {"choices":7}\n\n', False, Reason.MALFORMED),
        ("openai-responses", event({"type": "response.completed", "response": {}}), True, Reason.NONE),
        ("openai-responses", event({"type": "response.incomplete", "response": {}}), True, Reason.NONE),
        ("openai-responses", event({"type": "response.failed", "response": {}}), False, Reason.INBAND_ERROR),
        ("openai-responses", event({"type": "error", "message": "x"}), False, Reason.INBAND_ERROR),
        ("openai-responses", b"data: [DONE]\n\n", False, Reason.NONE),
        ("openai-responses", event({"type": "response.reasoning_text.delta", "delta": "x"}), False, Reason.NONE),
        ("json", event({"error": "x"}), False, Reason.INBAND_ERROR),
        ("json", b"data: {oops\n\n", False, Reason.MALFORMED),
    ],
)
def test_ends_and_errors_are_told_apart(adapter: str, raw: bytes, complete: bool, reason: Reason):
    watcher = watched(adapter, raw)
    assert (watcher.complete, watcher.reason, watcher.has_content) == (complete, reason, False)


def test_usage_is_read_where_each_dialect_has_it():
    chat = watched("openai-chat", event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}))
    done = {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}
    asked = watched("json", event({"answer": "a", "usage": {"input_tokens": 3, "output_tokens": 4}}))
    for watcher in (chat, watched("openai-responses", event(done)), asked):
        assert (watcher.input_tokens, watcher.output_tokens) == (3, 4)
    odd = watched("openai-chat", event({"choices": [], "usage": {"prompt_tokens": -3, "completion_tokens": "4"}}))
    assert (odd.input_tokens, odd.output_tokens) == (None, None)


@pytest.mark.parametrize(
    ("adapter", "body", "reason"),
    [
        ("openai-responses", b'{"output":[],"status":"completed"}', Reason.NONE),
        ("openai-responses", b'{"output":[],"status":"failed"}', Reason.INBAND_ERROR),
        ("openai-responses", b'{"error":{"message":"x"}}', Reason.INBAND_ERROR),
        ("openai-responses", b"{}", Reason.MALFORMED),
        ("json", b'{"answer":"a"}', Reason.NONE),
        ("json", b'{"answer":""}', Reason.NONE),
        ("json", b'{"error":"x"}', Reason.INBAND_ERROR),
        ("json", b'{"contexts":[]}', Reason.MALFORMED),
        ("json", b"[]", Reason.MALFORMED),
        ("passthrough", b"anything", Reason.NONE),
    ],
)
def test_whole_answers_are_judged_by_what_the_dialect_promises(adapter: str, body: bytes, reason: Reason):
    assert DIALECTS[adapter].read_answer(route(adapter), body).reason is reason


def test_the_words_of_a_chat_are_the_last_question_and_the_first_choice():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    request = {"messages": [{"role": "user", "content": "old"}, {"role": "user", "content": parts}, {"role": "tool"}]}
    assert words("openai-chat", request, json.dumps(ANSWER).encode()) == ExchangeText(
        "a\nb", "\u4e03\u5929\u3002", None
    )
    stream = sse(
        delta(""), delta("\u4e03"), {"choices": [{"index": 1, "delta": {"content": "X"}}]}, delta("\u5929\u3002")
    )
    text = words("openai-chat", QUESTION, stream, stream=True)
    assert (text.question, text.answer) == ("\u5e7e\u5929\uff1f", "\u4e03\u5929\u3002")


def test_contexts_come_from_the_body_of_an_answer_or_of_any_event():
    guard = {"contexts": ["one", {"text": "two", "score": 1}, 7], "retrieval_s": 0.25}
    where = {"body_path": "guard.contexts", "retrieval_s_path": "guard.retrieval_s"}
    whole = words("openai-chat", QUESTION, json.dumps({**ANSWER, "guard": guard}).encode(), **where)
    assert (whole.contexts, whole.retrieval_s) == (("one", "two"), 0.25)
    for stream in (sse(delta("a", guard=guard), delta("b")), sse(delta("a"), {"choices": [], "guard": guard})):
        text = words("openai-chat", QUESTION, stream, stream=True, **where)
        assert (text.contexts, text.retrieval_s) == (("one", "two"), 0.25)


@pytest.mark.parametrize(
    ("contexts", "read"),
    [
        ([], ()),
        ("", ()),
        ("one text", ("one text",)),
        (None, None),
        (7, None),
        ([7, {}], None),
        ([{"chunk": {"body": "deep"}}], ("deep",)),
    ],
)
def test_no_context_is_a_zero_hit_and_an_unreadable_one_is_unknown(contexts: object, read: tuple[str, ...] | None):
    body = json.dumps({"answer": "a", "contexts": contexts}).encode()
    text = words("json", {"question": "q"}, body, body_path="contexts", text_field="chunk.body")
    assert (text.question, text.answer, text.contexts) == ("q", "a", read)


@pytest.mark.parametrize(
    ("headers", "read"),
    [
        ([(b"x-contexts", '["\u4e03\u5929"]'.encode())], ("\u4e03\u5929",)),
        ([(b"x-contexts", b"[]")], ()),
        ([(b"x-contexts", b"[")], None),
        ([], None),
    ],
)
def test_contexts_may_be_in_a_header(headers: object, read: tuple[str, ...] | None):
    body = json.dumps(ANSWER).encode()
    assert words("openai-chat", QUESTION, body, headers=headers, header="X-Contexts").contexts == read


@pytest.mark.parametrize(
    ("prompt", "question", "read"),
    [
        ("Use:\n<ctx>one\n\ntwo</ctx>\nHow?", "Use:\n\nHow?", ("one", "two")),
        ("<ctx></ctx>How?", "How?", ()),
        ("How?", "How?", None),
        ("<ctx>one", "<ctx>one", None),
    ],
)
def test_contexts_may_be_a_delimited_part_of_the_prompt(prompt: str, question: str, read: tuple[str, ...] | None):
    request = {"messages": [{"role": "user", "content": prompt}]}
    text = words("openai-chat", request, json.dumps(ANSWER).encode(), prompt_start="<ctx>", prompt_end="</ctx>")
    assert (text.question, text.contexts) == (question, read)


def test_the_words_of_typed_events_and_of_other_bots():
    item = {"type": "message", "content": [{"type": "output_text", "text": "Seven."}]}
    whole = json.dumps({"output": [{"type": "reasoning", "content": "no"}, item]}).encode()
    request = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "How?"}]}]}
    assert words("openai-responses", request, whole) == ExchangeText("How?", "Seven.", None)
    stream = sse(
        {"type": "response.output_text.delta", "delta": "Sev"}, {"type": "response.output_text.delta", "delta": "en."}
    )
    assert words("openai-responses", {"input": "How?"}, stream, stream=True) == ExchangeText("How?", "Seven.", None)
    assert words("passthrough", {}, b"\xff") == ExchangeText("", "", None)


def test_compressed_answers_are_read_within_caps():
    body = json.dumps(ANSWER).encode()
    for coding, packed in ((b"gzip", gzip.compress(body)), (b"deflate", zlib.compress(body))):
        assert (
            words("openai-chat", QUESTION, packed, headers=[(b"content-encoding", coding)]).answer
            == "\u4e03\u5929\u3002"
        )
    raw = zlib.compressobj(wbits=-15)
    assert unpack(raw.compress(body) + raw.flush(), "deflate") == body
    assert unpack(gzip.compress(b"a") * 16, "GZIP ") == b"a" * 16
    assert unpack(gzip.compress(b"abc" * 100)[:-9], "gzip", partial=True)


@pytest.mark.parametrize(
    ("packed", "coding", "why"),
    [
        (gzip.compress(b"\0" * 30_000_000), "gzip", "the cap is hit"),
        (zlib.compress(b"\0" * 11_000_000), "deflate", "the cap is hit"),
        (gzip.compress(b"") * 17, "gzip", "more than 16 compressed members"),
        (gzip.compress(b"abc")[:-4], "gzip", "ends early"),
        (b"not gzip", "gzip", "damaged gzip data"),
        (b"x", "br", "content coding 'br' is not read"),
    ],
    ids=["zeros", "deflated zeros", "many members", "short", "no gzip", "brotli"],  # gzip carries the time
)
def test_bombs_and_damage_are_undecodable(packed: bytes, coding: str, why: str):
    with pytest.raises(DataError, match=f"undecodable: .*{why}|undecodable: {why}"):
        unpack(packed, coding)


def test_an_answer_that_is_no_json_cannot_be_read():
    with pytest.raises(DataError, match="answer of 4 bytes: not JSON"):
        words("openai-chat", QUESTION, b"oops")


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans(), st.sampled_from(sorted(DIALECTS)))
def test_hostile_bytes_give_words_or_a_data_error(request: bytes, response: bytes, stream: bool, adapter: str):
    where = route(adapter, body_path="a.0.b", retrieval_s_path="c")
    try:
        text = DIALECTS[adapter].extract_text(where, request, response, (), stream)
    except DataError:
        return
    assert isinstance(text.question + text.answer, str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "message", "content", "messages", "role", "input", "output", "text",
                         "usage", "error", "type", "response", "stream_options", "stream", "model", "user", "answer"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON, JSON, st.sampled_from(sorted(DIALECTS)))
def test_json_of_any_shape_breaks_nothing(request: object, response: object, adapter: str):
    dialect, where = DIALECTS[adapter], route(adapter, body_path="content")
    asked, answered = json.dumps(request).encode(), json.dumps(response).encode()
    facts = dialect.read_request(where, asked)
    dialect.upstream_body(facts, "m2")
    dialect.request_text(where, asked)
    dialect.read_answer(where, answered)
    dialect.watch(where, facts).see(b"data: " + answered + b"\n\n")
    dialect.extract_text(where, asked, sse(response), (), True)
    if response is not None:
        dialect.extract_text(where, asked, answered, (), False)


def test_error_frames_carry_their_reason():
    for dialect in (CHAT, RESPONSES, ASK):
        frame = dialect.error_frame(Reason.UPSTREAM_STALLED)
        assert frame.endswith(b"\n\n")
        assert b'"upstream_stalled"' in frame
    assert DIALECTS["passthrough"].error_frame(Reason.UPSTREAM_CUT) == b""


def test_token_estimates_know_two_scripts():
    assert estimate_tokens("a" * 400) == 100
    assert estimate_tokens("\u4e03" * 30) == 20
    assert estimate_tokens("\u4e03" * 3 + "a" * 4) == 3
    assert estimate_tokens("") == 0


@pytest.mark.parametrize(
    ("said", "cost_usd"),
    [(0.0125, 0.0125), (0, 0.0), (-1.0, None), (1e9, None), (True, None), ("0.1", None), (None, None)],
)
def test_a_cost_that_the_answer_reports_is_read_and_nonsense_is_not(said: object, cost_usd: float | None) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "cost_usd": said}
    body = json.dumps({"choices": [], "answer": "a", "usage": usage}).encode()
    event = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    for name in ("openai-chat", "json"):
        route = Route("r", "/r", name)
        assert DIALECTS[name].read_answer(route, body).cost_usd == cost_usd
        watcher = DIALECTS[name].watch(route, RequestFacts(b"{}"))
        watcher.see(event)
        assert watcher.cost_usd == cost_usd
