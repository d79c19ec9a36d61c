"""The answer path over HTTP, as the official client and a plain one see it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from rag.answer import read_prompt
from rag.answer_path import SharedEmbedder
from rag.kb import KnowledgeBase
from rag.model_client import ModelConfig
from rag.rows import read_jsonl
from rag.servers import serve_many
from slo.errors import ConfigError, DataError, RefusedError
from tests.kb_kit import segment_file

pytestmark = pytest.mark.anyio

RULES = Path(__file__).parent.parent / "data" / "rag_rules_zh.jsonl"
VPN = "The VPN client must be version 6.2 or later. At most 2 devices per person may be connected at the same time."
ENGLISH, CHINESE = (
    "How many devices may be connected to the VPN?",
    "\u75c5\u5047\u8981\u9644\u8a3a\u65b7\u8b49\u660e\u55ce\uff1f",
)
OFF_TOPIC = "Who won the chess championship in 1972?"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def kb_dir(tmp_path: Path) -> Path:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add(read_jsonl(RULES))
    kb.add([{"doc_id": "it-vpn", "text": VPN}, {"doc_id": "hr-leave", "text": "Annual leave is 14 days a year."}])
    return tmp_path / "kb"


@asynccontextmanager
async def served(
    *directories: Path, model: ModelConfig | None = None, embedder: SharedEmbedder | str = "none"
) -> AsyncIterator[list[str]]:
    """Base URLs of answer paths that really listen."""
    stop, ready = asyncio.Event(), asyncio.Event()
    ports: list[int] = []

    def listening(found: list[int]) -> None:
        ports.extend(found)
        ready.set()

    task = asyncio.create_task(
        serve_many([(d, 0) for d in directories], model=model, embedder=embedder, stop=stop, on_ready=listening)
    )
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield [f"http://127.0.0.1:{port}" for port in ports]
    finally:
        waiting.cancel()
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[ModelConfig]:
    """A chat endpoint that behaves as `handler` says."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield ModelConfig(f"http://127.0.0.1:{port}/v1", "tiny", api_key="k-secret", timeout_s=5.0, idle_s=0.5)
    finally:
        await runner.cleanup()


def client(base: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0)


def ask(question: str) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": question}]}


async def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as session, session.post(url, data=BytesIO(data)) as response:
        return response.status, json.loads(await response.read())


async def test_the_official_client_gets_an_answer_with_contexts_and_source(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,), client(base) as bot:
        answer = await bot.chat.completions.create(**ask(ENGLISH))
    assert answer.choices[0].message.content == "At most 2 devices per person may be connected at the same time."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    extra = answer.model_extra or {}
    assert extra["answer_source"] == "KB"
    assert extra["retrieval"]["contexts"][0]["doc_id"] == "it-vpn"
    assert extra["retrieval"]["contexts"][0]["text"] == VPN
    assert extra["retrieval"]["zero_hit"] is False
    assert 0.0 <= extra["retrieval"]["duration_s"] < 60.0


