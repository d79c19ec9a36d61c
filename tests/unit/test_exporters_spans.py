"""An exchange as GenAI spans: names, ids, sampling, and that nobody's words are in them unless asked for."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.spans import EVALUATION, spans_of
from exporters.trace_ids import is_sampled, onward, trace_ids
from slo.types import CheckResult, Exchange, Finding, Outcome, Version

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-2] + "00"
EXCHANGE = Exchange(
    exchange_id="e1", wall_s=1_750_000_000.0, route="chat", release="r1", arm="stable", outcome=Outcome.OK, status=200,
    duration_s=2.0, first_token_s=0.5, model="gpt-4o-mini", session="5e55", input_tokens=950, output_tokens=250,
    usage="reported", cost_usd=0.0003, traceparent=PARENT,
    findings=(Finding("grounding", CheckResult.PASS, 0.93), Finding("pii", CheckResult.SKIPPED)),
)  # fmt: skip
VERSION = Version("v1", model="gpt-4o-mini", kb="faq@7")
WORDS = {"question": "Q?", "answer": "A.", "response_model": "gpt-4o-mini-2024-07-18", "finish_reasons": ["stop"],
         "retrieval_s": 0.2}  # fmt: skip


def test_a_chat_span_carries_the_names_of_the_conventions_and_no_words() -> None:
    chat, retrieval = spans_of(EXCHANGE, VERSION, WORDS, ratio=0.0, provider="openai")
    assert (chat.name, chat.kind, chat.error) == ("chat gpt-4o-mini", "client", "")
    assert (chat.trace_id, chat.parent_id) == (PARENT[3:35], PARENT[36:52])
    assert (chat.start_ns, chat.end_ns) == (1_750_000_000 * 10**9, 1_750_000_002 * 10**9)
    wanted = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18", "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 950, "gen_ai.usage.output_tokens": 250, "gen_ai.conversation.id": "5e55",
    }  # fmt: skip
    assert {name: chat.attributes[name] for name in wanted} == wanted
    assert not any(value in ("Q?", "A.") for value in chat.attributes.values())
    deprecated = ("gen_ai.system", "gen_ai.prompt", "gen_ai.completion", "gen_ai.usage.prompt_tokens")
    assert not any(name.startswith(deprecated) for name in chat.attributes)

    assert (retrieval.name, retrieval.kind) == ("retrieval faq@7", "internal")
    assert (retrieval.trace_id, retrieval.parent_id) == (chat.trace_id, chat.span_id)
    assert retrieval.end_ns - retrieval.start_ns == 200_000_000
    assert retrieval.attributes == {"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": "faq@7"}


def test_every_check_is_an_evaluation_event() -> None:
    (chat,) = spans_of(EXCHANGE, None, None, ratio=0.0, provider="openai")
    assert [event.name for event in chat.events] == [EVALUATION] * 2
    assert chat.events[0].attributes == {
        "gen_ai.evaluation.name": "grounding",
        "gen_ai.evaluation.score.label": "pass",
        "gen_ai.evaluation.score.value": 0.93,
    }
    assert "gen_ai.evaluation.score.value" not in chat.events[1].attributes  # nothing was scored: absent, not 0


def test_words_only_when_asked_for() -> None:
    chat, _ = spans_of(EXCHANGE, VERSION, WORDS, ratio=0.0, provider="openai", content=True)
    assert (chat.attributes["sft.question"], chat.attributes["sft.answer"]) == ("Q?", "A.")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_failures_are_always_sampled_and_say_why(outcome: Outcome) -> None:
    exchange = dataclasses.replace(
        EXCHANGE, outcome=outcome, reason="idle" if outcome is Outcome.INCOMPLETE else "", traceparent=UNSAMPLED
    )
    spans = spans_of(exchange, None, None, ratio=0.0, provider="openai")
    if outcome in (Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.INCOMPLETE):
        (chat,) = spans
        assert chat.error == chat.attributes["error.type"] == ("idle" if exchange.reason else outcome.value)
    else:
        assert spans == ()


def test_a_failed_check_is_always_sampled_and_quotes_only_when_asked_for() -> None:
    finding = Finding("grounding", CheckResult.FAIL, 0.1, "number: the answer says 14 days", ("It is 14 days.",))
    exchange = dataclasses.replace(EXCHANGE, findings=(finding,), traceparent=UNSAMPLED)
    (chat,) = spans_of(exchange, None, None, ratio=0.0, provider="openai")
    assert chat.events[0].attributes["gen_ai.evaluation.explanation"] == "number"
    (chat,) = spans_of(exchange, None, None, ratio=0.0, provider="openai", content=True)
    assert chat.events[0].attributes["gen_ai.evaluation.explanation"] == "number: the answer says 14 days"


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (PARENT, True), (PARENT + "-more", False), ("cc" + PARENT[2:] + "-more", True), ("ff" + PARENT[2:], False),
        ("00-" + "0" * 32 + PARENT[35:], False), (PARENT[:36] + "0" * 16 + "-01", False), (PARENT.upper(), False),
        ("", False), ("00-xyz", False), (PARENT + "\n", False),
    ],
)  # fmt: skip
def test_a_traceparent_that_is_not_valid_begins_a_trace_of_its_own(text: str, valid: bool) -> None:
    ids = trace_ids("e1", text)
    assert (ids.parent_id != "") is valid
    assert (ids.trace_id == PARENT[3:35]) is valid


@given(st.text(max_size=30), st.text(max_size=110), st.floats(0, 1))
def test_what_goes_to_the_upstream_is_valid_and_names_our_span(exchange_id: str, sent: str, ratio: float) -> None:
    text = onward(exchange_id, sent, ratio)
    ids, there = trace_ids(exchange_id, sent), trace_ids("another", text)
    assert (there.trace_id, there.parent_id) == (ids.trace_id, ids.span_id)
    assert there.sampled is is_sampled(ids, ratio)


def test_the_share_of_traces_that_are_kept() -> None:
    kept = sum(is_sampled(trace_ids(str(n)), 0.1) for n in range(5000))
    assert 400 < kept < 600  # 500 +- 4.7 standard deviations
