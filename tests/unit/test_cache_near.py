"""The parts of the semantic cache: the question of a request, the index in the worker, two answers compared."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from guard.cache.near_compare import compare
from guard.cache.near_frames import (
    Add,
    Answer,
    Compare,
    Compared,
    Find,
    Loaded,
    Remove,
    Setup,
    decode_from_worker,
    encode,
)
from guard.cache.question import question_of
from guard.cache.types import CacheRequest, Namespace, key_in
from guard.ports import ContextSource, Route

np = pytest.importorskip("numpy", reason="needs the extra `embeddings`")
from guard.cache.near_index import FAR, NearIndex  # noqa: E402 - numpy first
from guard.cache.near_worker import NearWorker  # noqa: E402

CHAT = Route("chat", "/v1/chat/completions", "openai-chat")
ZH, ZH_SAME, ZH_OTHER = "特休假一年有多少天可以請?", "請問特休假一年有多少天可以請", "病假一年有多少天可以請?"
EN, EN_SAME, EN_OTHER = "How do I reset my password?", "how can I reset my password", "How do I reset my PIN?"


class OneDirection:
    """An embedder to which every text is the same: whatever is refused now, the gate refuses."""

    name, dim, fingerprint = "one-direction", 2, "x"

    def embed(self, texts: Any) -> Any:
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        return True


def request(body: Any, route: Route = CHAT, **space: Any) -> CacheRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    namespace = Namespace(**{"release": "r1", "epoch": 1, "tenant": "t:a", "route": route.name, **space})
    return CacheRequest(key_in(namespace, bytes(32)), route, route.path.encode(), raw, False)


def chat(question: str, *earlier: tuple[str, str], **more: Any) -> dict[str, Any]:
    turns = [{"role": role, "content": text} for role, text in (*earlier, ("user", question))]
    return {"model": "m", "temperature": 0, "messages": turns, **more}


def test_only_the_last_user_message_may_differ():
    base = question_of(request(chat("a?", ("system", "be brief"))))
    assert base is not None
    assert base.text == "a?"
    assert question_of(request(chat("b?", ("system", "be brief")))).space == base.space
    for other in (
        chat("a?", ("system", "be long")), chat("a?"), chat("a?", ("system", "be brief"), max_tokens=5),
        chat("a?", ("system", "be brief"), ("user", "hello"), ("assistant", "hi")),
    ):  # fmt: skip
        assert question_of(request(other)).space != base.space
    for space in ({"release": "r2"}, {"epoch": 2}, {"tenant": "t:b"}, {"mark": "x"}):
        assert question_of(request(chat("a?", ("system", "be brief")), **space)).space != base.space


def test_retrieved_contexts_belong_to_the_rest_and_not_to_the_question():
    route = Route("chat", "/c", "openai-chat", ContextSource(prompt_start="<ctx>", prompt_end="</ctx>"))
    one = question_of(request(chat("<ctx>14 days</ctx> How many?"), route))
    same = question_of(request(chat("<ctx>14 days</ctx> How much?"), route))
    other = question_of(request(chat("<ctx>7 days</ctx> How many?"), route))
    assert (one.text, same.text) == ("How many?", "How much?")
    assert one.space == same.space != other.space


@pytest.mark.parametrize(
    ("route", "body", "text"),
    [
        (Route("ask", "/ask", "json"), {"question": "a?", "k": 3}, "a?"),
        (Route("ask", "/ask", "json", question_path="in.q"), {"in": {"q": "a?"}}, "a?"),
        (Route("r", "/r", "openai-responses"), {"input": "a?"}, "a?"),
        (Route("r", "/r", "openai-responses"), {"input": [{"role": "user", "content": "a?"}]}, "a?"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a?"}]}]}, "a?"),
        (CHAT, {"messages": [{"role": "assistant", "content": "a?"}]}, None),
        (CHAT, {"messages": []}, None),
        (CHAT, {"messages": [{"role": "user", "content": " "}]}, None),
        (CHAT, b"[]", None),
        (CHAT, b"nonsense", None),
    ],
)
def test_every_dialect_says_where_its_question_is(route, body, text):
    found = question_of(request(body, route))
    assert (found.text if found is not None else None) == text


def test_chinese_is_found_by_its_wording_and_english_needs_an_embedder():
    index = NearIndex(10, None)
    assert index.add(b"s", b"1", ZH) is None
    assert index.add(b"s", b"2", EN) == "language"
    assert index.find(b"s", ZH_SAME, 0.8).digest == b"1"
    assert index.find(b"s", EN, 0.8).refusal == FAR
    assert index.find(b"other", ZH_SAME, 0.8).refusal == FAR
    assert index.find(b"s", ZH_OTHER, 0.5).refusal == "words"
    index.use(OneDirection())
    assert index.add(b"s", b"2", EN) is None
    assert index.find(b"s", EN_SAME, 0.92).digest == b"2"
    assert index.find(b"s", EN_OTHER, 0.92).refusal == "name"  # cosine 1.0, and still refused
    assert index.find(b"s", "x" * 2000, 0.92).refusal == "length"


def test_the_index_is_bounded_and_forgets_what_it_is_told_to():
    index = NearIndex(3, OneDirection())
    names = ("alpha", "beta", "gamma", "delta", "epsilon")
    for number, name in enumerate(names):
        index.add(b"s", bytes([number]), f"How do I export {name} files?")
    assert len(index) == 3
    assert index.find(b"s", "How do I export alpha files?", 0.9).digest == b""
    assert index.find(b"s", "how to export delta files", 0.9).digest == bytes([3])
    index.remove(b"s", bytes([3]))
    index.remove(b"s", bytes([9]))
    assert index.find(b"s", "how to export delta files", 0.9).digest == b""
    assert index.find(b"s", "how to export epsilon files", 0.9).digest == bytes([4])
    for number in (2, 4):
        index.remove(b"s", bytes([number]))
    assert len(index) == 0
    assert index.find(b"s", "how to export epsilon files", 0.9).refusal == FAR


@pytest.mark.parametrize(
    ("served", "fresh", "same"),
    [
        ("You have 14 days.", "You have 14 days.", True),
        ("Annual leave is 14 days per year.", "You get 14 days of annual leave per year.", True),
        ("You have 14 days.", "You have 7 days.", False),
        ("See form HR-204 for leave.", "See form HR-210 for leave.", False),
        ("特休一年有14天。", "特休一年有7天。", False),
        ("特休一年有14天。", "一年的特休有14天。", True),
        ("Leave is granted by the manager.", "The printer is on the second floor.", False),
        ("", "You have 7 days.", None),
    ],
)
def test_two_answers_say_the_same_or_not(served, fresh, same):
    assert compare(served, fresh, None)[0] is same
    assert compare(fresh, served, None)[0] is same


def test_the_worker_answers_messages_and_outlives_odd_ones():
    worker = NearWorker(None)
    assert worker.take(encode(Setup("none", 100))) == Loaded("", "hashed-ngram")
    assert worker.take(encode(Add(b"s", b"1", ZH))) is None
    worker._add(worker._adding.popleft())
    found = worker.take(encode(Find(7, b"s", ZH_SAME, 0.8)))
    assert isinstance(found, Answer)
    assert (found.job_id, found.digest, found.refusal, found.script) == (7, b"1", "", "han")
    assert worker.take(encode(Compare(8, "14 days", "7 days"))) == Compared(8, False, pytest.approx(0, abs=1))
    assert worker.take(encode(Find(9, b"s", "\x00\ud7ff" * 50, 0.8))).digest == b""
    worker.take(encode(Remove(b"s", b"1")))
    assert worker.take(encode(Find(10, b"s", ZH_SAME, 0.8))).digest == b""
    assert decode_from_worker(encode(found)) == found
    with pytest.raises(msgspec.DecodeError):
        worker.take(b"nonsense")