async def test_a_stream_says_the_same_and_carries_the_contexts_on_its_last_chunk(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,), client(base) as bot:
        whole = await bot.chat.completions.create(**ask(CHINESE))
        chunks = [chunk async for chunk in await bot.chat.completions.create(**ask(CHINESE), stream=True)]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert "\u8a3a\u65b7\u8b49\u660e" in said
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    extra = chunks[-1].model_extra or {}
    assert extra["answer_source"] == "KB"
    assert extra["retrieval"]["contexts"][0]["doc_id"] == "rule-03"
    assert len(chunks) > 3
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,), client(base) as bot:
        stream = await bot.chat.completions.create(**ask(ENGLISH), stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_a_stream_ends_with_done(kb_dir: Path) -> None:
    body = {**ask(ENGLISH), "stream": True}
    async with (
        served(kb_dir) as (base,),
        aiohttp.ClientSession() as session,
        session.post(f"{base}/v1/chat/completions", json=body) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        raw = await response.read()
    assert raw.endswith(b"data: [DONE]\n\n")
    assert all(event.startswith(b"data: ") for event in raw.strip().split(b"\n\n"))


async def test_off_topic_is_a_polite_refusal_in_the_language_of_the_question(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,):
        _, english = await post(f"{base}/ask", {"question": OFF_TOPIC})
        _, chinese = await post(f"{base}/ask", {"question": "\u4eca\u5929\u53f0\u5317\u6703\u4e0b\u96e8\u55ce\uff1f"})
    assert english["answer_source"] == chinese["answer_source"] == "REFUSAL"
    assert english["answer"].startswith("I am sorry, ")
    assert chinese["answer"].startswith("\u5f88\u62b1\u6b49\uff0c")


async def test_ask_returns_answer_and_contexts(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,):
        status, body = await post(f"{base}/ask", {"question": ENGLISH})
        zero_status, zero = await post(f"{base}/ask", {"question": "qqqq zzzz"})
    assert status == zero_status == 200
    assert body["answer"].startswith("At most 2 devices")
    assert body["contexts"][0] == {
        "doc_id": "it-vpn", "text": VPN, "score": body["contexts"][0]["score"], "span": [0, len(VPN)],
    }  # fmt: skip
    assert body["usage"]["completion_tokens"] > 0
    assert (zero["contexts"], zero["retrieval"]["zero_hit"], zero["answer_source"]) == ([], True, "REFUSAL")


@pytest.mark.parametrize(
    ("route", "body", "status", "said"),
    [
        ("/v1/chat/completions", b"{", 400, "not JSON"),
        ("/v1/chat/completions", {}, 400, "`messages`"),
        ("/v1/chat/completions", {"messages": []}, 400, "`messages`"),
        ("/v1/chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, 400, "`messages.0.role`"),
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": "x"}]}, 400, "no message with role"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "  "}]}, 400, "the question is empty"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 2}, 400, "`n`"),
        ("/v1/chat/completions", [1], 400, "`body`"),
        ("/v1/chat/completions", b"[" * 100_000, 400, "not JSON"),
        ("/v1/chat/completions", b" " * 1_100_000, 413, "larger than"),
        ("/ask", {"question": 7}, 400, "`question`"),
        ("/nowhere", {}, 404, "no such route"),
    ],
)  # fmt: skip
async def test_a_bad_request_is_an_openai_style_error(
    kb_dir: Path, route: str, body: Any, status: int, said: str
) -> None:
    async with served(kb_dir) as (base,):
        found, answer = await post(f"{base}{route}", body)
    assert found == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert said in answer["error"]["message"]


async def test_content_parts_are_read_as_text(kb_dir: Path) -> None:
    parts = [{"type": "text", "text": ENGLISH}, {"type": "image_url", "image_url": {"url": "x"}}]
    async with served(kb_dir) as (base,):
        status, body = await post(f"{base}/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})
    assert (status, body["answer_source"]) == (200, "KB")


async def test_models_and_health_say_what_is_served(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,), client(base) as bot, aiohttp.ClientSession() as session:
        models = await bot.models.list()
        async with session.get(f"{base}/healthz") as response:
            health = await response.json()
    assert [model.id for model in models.data] == ["kb-extractive"]
    assert (health["status"], health["embedder"], health["retrieval"]) == ("ok", "off", "bm25")
    assert "switched off" in health["note"]
    assert (health["kb_version"], health["doc_count"]) == (2, 17)


async def test_several_knowledge_bases_share_a_process_and_an_embedder(kb_dir: Path, tmp_path: Path) -> None:
    other = KnowledgeBase.init(tmp_path / "other")
    other.add([{"doc_id": "other-vpn", "text": "The VPN allows 5 devices."}])
    shared = SharedEmbedder("none")
    async with served(kb_dir, tmp_path / "other", embedder=shared) as (first, second):
        _, one = await post(f"{first}/ask", {"question": ENGLISH})
        _, two = await post(f"{second}/ask", {"question": ENGLISH})
    assert (one["contexts"][0]["doc_id"], two["contexts"][0]["doc_id"]) == ("it-vpn", "other-vpn")


async def test_words_answer_while_the_embedder_is_still_loading(kb_dir: Path) -> None:
    shared = SharedEmbedder(loaded=None, name="none")
    shared.state = "loading"
    release = asyncio.Event()

    async def get() -> None:
        await release.wait()

    shared.get = get  # type: ignore[method-assign]
    async with served(kb_dir, embedder=shared) as (base,), aiohttp.ClientSession() as session:
        status, body = await post(f"{base}/ask", {"question": ENGLISH})
        async with session.get(f"{base}/healthz") as response:
            health = await response.json()
    assert (status, body["retrieval"]["mode"]) == (200, "bm25")
    assert (health["status"], health["embedder"]) == ("ok", "loading")
    assert "until the embedder is loaded" in health["note"]


@pytest.mark.parametrize(
    "error",
    [
        DataError("x: damaged"),
        RefusedError("artifact_rejected", "x: 'a.bin' may\nhold code"),
        RuntimeError("no kernel"),
    ],
    ids=["damaged", "refused", "library"],
)
async def test_an_embedder_that_cannot_be_loaded_is_told_and_words_go_on_answering(
    kb_dir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("rag.answer_path.load_embedder", refused)
    shared = SharedEmbedder("hashed-ngram")
    async with served(kb_dir, embedder=shared) as (base,), aiohttp.ClientSession() as session:
        await shared.get()
        status, body = await post(f"{base}/ask", {"question": ENGLISH})
        async with session.get(f"{base}/healthz") as response:
            health = await response.json()
    assert (status, body["retrieval"]["mode"]) == (200, "bm25")
    assert (health["embedder"], health["note"]) == ("failed", " ".join(str(error).split()))


async def test_a_damaged_knowledge_base_and_a_taken_port_are_refused(kb_dir: Path) -> None:
    async with served(kb_dir) as (base,):
        with pytest.raises(ConfigError, match="choose a free port"):
            await serve_many([(kb_dir, int(base.rsplit(":", 1)[1]))], embedder="none", stop=asyncio.Event())
    segment_file(kb_dir, "kb.jsonl").write_bytes(b"{}")
    with pytest.raises(DataError, match="damaged, refused"):
        await serve_many([(kb_dir, 0)], embedder="none", stop=asyncio.Event())


def completion(text: str, **extra: Any) -> web.Response:
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return web.json_response({"id": "x", "model": "tiny-2026", "choices": [message], "usage": usage, **extra})


async def test_a_configured_model_answers_from_the_delimited_contexts(kb_dir: Path) -> None:
    seen: list[Any] = []

    async def model(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json(), request.headers["authorization"]))
        return completion("Two [1].")

    async with upstream(model) as config, served(kb_dir, model=config) as (base,), client(base) as bot:
        answer = await bot.chat.completions.create(**ask(ENGLISH), temperature=0.7, max_tokens=9, tools=[])
    body, authorization = seen[0]
    assert authorization == "Bearer k-secret"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0.7, 9)
    contexts, question = read_prompt(body["messages"][1]["content"])
    assert question == ENGLISH
    assert contexts[0] == ("it-vpn", VPN)
    assert answer.choices[0].message.content == "Two [1]."
    assert answer.model == "tiny-2026"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 11
    assert (answer.model_extra or {})["answer_source"] == "MODEL"


def frames(*events: str) -> Handler:
    async def model(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
        return response

    return model


def delta(text: str, finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return json.dumps({"id": "x", "model": "tiny-2026", "choices": [choice]})


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})


async def test_a_model_stream_is_passed_on_piece_by_piece(kb_dir: Path) -> None:
    whole = frames(delta("Two "), delta("devices."), delta("", "stop"), USAGE, "[DONE]")
    async with upstream(whole) as config, served(kb_dir, model=config) as (base,), client(base) as bot:
        stream = await bot.chat.completions.create(**ask(ENGLISH), stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content] == [
        "Two ", "devices.",
    ]  # fmt: skip
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 5
    assert (chunks[-2].model_extra or {})["answer_source"] == "MODEL"


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((delta("Two "),), "upstream_cut"),
        ((delta("Two "), "[DONE]"), "upstream_cut"),
        ((delta("Two "), delta("", "stop")), "upstream_cut"),
        ((delta("Two "), "{broken"), "malformed"),
        ((delta("Two "), '{"error": {"message": "out of memory"}}'), "inband_error"),
    ],
)
async def test_a_model_stream_that_breaks_is_an_error_for_the_client_never_a_whole_answer(
    kb_dir: Path, events: tuple[str, ...], kind: str
) -> None:
    said: list[str] = []
    async with upstream(frames(*events)) as config, served(kb_dir, model=config) as (base,), client(base) as bot:
        stream = await bot.chat.completions.create(**ask(ENGLISH), stream=True)
        with pytest.raises(openai.APIError) as failed:
            said.extend([c.choices[0].delta.content or "" async for c in stream])
    assert failed.value.type == kind


async def _status(status: int, body: str) -> Handler:
    async def model(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    return model


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "seen", "kind"),
    [
        (500, '{"error": {"message": "boom"}}', 502, "upstream_status"),
        (401, "no", 502, "upstream_status"),
        (429, '{"error": {"message": "slow down"}}', 429, "throttled"),
        (302, "", 502, "upstream_status"),
    ],
)
async def test_a_failing_model_is_an_error_with_a_type(
    kb_dir: Path, status: int, body: str, seen: int, kind: str, stream: bool
) -> None:
    async with upstream(await _status(status, body)) as config, served(kb_dir, model=config) as (base,):
        found, answer = await post(f"{base}/v1/chat/completions", {**ask(ENGLISH), "stream": stream})
    assert (found, answer["error"]["type"]) == (seen, kind)
    assert "k-secret" not in json.dumps(answer)


