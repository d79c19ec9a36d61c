"""`lora serve` over HTTP: forms, refusals, streams, people who go away, deadlines, loading and unloading, draining."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import uvicorn

from guard.cli import main
from guard.commands.lora_serve import _bearer
from guard.lora_metrics import metrics_of
from lora.adapter_files import Adapter
from lora.keys import KeyRing
from lora.serving.app import create_app
from lora.serving.catalog import Sources
from lora.serving.engine import Engine
from lora.serving.service import Service
from lora.serving.types import Sampling
from lora.serving.waiting import Limits
from rag.servers import PlainServer, listen
from slo.clock import SystemClock
from tests.lora_kit import KEYHOLDER, VIEWER, adapter_directory, ring_of, vault_of
from tests.serving_kit import BREAKS, END, LATE, EchoModel, decode

pytestmark = pytest.mark.anyio
TOKEN = "an-admin-token-of-enough-characters"
ADMIN = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Server:
    """One server with a model without torch."""

    model: EchoModel
    service: Service
    url: str
    session: aiohttp.ClientSession
    notes: list[str]

    async def chat(self, text: str, model: str = "base", headers: dict[str, str] | None = None, **more: Any) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status, response.headers, await response.json()

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] = ADMIN) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as response:
            return response.status, await response.text()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; the limit only ends a test that hangs."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another thread has no event here
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(sources: Sources | None = None, limits: Limits | None = None, **app: Any) -> AsyncIterator[Server]:
    model, notes = EchoModel(), []
    clock = SystemClock()
    engine = Engine(model.batch, decode, frozenset({END}), limits or Limits(), clock, notes.append)
    service = Service("base", model, engine, clock, sources=sources or Sources())
    scrape = metrics_of("bot")
    settings: dict[str, Any] = {
        "defaults": Sampling(max_tokens=50, temperature=0.0), "max_tokens": 80, "timeout_s": 30.0,
        "metrics": lambda: scrape(service), "may_ask": _bearer(None, open_without=True),
        "may_load": _bearer(TOKEN, open_without=False), **app,
    }  # fmt: skip
    sock = listen("127.0.0.1", 0)
    server = PlainServer(uvicorn.Config(create_app(service, **settings), log_level="warning", access_log=False))
    engine.start()
    task = asyncio.create_task(server.serve(sockets=[sock]))
    await until(lambda: server.started)
    try:
        async with aiohttp.ClientSession() as session:
            yield Server(model, service, f"http://127.0.0.1:{sock.getsockname()[1]}", session, notes)
    finally:
        model.gate.set()
        model.reads.set()
        server.should_exit = True
        await task
        await asyncio.to_thread(service.close)
        sock.close()


async def test_an_answer_has_the_form_and_true_usage() -> None:
    async with running() as server:
        status, _, body = await server.chat("14 days", stop=["never"])
        assert status == 200
        assert body["object"] == "chat.completion"
        assert body["model"] == "base"
        choice = body["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("14 days", "stop")
        assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}
        _, _, body = await server.chat("a very long answer", max_tokens=6)
        assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("a very", "length")


async def test_the_official_client_reads_answers_and_streams() -> None:
    text = "\u5e74\u5047 14 \u5929"
    async with running() as server, openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert [m.id for m in (await client.models.list()).data] == ["base"]
        asked: Any = {"model": "base", "messages": [{"role": "user", "content": text}]}
        whole = await client.chat.completions.create(**asked)
        assert whole.choices[0].message.content == text
        stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(pieces) == text
        assert all("\ufffd" not in piece for piece in pieces)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == len(text.encode()) + 1
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, 400, "model"),
        ({"model": "other", "messages": [{"role": "user", "content": "x"}]}, 404, "model"),
        ({"model": "base", "messages": []}, 400, "messages"),
        ({"model": "base", "messages": [{"role": "user", "content": " "}]}, 400, "messages"),
        ({"model": "base", "messages": [{"role": "user", "content": "x" * 170}], "max_tokens": 50}, 400, "messages"),
        ({"model": "base", "messages": [{"role": "user", "content": "x" * 201}]}, 400, "messages"),
        ({"model": "base", "messages": [{"role": "user", "content": "x" * 100_000}]}, 400, "messages"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "n": 2}, 400, "n"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "temperature": 3}, 400, "temperature"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "tools"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "logprobs": True}, 400, "logprobs"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, 400, "max_tokens"),
    ],
    ids=["no-model", "unknown-model", "no-messages", "empty", "too-long-with-answer", "too-long", "far-too-long", "n",
         "temperature", "tools", "logprobs", "no-tokens"],
)  # fmt: skip
async def test_a_bad_request_is_named(body: dict[str, Any], status: int, param: str) -> None:
    async with running() as server:
        got, answer = await server.post("/v1/chat/completions", body)
        assert got == status
        assert answer["error"]["param"] == param
        if len(str(body)) > 200:
            assert answer["error"]["code"] == "context_length_exceeded"
            assert "200 tokens" in answer["error"]["message"]
        assert server.model.joins == []


async def test_an_answer_whose_length_nobody_asked_for_is_cut_to_the_context() -> None:
    async with running() as server:
        status, _, body = await server.chat("x" * 180)
        assert status == 200
        assert body["usage"]["total_tokens"] == 200
        assert body["choices"][0]["finish_reason"] == "length"


async def test_more_tokens_than_the_limit_are_not_given() -> None:
    async with running() as server:
        _, _, body = await server.chat("x" * 100, max_tokens=100)
        assert body["usage"]["completion_tokens"] == 80


async def test_requests_that_wait_are_answered_together() -> None:
    async with running() as server:
        server.model.gate.clear()
        first = asyncio.create_task(server.chat("first"))
        await until(lambda: server.service.engine.running_count == 1)
        others = [asyncio.create_task(server.chat(f"answer {n}")) for n in range(6)]
        await until(lambda: server.service.engine.waiting_count == 6)
        server.model.gate.set()
        answers = [await task for task in [first, *others]]
        texts = [body["choices"][0]["message"]["content"] for _, _, body in answers]
        assert texts == ["first", *(f"answer {n}" for n in range(6))]
        assert server.model.widest == 7
        assert len(server.model.joins) == 2


async def test_a_full_queue_is_a_429_that_says_when_to_come_again() -> None:
    async with running(limits=Limits(queue=1, rows=1)) as server:
        server.model.gate.clear()
        tasks = [asyncio.create_task(server.chat("first")), asyncio.create_task(server.chat("second"))]
        await until(lambda: server.service.engine.waiting_count == 1)
        status, headers, body = await server.chat("third")
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        assert body["error"]["type"] == "queue_full"
        server.model.gate.set()
        assert [(await task)[0] for task in tasks] == [200, 200]


async def test_a_full_queue_refuses_before_it_reads_the_question() -> None:
    async with running(limits=Limits(queue=0, rows=1)) as server:
        server.model.gate.clear()
        first = asyncio.create_task(server.chat("first"))
        await until(lambda: server.service.engine.running_count == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 900000\r\n\r\n"
        )  # and nothing of it
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: " in head
        assert server.model.read_count == 1
        assert (
            'sft_serve_requests_total{service="bot",model="unread",result="queue_full"} 1'
            in (await server.get("/metrics"))[1]
        )
        server.model.gate.set()
        assert (await first)[0] == 200


async def test_questions_that_are_being_read_hold_their_places() -> None:
    async with running(limits=Limits(queue=1, rows=1)) as server:
        server.model.reads.clear()
        taken = [asyncio.create_task(server.chat(f"q{n}")) for n in range(2)]  # one to answer, one to wait
        await until(lambda: server.service._read_count == 2)
        refused = [await server.chat(f"q{n}") for n in range(2, 6)]
        assert {status for status, _, _ in refused} == {429}
        server.model.reads.set()
        assert [(await task)[0] for task in taken] == [200, 200]
        assert server.model.read_count == 2
        assert (await server.chat("again"))[0] == 200


async def test_who_goes_away_frees_the_row() -> None:
    async with running(limits=Limits(rows=1)) as server:
        server.model.gate.clear()
        task = asyncio.create_task(server.chat("an answer that nobody reads"))
        await until(lambda: server.service.engine.running_count == 1)
        task.cancel()
        waiting = asyncio.create_task(server.chat("waits and goes"))
        await until(lambda: server.service.engine.waiting_count == 1)
        waiting.cancel()
        await until(lambda: server.service.engine.waiting_count == 0)
        steps = server.model.steps
        await until(lambda: server.service.meters.requests["base", "cancelled"] == 2)
        server.model.gate.set()
        status, _, body = await server.chat("next")
        assert (status, body["choices"][0]["message"]["content"]) == (200, "next")
        assert server.model.steps - steps <= 2 + len("next")


async def test_who_goes_away_in_a_stream_frees_the_row() -> None:
    async with running(limits=Limits(rows=1)) as server:
        body = {"model": "base", "stream": True, "messages": [{"role": "user", "content": "a long answer to leave"}]}
        server.model.gate.clear()
        response = await server.session.post(f"{server.url}/v1/chat/completions", json=body)
        assert (await response.content.readline()).startswith(b"data: ")
        response.close()
        await until(lambda: server.service.meters.requests["base", "cancelled"] == 1)
        server.model.gate.set()
        await until(lambda: server.service.engine.idle)
        assert (await server.chat("next"))[0] == 200


async def test_a_deadline_is_a_504_also_when_a_step_hangs() -> None:
    async with running() as server:
        server.model.gate.clear()
        status, _, body = await server.chat("slow", headers={"x-request-timeout-s": "0.05"})
        assert (status, body["error"]["type"]) == (504, "timeout")
        server.model.gate.set()
        assert (await server.chat("quick"))[0] == 200
        assert (await server.chat("x", headers={"x-request-timeout-s": "soon"}))[0] == 400
        assert (await server.chat("x", headers={"x-request-timeout-s": "inf"}))[0] == 400


async def test_one_that_breaks_is_a_500_and_the_others_are_answered() -> None:
    async with running() as server:
        server.model.gate.clear()
        first = asyncio.create_task(server.chat("first"))
        await until(lambda: server.service.engine.running_count == 1)
        bad, good = asyncio.create_task(server.chat(BREAKS)), asyncio.create_task(server.chat("good"))
        await until(lambda: server.service.engine.waiting_count == 2)
        server.model.gate.set()
        assert (await bad)[0] == 500
        for task, text in ((first, "first"), (good, "good")):
            status, _, body = await task
            assert (status, body["choices"][0]["message"]["content"]) == (200, text)


async def test_a_stream_that_breaks_ends_with_an_error_and_without_its_marker() -> None:
    async with running() as server:
        body = {"model": "base", "stream": True, "messages": [{"role": "user", "content": f"{LATE} and more"}]}
        async with server.session.post(f"{server.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            data = await response.text()
        events = [json.loads(line[6:]) for line in data.splitlines() if line.startswith("data: ")]
        assert events[-1]["error"]["type"] == "model_error"
        assert "[DONE]" not in data


async def test_adapters_are_loaded_asked_replaced_and_unloaded(tmp_path: Path) -> None:
    for number in (1, 2):
        adapter_directory(tmp_path / f"v{number}")
        (tmp_path / f"v{number}" / "adapter_config.json").write_text(f'{{"r": {number}}}')
    async with running(Sources(root=tmp_path)) as server:
        load = {"lora_name": "hr", "lora_path": "v1"}
        status, body = await server.post("/v1/load_lora_adapter", load)
        assert status == 200, body
        assert (await server.chat("x", "hr"))[2]["choices"][0]["message"]["content"] == '{"r": 1}x'
        assert (await server.chat("x", "base"))[2]["choices"][0]["message"]["content"] == "x"
        assert (await server.post("/v1/load_lora_adapter", load))[0] == 400  # it is there
        server.model.gate.clear()
        old = asyncio.create_task(server.chat("y", "hr"))
        await until(lambda: server.service.engine.running_count == 1)
        replaced = asyncio.create_task(
            server.post("/v1/load_lora_adapter", {**load, "lora_path": "v2", "load_inplace": True})
        )
        await asyncio.sleep(0)
        server.model.gate.set()
        assert (await old)[2]["choices"][0]["message"]["content"] == '{"r": 1}y'  # ends as it began
        assert (await replaced)[0] == 200
        assert (await server.chat("z", "hr"))[2]["choices"][0]["message"]["content"] == '{"r": 2}z'
        assert server.model.unloaded == ["h0"]
        models = json.loads((await server.get("/v1/models"))[1])["data"]
        assert [(m["id"], m["parent"]) for m in models] == [("base", None), ("hr", "base")]
        assert (await server.post("/v1/unload_lora_adapter", {"lora_name": "hr"}))[0] == 200
        assert (await server.chat("x", "hr"))[0] == 404
        assert (await server.post("/v1/unload_lora_adapter", {"lora_name": "hr"}))[0] == 404
        assert (await server.post("/v1/unload_lora_adapter", {"lora_name": "base"}))[0] == 404


async def test_the_command_line_loads_replaces_and_unloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter_directory(tmp_path / "a")

    async def command(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["lora", *words, "--server", server.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    async with running(Sources(root=tmp_path)) as server:
        code, _, err = await command("load", "hr", "a")
        assert (code, err.count("\n")) == (2, 1)
        assert "SFT_LORA_TOKEN" in err
        monkeypatch.setenv("SFT_LORA_TOKEN", TOKEN)
        code, out, _ = await command("load", "hr", "a", "--json")
        assert (code, json.loads(out)["loaded"]) == (0, "hr")
        assert "hr" in server.service.models
        code, _, err = await command("load", "hr", "a")
        assert (code, err.count("\n")) == (2, 1)
        assert "it is loaded; unload it" in err
        assert (await command("load", "hr", "a", "--replace"))[0] == 0
        code, _, err = await command("load", "x", "../outside")
        assert code == 2
        assert "is not under the adapters of this server" in err
        assert (await command("unload", "hr"))[:2] == (0, "unloaded hr\n")
        code, _, err = await command("unload", "hr")
        assert code == 2
        assert "'hr' is not loaded; so says http" in err
        monkeypatch.setenv("SFT_LORA_TOKEN", "a-wrong-token-of-some-length")
        code, _, err = await command("unload", "base")
        assert (code, err.count("\n")) == (2, 1)
        assert "wrong-token" not in err
    code, _, err = await command("unload", "hr")
    assert (code, err.count("\n")) == (2, 1)
    assert "is `sft-guard lora serve` running there?" in err


async def test_only_the_token_loads_and_only_from_where_it_is_allowed(tmp_path: Path) -> None:
    adapter_directory(tmp_path / "outside" / "v1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    load = {"lora_name": "hr", "lora_path": "v1"}
    async with running(Sources(root=tmp_path / "root")) as server:
        for path in ("../outside/v1", str(tmp_path / "outside" / "v1"), "link/v1", ".", "", "a\0b"):
            status, body = await server.post("/v1/load_lora_adapter", {**load, "lora_path": path})
            assert (status, body["error"]["code"]) == (400, "bad_name"), path
        assert (await server.post("/v1/load_lora_adapter", {**load, "lora_name": "a b"}))[0] == 400
        assert (await server.post("/v1/load_lora_adapter", {**load, "lora_name": "base"}))[0] == 400
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
                status, _ = await server.post(path, load, headers)
                assert status in (401, 429)
        assert (await server.post("/v1/load_lora_adapter", load))[0] == 429  # five wrong tokens from this address
        assert sorted(server.service.models) == ["base"]
    async with running(may_load=_bearer(None, open_without=False)) as server:
        assert (await server.post("/v1/load_lora_adapter", load))[0] == 403
    async with running(may_ask=_bearer(TOKEN, open_without=True)) as server:
        assert (await server.chat("x"))[0] == 401
        assert (await server.chat("x", headers=ADMIN))[0] == 200


async def test_a_sealed_adapter_is_served_by_right_and_every_try_is_recorded(tmp_path: Path) -> None:
    ring: KeyRing = ring_of(tmp_path)
    vault_of(tmp_path, ring).seal(adapter_directory(tmp_path / "plain"), "hr-rules", "v1")

    def open_sealed(name: str, version: str, token: str | None) -> Adapter:
        return vault_of(tmp_path, ring, VIEWER if token == "eve" else KEYHOLDER).open(name, version)

    load = {"lora_name": "hr", "lora_path": "sealed:hr-rules@v1"}
    async with running(Sources(open_sealed)) as server:
        status, body = await server.post("/v1/load_lora_adapter", load, {**ADMIN, "x-vault-token": "eve"})
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert (await server.chat("x", "hr"))[0] == 404
        assert (await server.post("/v1/load_lora_adapter", load))[0] == 200
        assert (await server.chat("x", "hr"))[0] == 200
        other = {"lora_name": "hr2", "lora_path": "sealed:hr-rules@v2"}
        assert (await server.post("/v1/load_lora_adapter", other))[0] == 404
        damaged = tmp_path / "vault/hr-rules/v1/adapter_model.safetensors.sealed"
        data = bytearray(damaged.read_bytes())
        data[-1] ^= 1
        damaged.write_bytes(bytes(data))
        again = {**load, "load_inplace": True}
        status, body = await server.post("/v1/load_lora_adapter", again)
        assert (status, body["error"]["code"]) == (400, "decrypt_failed")
        assert (await server.chat("x", "hr"))[0] == 200  # the one that was there stays
        scrape = (await server.get("/metrics"))[1]
        assert 'sft_serve_adapter_loads_total{service="bot",result="refused"} 3' in scrape
    entries, problem = vault_of(tmp_path, ring).audit()
    assert problem is None
    opened = [(e.user, e.object, e.result) for e in entries if e.deed == "open"]
    assert opened == [
        ("eve", "hr-rules v1", "refused"), ("ada", "hr-rules v1", "ok"), ("ada", "hr-rules v2", "failed"),
        ("ada", "hr-rules v1", "failed"),
    ]  # fmt: skip


async def test_draining_answers_what_is_under_way_and_nothing_new() -> None:
    async with running() as server:
        server.model.gate.clear()
        task = asyncio.create_task(server.chat("under way"))
        await until(lambda: server.service.engine.running_count == 1)
        draining = asyncio.create_task(server.service.drain(30.0))
        await until(lambda: server.service.draining)
        status, headers, body = await server.chat("new")
        assert (status, body["error"]["type"]) == (503, "draining")
        assert headers["retry-after"]
        assert (await server.get("/readyz"))[0] == 503
        assert (await server.get("/healthz"))[0] == 200
        server.model.gate.set()
        assert (await task)[0] == 200
        assert await draining


async def test_counters_say_what_happened() -> None:
    async with running() as server:
        await server.chat("14 days")
        await server.chat(BREAKS)
        scrape = (await server.get("/metrics"))[1]
        assert 'sft_serve_requests_total{service="bot",model="base",result="ok"} 1' in scrape
        assert 'sft_serve_requests_total{service="bot",model="base",result="error"} 1' in scrape
        assert 'sft_serve_tokens_total{service="bot",model="base",type="output"} 8' in scrape
        assert 'sft_serve_time_to_first_token_seconds_count{service="bot",model="base"} 1' in scrape
        assert "sft_serve_waiting" in scrape
        assert (await server.get("/nowhere"))[0] == 404
        assert json.loads((await server.get("/healthz"))[1])["status"] == "ok"
