"""An answer path with a route file, and models behind it that can be cut off and come back. Real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from rag.answer_rules import RuleSource
from rag.routes_file import load_routes
from rag.servers import serve_many
from slo.pricing import PriceTable


class ChatModel:
    """A chat endpoint on a port of its own. say: (user text) -> answer. `cut` resets every connection, old and new."""

    def __init__(self, name: str, say: Callable[[str], str], *, prompt_tokens: int = 100, tokens: int = 10) -> None:
        self.name, self.say = name, say
        self.usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        }
        self.asked: list[str] = []
        self.status = 200
        self.cut_after_words: int | None = None
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.asked.append(text)
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        words = self.say(text).split(" ")
        cut = self.cut_after_words
        if not body.get("stream"):
            if cut is not None:
                assert request.transport is not None
                request.transport.abort()
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"model": self.name, "choices": [choice], "usage": self.usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, word in enumerate(words):
            if cut == number:
                assert request.transport is not None
                request.transport.abort()
                return response
            piece = {"model": self.name, "choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
            await response.write(b"data: " + web.json_response(piece).body + b"\n\n")  # type: ignore[operator]
        end = {"model": self.name, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": self.usage}
        await response.write(b"data: " + web.json_response(end).body + b"\n\ndata: [DONE]\n\n")  # type: ignore[operator]
        return response


@asynccontextmanager
async def models(*given: ChatModel) -> AsyncIterator[None]:
    for model in given:
        await model.start()
    try:
        yield
    finally:
        for model in given:
            await model.stop()


@asynccontextmanager
async def routed(kb: Path, routes: Path, text: str, rules: RuleSource | None = None) -> AsyncIterator[str]:
    """Base URL of an answer path by the route file `text`, written to `routes`."""
    routes.write_text(text, encoding="utf-8")
    stop, ready = asyncio.Event(), asyncio.Event()
    ports: list[int] = []

    def listening(found: list[int]) -> None:
        ports.extend(found)
        ready.set()

    loaded = load_routes(routes, {}.get)
    prices: Any = PriceTable.load()
    serving = serve_many(
        [(kb, 0)], embedder="none", stop=stop, on_ready=listening, routes=loaded, prices=prices, rules=rules
    )
    task = asyncio.create_task(serving)
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        waiting.cancel()
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
