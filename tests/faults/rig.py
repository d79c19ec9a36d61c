"""A real `sft-guard serve` with every dependency it can have, each behind a TCP proxy that breaks on demand.

    async with Rig(directory) as rig:
        await rig.faults["redis"].set("blackhole")
        answer = await rig.ask(7, stream=True)

Model, dependencies and proxies run on the caller's event loop, the guard is a process of its own.
"""

# ruff: noqa: ASYNC110 - nested blocks read as a picture of what is between whom; polling is what is tested
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from guard.accepting import stop_accepting
from tests.cache_kit import redis_server
from tests.faults.stub_servers import Handler, answer_to, embeddings, http_server, model, port_of, takes_all
from tests.faults.tcp_proxy import FaultProxy

TOKEN = "a-token-of-enough-characters"


CONFIG = """\
service: faq-bot
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
admin: {{token_env: GUARD_TOKEN}}
slo: slo.yaml
routes: [{{name: chat, path: /v1/chat/completions, adapter: openai-chat, contexts: {{body: retrieval.contexts}}}}]
versions:
  v1: {{upstreams: ["http://127.0.0.1:{model}"], model: m, kb: "1"}}
  v2: {{upstreams: ["http://127.0.0.1:{model}"], model: m, kb: "2"}}
release: {{stable: v1, mode: enforce, evaluate_every: 1s}}
timeouts: {{drain: 3s, keep_alive: 30s}}
"""
SECTIONS = {
    "redis": "cache: {{store: redis, admit: complete, redis: {{url: 'redis://127.0.0.1:{redis}/0', "
    "hmac_key_env: CACHE_KEY}}}}\n",
    "checks": "checks: {{embedder: endpoint}}\nembeddings: {{url: 'http://127.0.0.1:{checks}/v1', model: e, dim: 4, "
    "timeout: 2s}}\n",
    "registry": "registry: {{url: 'http://127.0.0.1:{registry}', token_env: REGISTRY_TOKEN, model: faq-bot}}\n",
    "otel": "otel: {{endpoint: 'http://127.0.0.1:{otel}', sample: 100%}}\n",
    "alertmanager": "alertmanager: {{url: 'http://127.0.0.1:{alertmanager}', repost: 1s}}\n",
    "webhook": "webhooks: [{{name: pager, url: 'http://127.0.0.1:{webhook}/hook', secret_env: HOOK_SECRET}}]\n",
}
SECRETS = {
    "GUARD_TOKEN": TOKEN,
    "CACHE_KEY": "a key of at least sixteen bytes",
    "REGISTRY_TOKEN": "registry-token-of-enough-characters",
    "HOOK_SECRET": "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def environment(**more: str) -> dict[str, str]:
    """Of a child process."""
    return {**os.environ, **SECRETS, **more}  # noqa: TID251 - a child process needs it


@dataclass
class Served:
    """One answer. `error`: what kept it from being whole."""

    status: int = 0
    body: bytes = b""
    cache: str = ""
    error: str = ""


@dataclass
class Rig:
    """parts: which dependencies there are; the others are not configured. extra: more of guard.yaml."""

    directory: Path
    parts: tuple[str, ...] = tuple(SECTIONS)
    extra: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    stderr: int | None = None
    faults: dict[str, FaultProxy] = field(default_factory=dict)

    async def __aenter__(self) -> Rig:
        self._stack = AsyncExitStack()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _server(self, handler: Handler) -> int:
        server = await http_server(handler)
        self._stack.push_async_callback(stop_accepting, server)
        return port_of(server)

    async def _start(self) -> None:
        ports = {"model": await self._server(model)}
        behind: dict[str, int] = {}
        for part in self.parts:
            if part == "redis":
                behind[part] = self._stack.enter_context(redis_server()).port
            elif part == "registry":
                behind[part] = await self._stack.enter_async_context(registry_process(self.directory))
            else:
                behind[part] = await self._server(embeddings if part == "checks" else takes_all)
        for part, port in behind.items():
            self.faults[part] = proxy = await FaultProxy(port).start()
            self._stack.push_async_callback(proxy.close)
            ports[part] = proxy.port
        text = CONFIG + "".join(SECTIONS[part] for part in self.parts)
        if "checks" not in self.parts:
            text += "checks: {{embedder: none}}\n"
        (self.directory / "guard.yaml").write_text(text.format(**ports) + self.extra)
        (self.directory / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
        await self.serve()
        self._stack.push_async_callback(self.end)

    async def serve(self) -> None:
        """Start the guard process and wait until it serves."""
        self.log = (self.directory / "guard.log").open("a")
        self._stack.callback(self.log.close)
        command = [*self.wrapper, sys.executable, "-m", "guard.cli", "serve", "-c", "guard.yaml"]
        self.process = await asyncio.create_subprocess_exec(
            *command, cwd=self.directory, env=environment(**self.environment), stdout=subprocess.PIPE,
            stderr=self.log if self.stderr is None else self.stderr,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        found = re.search(r"serving on http://(\S+) \(admin http://(\S+)\)", line)
        assert found, f"{line!r}\n{(self.directory / 'guard.log').read_text()[-3000:]}"
        self.data_port, self.admin_port = (int(found[n].rpartition(":")[2]) for n in (1, 2))

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Stop the guard; its exit code."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            try:
                async with asyncio.timeout(45):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        return int(self.process.returncode or 0)

    async def request(
        self, port: int, method: str, path: str, body: bytes = b"", headers: str = "", within_s: float = 30.0
    ) -> Served:
        """One request on a connection of its own."""
        served = Served()
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}"
                    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                    writer.write(head.encode() + body)
                    raw = await reader.read(-1)
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError) as error:
            served.error = repr(error)
            return served
        return taken_apart(raw)

    async def ask(self, number: int, *, stream: bool = False, headers: str = "") -> Served:
        """Ask question `number`; an answer that is not the model's, whole, has an error."""
        words = f"question {number}"
        asked: dict[str, Any] = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": words}]}
        if stream:
            asked["stream"] = True
        body = json.dumps(asked).encode()
        served = await self.request(self.data_port, "POST", "/v1/chat/completions", body, headers)
        if not served.error and served.status != 200:
            served.error = f"status {served.status}: {served.body[:200]!r}"
        elif not served.error and served.body != answer_to(words, stream):
            served.error = f"other bytes: {served.body[:300]!r}"
        return served

    async def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """(status, JSON) of the admin listener, with the token."""
        data = b"" if body is None else json.dumps(body).encode()
        served = await self.request(self.admin_port, method, path, data, f"Authorization: Bearer {TOKEN}\r\n", 60.0)
        assert not served.error, served.error
        try:
            return served.status, json.loads(served.body)
        except ValueError:
            return served.status, served.body.decode()

    async def metric(self, name: str) -> float | None:
        """Sum of a metric over its labels; None: there is no such series."""
        text = (await self.request(self.admin_port, "GET", "/metrics")).body.decode()
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found)) if found else None


