"""Routing over HTTP: who answers, what the response says of it, and what happens when a model is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from rag.kb import KnowledgeBase
from tests.route_kit import ChatModel, models, routed

pytestmark = pytest.mark.anyio

VPN = "The VPN client must be version 6.2 or later. At most 2 devices per person may be connected at the same time."
KNOWN, FOREIGN = "How many devices may be connected to the VPN?", "Who won the chess championship in 1972?"
CHINESE = "\u75c5\u5047\u8d85\u904e\u5169\u5929\u8981\u9644\u8a3a\u65b7\u8b49\u660e\u55ce\uff1f"


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    base = KnowledgeBase.init(tmp_path / "kb")
    sick = "\u75c5\u5047\u8d85\u904e\u5169\u5929\u9808\u6aa2\u9644\u8a3a\u65b7\u8b49\u660e\u3002"
    base.add([{"doc_id": "it-vpn", "text": VPN}, {"doc_id": "hr-sick", "text": sick}])
    return tmp_path / "kb"


def route_file(**given: ChatModel) -> str:
    lines = ["models:"]
    for slot, model in given.items():
        lines.append(f"  {slot}: {{base_url: '{model.base_url}', model: '{model.name}', timeout_s: 5, idle_s: 2}}")
    lines.append("sensitive: {words: [salary]}")
    lines.append("answers: [{topic: hours, answer: '9 to 18.', phrasings: ['When are you open?']}]")
    return "\n".join(lines)


async def ask(base: str, question: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """text, source, route and headers of one answer, streamed or not."""
    messages: Any = [{"role": "user", "content": question}]
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="k", max_retries=0) as bot:
        raw = bot.chat.completions.with_raw_response
        answered = await raw.create(model="m", messages=messages, stream=stream, **more)
        parsed: Any = answered.parse()
        if not stream:
            extra = parsed.model_extra
            text, usage = parsed.choices[0].message.content, parsed.usage.model_dump()
        else:
            text, extra, usage = "", {}, {}
            async for chunk in parsed:
                if chunk.usage:
                    usage = chunk.usage.model_dump()
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                extra |= chunk.model_extra or {}
    return {
        "text": text.strip(),
        "source": extra["answer_source"],
        "route": extra["route"],
        "retrieval": extra["retrieval"],
        "usage": usage,
        "header": answered.headers["x-answer-source"],
        "escalated": answered.headers.get("x-answer-escalated"),
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_each_kind_of_question_goes_its_way(kb: Path, tmp_path: Path, stream: bool) -> None:
    rag = ChatModel("gpt-4o-mini", lambda text: "At most 2 devices per person.")
    cloud = ChatModel("ft:gpt-4o-mini:org::1", lambda text: "From the cloud.")
    local = ChatModel("lora", lambda text: "From here.")
    async with models(rag, cloud, local):
        text = route_file(rag=rag, cloud=cloud, local=local)
        async with routed(kb, tmp_path / "routes.yaml", text) as base:
            asked = {
                "rule": await ask(base, "when are you open", stream=stream),
                "known": await ask(base, KNOWN, stream=stream),
                "chinese": await ask(base, CHINESE, stream=stream),
                "foreign": await ask(base, FOREIGN, stream=stream),
                "sensitive": await ask(base, "What is the salary of a juggler?", stream=stream),
                "marked": await ask(base, FOREIGN, stream=stream, extra_headers={"x-guard-sensitivity": "sensitive"}),
                "in body": await ask(base, FOREIGN, stream=stream, metadata={"sensitivity": "sensitive"}),
            }
            twice = [("x-guard-sensitivity", "normal"), ("x-guard-sensitivity", "sensitive")]
            body = {"messages": [{"role": "user", "content": FOREIGN}], "stream": stream}
            url = f"{base}/v1/chat/completions"
            async with aiohttp.ClientSession() as web, web.post(url, json=body, headers=twice) as response:
                assert b"LOCAL_LORA" in await response.read()
    assert {name: answer["source"] for name, answer in asked.items()} == {
        "rule": "RULE", "known": "MODEL", "chinese": "MODEL", "foreign": "CLOUD_FT",
        "sensitive": "LOCAL_LORA", "marked": "LOCAL_LORA", "in body": "LOCAL_LORA",
    }  # fmt: skip
    assert all(answer["header"] == answer["source"] for answer in asked.values())
    assert asked["rule"]["text"] == "9 to 18."
    assert asked["rule"]["route"]["cost_usd"] == 0.0
    # A fixed answer is its own source, and finding no document for it is no zero-hit.
    assert [c["text"] for c in asked["rule"]["retrieval"]["contexts"]] == ["9 to 18."]
    assert asked["rule"]["retrieval"]["zero_hit"] is False
    assert asked["known"]["route"]["cost_usd"] == pytest.approx(100 * 0.15e-6 + 10 * 0.6e-6)
    assert asked["marked"]["route"]["cost_usd"] is None  # no price is known: not zero
    assert not any("salary" in text or "chess" in text for text in rag.asked)
    assert cloud.asked == [FOREIGN]  # once: nothing sensitive ever went there


async def test_a_doubtful_answer_is_asked_again_once_and_both_calls_are_paid(kb: Path, tmp_path: Path) -> None:
    cheap = ChatModel("gpt-4o-mini", lambda text: "At most 7 devices per person.")
    strong = ChatModel("gpt-4o", lambda text: "At most 9 devices per person.", prompt_tokens=120, tokens=20)
    async with models(cheap, strong), routed(kb, tmp_path / "r.yaml", route_file(rag=cheap, strong=strong)) as base:
        whole = await ask(base, KNOWN)
        streamed = await ask(base, KNOWN, stream=True, stream_options={"include_usage": True})
        strong.status = 503
        alone = await ask(base, KNOWN)
        cheap.say = lambda text: "At most 2 devices."
        good = await ask(base, KNOWN)
    for answer in (whole, streamed):
        # The stronger model is wrong too: its answer goes out, nobody asks a third time.
        assert answer["text"] == "At most 9 devices per person."
        assert "number 7" in answer["route"]["doubt"]
        assert (answer["escalated"], answer["route"]["escalated"]) == ("1", True)
        assert answer["usage"]["prompt_tokens"] == 220
        expected = 100 * 0.15e-6 + 10 * 0.6e-6 + 120 * 2.5e-6 + 20 * 10e-6
        assert answer["route"]["cost_usd"] == pytest.approx(expected)
    assert alone["text"] == "At most 7 devices per person."  # a doubtful answer is still an answer
    assert len(alone["route"]["calls"]) == 2
    assert good["escalated"] is None
    assert len(good["route"]["calls"]) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["refused", "503", "429", "cut"])
async def test_a_model_that_is_away_hands_over_before_a_word_is_said(
    kb: Path, tmp_path: Path, fault: str, stream: bool
) -> None:
    cloud = ChatModel("ft:gpt-4o-mini:org::1", lambda text: "one two three four")
    local = ChatModel("lora", lambda text: "From here.")
    async with models(cloud, local), routed(kb, tmp_path / "r.yaml", route_file(cloud=cloud, local=local)) as base:
        if fault == "refused":
            await cloud.stop()
        elif fault == "cut":
            cloud.cut_after_words = 2
        else:
            cloud.status = int(fault)
        first = await ask(base, FOREIGN, stream=stream)
        await ask(base, FOREIGN, stream=stream)
        third = await ask(base, FOREIGN, stream=stream)
    assert (first["source"], first["text"]) == ("LOCAL_LORA", "From here.")
    assert first["route"]["calls"][0]["error"]
    assert "not reachable: cloud" in third["route"]["reason"]  # two failures open the circuit
    assert len(third["route"]["calls"]) == 1


async def test_documents_answer_when_their_model_is_away_and_an_outage_is_no_refusal(kb: Path, tmp_path: Path) -> None:
    rag, cloud = ChatModel("gpt-4o-mini", str), ChatModel("ft:gpt-4o-mini:o::1", str)
    async with models(rag, cloud):
        rag.status = cloud.status = 500
        async with routed(kb, tmp_path / "r.yaml", route_file(rag=rag, cloud=cloud)) as base:
            known = await ask(base, KNOWN)
            with pytest.raises(openai.InternalServerError) as failure:
                await ask(base, FOREIGN)
            kept = await ask(base, FOREIGN, extra_headers={"x-guard-sensitivity": "sensitive"})
    assert known["source"] == "KB"
    assert known["text"] == "At most 2 devices per person may be connected at the same time."
    assert failure.value.status_code == 502
    assert kept["source"] == "REFUSAL"  # no model may see it


async def test_a_question_the_model_refuses_does_not_cut_the_model_off_for_others(kb: Path, tmp_path: Path) -> None:
    cloud, local = ChatModel("ft:gpt-4o-mini:o::1", lambda text: "Cloud."), ChatModel("lora", lambda text: "Here.")
    async with models(cloud, local), routed(kb, tmp_path / "r.yaml", route_file(cloud=cloud, local=local)) as base:
        cloud.status = 400
        sources = [(await ask(base, FOREIGN))["source"] for _ in range(4)]
        cloud.status = 200
        after = await ask(base, FOREIGN)
    assert sources == ["LOCAL_LORA"] * 4
    assert after["source"] == "CLOUD_FT"


async def test_a_live_stream_hands_over_before_its_first_word_and_breaks_visibly_after(
    kb: Path, tmp_path: Path
) -> None:
    cloud = ChatModel("ft:gpt-4o-mini:o::1", lambda text: "one two three four")
    local = ChatModel("lora", lambda text: "From here.")
    async with models(cloud, local):
        text = route_file(cloud=cloud, local=local) + "\nstream: live"
        async with routed(kb, tmp_path / "r.yaml", text) as base:
            whole = await ask(base, FOREIGN, stream=True)
            cloud.cut_after_words = 0
            before = await ask(base, FOREIGN, stream=True)
            cloud.cut_after_words = 2
            with pytest.raises(openai.APIError):
                await ask(base, FOREIGN, stream=True)
    assert (whole["source"], whole["text"]) == ("CLOUD_FT", "one two three four")
    assert (before["source"], before["text"]) == ("LOCAL_LORA", "From here.")


async def test_many_questions_at_once_while_the_cloud_goes_away_and_comes_back(kb: Path, tmp_path: Path) -> None:
    cloud = ChatModel("ft:gpt-4o-mini:o::1", lambda text: "Cloud says so.")
    local = ChatModel("lora", lambda text: "Local says so.")
    seen: list[dict[str, Any]] = []
    enough = asyncio.Event()

    async def user(base: str, number: int) -> None:
        for turn in range(4):
            seen.append(await ask(base, f"{FOREIGN} {number} {turn}", stream=bool((number + turn) % 2)))
            if len(seen) == 8:
                enough.set()

    async def cut() -> None:
        await enough.wait()
        await cloud.stop()

    async with models(cloud, local):
        text = route_file(cloud=cloud, local=local) + "\nretry_s: 0.2"
        async with routed(kb, tmp_path / "r.yaml", text) as base:
            await asyncio.gather(cut(), *(user(base, number) for number in range(8)))
            sources = [answer["source"] for answer in seen]
            await cloud.start()
            # The circuit tries again by itself; every answer until then is good as well.
            async with asyncio.timeout(30):
                while (again := await ask(base, FOREIGN))["source"] != "CLOUD_FT":
                    seen.append(again)
                    await asyncio.sleep(0.1)
    assert len(sources) == 32
    assert set(sources) == {"CLOUD_FT", "LOCAL_LORA"}
    assert all(answer["text"].endswith("says so.") for answer in seen)