async def test_a_model_that_answers_nonsense_stalls_or_is_not_there(kb_dir: Path) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1.0)
        return completion("late")

    async with upstream(await _status(200, "[]")) as config, served(kb_dir, model=config) as (base,):
        assert (await post(f"{base}/ask", {"question": ENGLISH}))[1]["error"]["type"] == "malformed"
    async with upstream(silent) as config, served(kb_dir, model=config) as (base,):
        status, answer = await post(f"{base}/ask", {"question": ENGLISH})
    assert (status, answer["error"]["type"]) == (504, "timeout")
    async with served(kb_dir, model=config) as (base,):  # its server is gone now
        status, answer = await post(f"{base}/ask", {"question": ENGLISH})
    assert (status, answer["error"]["type"]) == (502, "upstream_connect")
    assert "is it running?" in answer["error"]["message"]


async def test_a_client_that_goes_away_ends_the_request_to_the_model(kb_dir: Path) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(f"data: {delta('word ' * 100)}\n\n".encode())
                await asyncio.sleep(0.01)
        except ConnectionError:
            ended.set()
        return response

    async with upstream(endless) as config, served(kb_dir, model=config) as (base,), client(base) as bot:
        stream = await bot.chat.completions.create(**ask(ENGLISH), stream=True)
        await anext(aiter(stream))
        await stream.close()
        await asyncio.wait_for(ended.wait(), timeout=20.0)