class Bare(Rig):
    """A guard in front of an upstream of the caller's, without further dependencies."""

    def before(self, model_port: int, *, drain_s: float = 3.0, extra: str = "") -> Bare:
        """Write its configuration; then enter it. extra: more sections of guard.yaml, `limits` for example."""
        text = CONFIG.format(model=model_port).replace("drain: 3s", f"drain: {drain_s}s")
        (self.directory / "guard.yaml").write_text(text + "checks: {embedder: none}\n" + extra)
        (self.directory / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
        return self

    async def _start(self) -> None:
        await self.serve()
        self._stack.push_async_callback(self.end)


def taken_apart(raw: bytes) -> Served:
    head, _, rest = raw.partition(b"\r\n\r\n")
    served = Served()
    if not head.startswith(b"HTTP/1.1 "):
        served.error = f"no answer: {raw[:100]!r}"
        return served
    served.status = int(head[9:12])
    lower = head.lower()
    found = re.search(rb"\r\nx-guard-cache: (\w+)", lower)
    served.cache = found[1].decode() if found else ""
    length = re.search(rb"\r\ncontent-length: (\d+)", lower)
    if b"transfer-encoding: chunked" in lower:
        whole = False
        while match := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
            size = int(match[1], 16)
            piece, rest = rest[match.end() : match.end() + size], rest[match.end() + size + 2 :]
            served.body += piece
            if size == 0:
                whole = True
                break
        if not whole:
            served.error = "the stream was cut"
    else:
        served.body = rest
        if length is None or len(rest) != int(length[1]):
            served.error = "the body was cut"
    return served


@asynccontextmanager
async def registry_process(directory: Path) -> AsyncIterator[int]:
    """Port of a real registry."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guard.cli", "registry", "serve", "--listen", "127.0.0.1:0", "--database",
        f"sqlite:///{directory}/registry.db", "--token-env", "REGISTRY_TOKEN",
        env=environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    found = re.search(r"registry on http://\S+:(\d+)", line)
    assert found, line
    drained = asyncio.create_task(process.stderr.read(-1))
    try:
        yield int(found[1])
    finally:
        process.terminate()
        await process.wait()
        await drained


async def until(condition: Callable[[], Any], within_s: float = 30.0) -> None:
    """Wait until an awaitable condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.1)
