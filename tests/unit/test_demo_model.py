"""The simulated model: grounded when its prompt holds the fact, else it refuses or speaks from general knowledge."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer

from guard.demo.asked_for import answers_kind
from guard.demo.content import articles, general_policies, holds_fact, holds_facts, questions
from guard.demo.ledger import Ledger, truth_of
from guard.demo.model import SimulatedModel, is_refusal
from guard.demo.model_server import create_app
from guard.demo.reading import Reader
from guard.demo.users import Ask
from guard.demo.visitors import Answered, _read, _read_stream
from rag.answer import build_prompt
from rag.text import sentences
from rag.types import Hit

BY_ID = {a.doc_id: a for a in articles()}
ASKED = [q for q in questions() if q.facts]
REMEMBERED = [line for row in general_policies() for line in sentences(row.text)]


def prompt(question: str, *texts: str) -> list[tuple[str, str]]:
    hits = [Hit(f"d{n}", text, 0.9, 0.9) for n, text in enumerate(texts)]
    made = build_prompt(question, hits)
    return [("system", made.system), ("user", made.user)]


def without(text: str, facts: tuple[str, ...]) -> str:
    return " ".join(s for s in sentences(text) if not any(holds_fact(s, fact) for fact in facts))


def shares(model: SimulatedModel, texts) -> tuple[float, float]:
    """Share of questions answered rightly, and share with something invented."""
    right = invented = 0
    for question in ASKED:
        said = model.reply(prompt(question.question, texts(question))).text
        right += holds_facts(said, question.facts)
        invented += any(line in said for line in REMEMBERED)
    return right / len(ASKED), invented / len(ASKED)


def test_with_the_article_in_its_prompt_it_answers_rightly_and_hardly_ever_invents():
    right, invented = shares(SimulatedModel(general_policies(), 1), lambda q: BY_ID[q.doc_id].text)
    assert right >= 0.88
    assert invented <= 0.08


def test_without_the_sentence_that_answers_it_invents_far_more_often_and_is_never_right():
    right, invented = shares(SimulatedModel(general_policies(), 1), lambda q: without(BY_ID[q.doc_id].text, q.facts))
    assert right <= 0.05
    assert 0.3 <= invented <= 0.8


def test_the_same_seed_and_prompt_give_the_same_answer():
    asked = [prompt(q.question, "Nothing of the kind.") for q in ASKED[:40]]
    answers = [SimulatedModel(general_policies(), 1).reply(one) for one in asked]
    assert answers == [SimulatedModel(general_policies(), 1).reply(one) for one in asked]
    assert answers != [SimulatedModel(general_policies(), 2).reply(one) for one in asked]


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
def test_off_topic_questions_are_refused_in_their_own_language(lang):
    model = SimulatedModel(general_policies(), 1)
    off_topic = [q for q in questions() if not q.facts and q.lang == lang]
    said = [model.reply(prompt(q.question, BY_ID["it-vpn-en"].text)).text for q in off_topic]
    assert sum(is_refusal(text) for text in said) >= 0.7 * len(off_topic)
    assert all(text.isascii() == (lang == "en") for text in said if is_refusal(text))


def test_a_sentence_cut_in_the_middle_is_completed_from_general_knowledge():
    article = BY_ID["it-password-en"].text
    cut_off = article[: article.index("the account is locked for 20") + len("the account is locked for 20")]
    said = SimulatedModel(general_policies(), 1).reply(prompt("After 6 wrong attempts is the account locked?", cut_off))
    assert any(line in said.text for line in REMEMBERED)


@pytest.mark.parametrize(
    ("question", "sentence", "expected"),
    [
        ("How many days of leave?", "Leave is 16 days.", True),
        ("How many unused days move on?", "Up to 6 unused days move on.", True),
        ("How many days of leave?", "Leave is paid.", False),
        ("Which form?", "Use form IT-14.", True),
        ("Which form?", "Use the form.", False),
        ("何時要繳？", "每年 3 月。", True),
        ("要幾個工作天？", "需 8 個工作天。", True),
        ("要幾個工作天？", "需要簽核。", False),
        ("要填哪張表？", "請填 IT-40 表單。", True),
        ("多少錢？", "每頁收取 4 元。", True),
        ("Is it allowed?", "Yes.", True),
    ],
)
def test_a_sentence_answers_only_with_the_kind_of_thing_that_was_asked_for(question, sentence, expected):
    assert answers_kind(question, sentence) is expected


def test_a_reader_prefers_the_sentence_with_the_rare_words_and_finds_none_in_nothing():
    reader = Reader(["The office is open."] * 5)
    found = reader.best("When is the sauna open?", ["The office is open at 08:00. The sauna opens at 17:00."])
    assert found is not None
    assert "sauna" in found.sentence
    assert reader.best("When?", []) is None


# -- as a server ------------------------------------------------------------------------------------------------


BODY = {"model": "demo-simulated", "messages": [{"role": "user", "content": "How long is probation?"}]}


@pytest.mark.anyio
async def test_the_server_answers_whole_and_in_a_stream_with_the_same_words_and_usage():
    async with TestClient(TestServer(create_app(1))) as client:
        whole = await (await client.post("/v1/chat/completions", json=BODY)).read()
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = await (await client.post("/v1/chat/completions", json=BODY | options)).read()
    assert _read(whole) == _read_stream(streamed)
    assert streamed.endswith(b"data: [DONE]\n\n")
    assert b'"usage":{"prompt_tokens"' in streamed
    assert b'"usage":{"prompt_tokens"' in whole


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": []}', b'{"messages": [{"role": "system"}]}'])
async def test_the_server_refuses_what_is_no_chat_completion_in_one_line(body):
    async with TestClient(TestServer(create_app(1))) as client:
        response = await client.post("/v1/chat/completions", data=body)
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


@pytest.mark.anyio
async def test_the_official_client_talks_to_it_whole_and_in_a_stream():
    import openai

    async with (
        TestServer(create_app(1)) as server,
        openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="none") as client,
    ):
        answer = await client.chat.completions.create(model="demo-simulated", messages=BODY["messages"])
        stream = await client.chat.completions.create(model="demo-simulated", messages=BODY["messages"], stream=True)
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert said == answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


# -- the demo's own count -----------------------------------------------------------------------------------------


def answered(question, text: str, *, status: int = 200, refused: bool = False, at_s: float = 0.0) -> Answered:
    return Answered(Ask(0.0, "s", "t", question, question.question), "r1", "e", status, text, refused, at_s, at_s)


def test_the_ledger_tells_right_wrong_invented_refused_and_failed_answers_apart():
    question = next(q for q in ASKED if q.question_id == "it-password-en-3")
    off_topic = next(q for q in questions() if not q.facts)
    assert truth_of(answered(question, "The account is locked for 20 minutes.")) == "right"
    assert truth_of(answered(question, "It is changed once every 180 days.")) == "wrong"
    invented = next(p.text for p in general_policies() if p.topic == "it-password" and p.lang == "en")
    assert truth_of(answered(question, f"Sure. {invented}")) == "invented"
    assert truth_of(answered(question, "I am sorry, the documents do not say anything about that.")) == "refused"
    assert truth_of(answered(question, "We do not know.", refused=True)) == "refused"
    assert truth_of(answered(question, "", status=502)) == "failed"
    assert truth_of(answered(off_topic, "Lisbon.")) == "wrong"


def test_the_ledger_counts_per_release_and_remembers_the_first_bad_answer():
    question = next(q for q in ASKED if q.question_id == "it-password-en-3")
    ledger = Ledger()
    ledger.enter(answered(question, "20 minutes", at_s=1.0))
    ledger.enter(answered(question, "180 days", at_s=9.0))
    ledger.enter(answered(question, "90 days", at_s=4.0))
    ledger.enter(answered(question, "", status=0, at_s=5.0))
    assert ledger.first_bad_wall_s("r1") == 4.0
    arm = ledger.arm("r1")
    assert (arm.answers_count, arm.right_count, arm.wrong_count, arm.failed_count) == (3, 1, 2, 1)
    assert arm.bad_ratio == pytest.approx(2 / 3)
    assert ledger.arm("r2").bad_ratio is None
    assert ledger.first_bad_wall_s("r2") is None