async def test_an_unsure_retrieval_need_not_ask_the_model(kb_dir: Path) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        raise AssertionError("the model was asked")

    async with upstream(never) as config:
        careful = ModelConfig(config.base_url, "tiny", refuse_under=0.5)
        async with served(kb_dir, model=careful) as (base,):
            _, body = await post(f"{base}/ask", {"question": OFF_TOPIC})
    assert (body["answer_source"], body["model"]) == ("REFUSAL", "kb-extractive")


async def test_the_command_serves_until_it_is_told_to_stop_and_exits_with_zero(kb_dir: Path) -> None:
    program = "import sys; from rag.commands import kb_serve; sys.exit(kb_serve(sys.argv[1], port=0, embedder='none'))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(kb_dir), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    line = (await asyncio.wait_for(process.stderr.readline(), timeout=60.0)).decode()
    base = line.split()[3].removesuffix("/v1")
    status, body = await post(f"{base}/ask", {"question": ENGLISH})
    process.terminate()
    assert await asyncio.wait_for(process.wait(), timeout=30.0) == 0
    assert (status, body["answer_source"]) == (200, "KB")
    assert await process.stderr.read() == b""


def test_a_key_is_never_printed() -> None:
    assert "k-secret" not in repr(ModelConfig("http://x/v1", "m", api_key="k-secret"))
