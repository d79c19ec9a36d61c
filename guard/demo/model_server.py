"""The simulated model as a server: OpenAI-compatible chat completions, JSON and streams, on loopback.

python -m guard.demo.model_server --port 8811 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from guard.demo.content import general_policies
from guard.demo.model import Reply, SimulatedModel
from slo.clock import SystemClock

MODEL_NAME = "demo-simulated"
READY = "model on"
CHARS_PER_EVENT = 24
"""Characters of one stream event; models send a few words at a time."""


class Message(msgspec.Struct):
    """One message of a chat; `content` may be text or a list of parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(msgspec.Struct):
    """What a client wants in a stream."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """The fields that are looked at."""

    messages: list[Message]
    model: str = MODEL_NAME
    stream: bool = False
    stream_options: StreamOptions | None = None


_decode = msgspec.json.Decoder(ChatRequest).decode
_encode = msgspec.json.Encoder().encode


def create_app(seed: int, *, clock: SystemClock | None = None) -> web.Application:
    """The application; the same seed gives the same answer to the same prompt."""
    server = _Server(SimulatedModel(general_policies(), seed), clock or SystemClock())
    app = web.Application(client_max_size=2**20)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/healthz", server.health)
    return app


class _Server:
    def __init__(self, model: SimulatedModel, clock: SystemClock) -> None:
        self._model, self._clock = model, clock
        self._count = 0

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": MODEL_NAME})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "owned_by": "demo"}]}
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = _decode(await request.read())
        except msgspec.MsgspecError as error:
            return _refuse(f"the request is not a chat completion ({error})")
        messages = [(m.role, _plain(m.content)) for m in asked.messages]
        if not any(role == "user" for role, _ in messages):
            return _refuse("messages: no message of the user; add one")
        reply = self._model.reply(messages)
        self._count += 1
        head = {"id": f"chatcmpl-demo-{self._count}", "created": int(self._clock.wall_s()), "model": asked.model}
        if asked.stream:
            include_usage = asked.stream_options is not None and asked.stream_options.include_usage
            return await self._stream(request, head, reply, include_usage=include_usage)
        await self._clock.sleep(reply.first_token_s + reply.token_s * reply.output_tokens)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply.text}}
        body = {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(reply)}
        return web.Response(body=_encode(body), content_type="application/json")

    async def _stream(
        self, request: web.Request, head: dict[str, Any], reply: Reply, *, include_usage: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        head = {**head, "object": "chat.completion.chunk"}

        async def send(delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            await response.write(b"data: " + _encode({**head, "choices": [choice]}) + b"\n\n")

        await send({"role": "assistant", "content": ""})
        await self._clock.sleep(reply.first_token_s)
        pieces = [reply.text[i : i + CHARS_PER_EVENT] for i in range(0, len(reply.text), CHARS_PER_EVENT)]
        for piece in pieces:
            await send({"content": piece})
            await self._clock.sleep(reply.token_s * reply.output_tokens / len(pieces))
        await send({}, "stop")
        if include_usage:
            await response.write(b"data: " + _encode({**head, "choices": [], "usage": _usage(reply)}) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _plain(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return content or ""


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }


def _refuse(message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=400)


async def _serve(host: str, port: int, seed: int) -> None:
    runner = web.AppRunner(create_app(seed), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    print(f"{READY} {runner.addresses[0][1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A simulated language model for the demo, on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8811, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    asyncio.run(_serve(args.host, args.port, args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
