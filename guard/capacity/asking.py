"""One question over HTTP, as a load test asks it: to checked addresses only, redirects and proxies not followed."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from guard.capacity.aim import Aim
from guard.capacity.open_loop import Answer
from slo.errors import ConfigError

MAX_ANSWER_BYTES = 8 * 1024 * 1024
NUMBER = b"{n}"
"""Replaced in the body by the number of the question, so that no cache answers instead of the service."""
_END_MARKERS = (b"data: [DONE]", b"data:[DONE]", b"response.completed", b"message_stop")
_TAIL_BYTES = 4096


def default_body(model: str, stream: bool) -> bytes:
    """A short chat question, a different one each time."""
    question = "How many days of annual leave does an employee have? (question {n})"
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}]}
    if stream:
        body["stream"] = True
    return json.dumps(body).encode()


def checked_body(text: bytes, place: str) -> bytes:
    """Return the body of a file, which must be JSON.

    Raises:
        ConfigError: it is not.
    """
    try:
        json.loads(text.replace(NUMBER, b"1"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(place, f"{len(text)} bytes", f"not JSON ({error}); write the request body as JSON") from error
    return text


class _Pinned(AbstractResolver):
    """Resolves the one host to the addresses that were checked, and nothing else."""

    def __init__(self, aim: Aim) -> None:
        self._aim = aim

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._aim.host:
            raise OSError(f"{host} is not the host under test")
        return [
            ResolveResult(
                hostname=host, host=address, port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST,
            )
            for address in self._aim.addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to close."""


class Asker:
    """Asks the service under test; use as an async context manager."""

    def __init__(self, aim: Aim, body: bytes, *, stream: bool = False, token: str = "") -> None:
        self._aim, self._body, self._stream = aim, body, stream
        self._headers = {"content-type": "application/json", "user-agent": "sft-guard-capacity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Asker:
        connector = aiohttp.TCPConnector(limit=0, resolver=_Pinned(self._aim), ttl_dns_cache=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, number: int) -> Answer:
        """Ask question `number`; what went wrong is a word in the answer."""
        assert self._session is not None
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        body = self._body.replace(NUMBER, str(number).encode())
        try:
            async with self._session.post(
                self._aim.url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                first_byte_s: float | None = None
                tail, size = b"", 0
                async for chunk in response.content.iter_any():
                    if first_byte_s is None:
                        first_byte_s = loop.time() - begin_s
                    size += len(chunk)
                    if size > MAX_ANSWER_BYTES:
                        return Answer("answer too long")
                    if self._stream:
                        tail = (tail + chunk)[-_TAIL_BYTES:]
                if response.status != 200:
                    return Answer(f"status {response.status}")
                if self._stream and not any(marker in tail for marker in _END_MARKERS):
                    return Answer("stream without its end")
                return Answer("", first_byte_s)
        except (aiohttp.ClientError, OSError) as error:
            return Answer(_word(error))


def _word(error: Exception) -> str:
    """A short name for what happened to a connection; few of them, so that they can be counted."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return "cannot connect"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "connection closed"
    return type(error).__name__
