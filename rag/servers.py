"""Run answer paths on ports: one, or several knowledge bases in one process with one embedder."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from rag.answer_path import SharedEmbedder
from rag.answer_rules import RuleSource
from rag.kb import KnowledgeBase
from rag.kb_commands import parse_place
from rag.model_client import ModelConfig
from rag.router import Pricer
from rag.routes_file import Routes
from rag.search import Reranker
from rag.serving.app import create_app
from slo.errors import ConfigError

_DRAIN_S = 5


class PlainServer(uvicorn.Server):
    """A server that leaves signals alone: several share one process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_many(
    kbs: Sequence[tuple[Path | str, int]],
    *,
    host: str = "127.0.0.1",
    model: ModelConfig | None = None,
    embedder: SharedEmbedder | str | None = None,
    k: int = 3,
    mode: str = "hybrid",
    stop: asyncio.Event | None = None,
    on_ready: Callable[[list[int]], None] | None = None,
    routes: Routes | None = None,
    prices: Pricer | None = None,
    others: Mapping[str, str] | None = None,
    context_tokens: int | None = None,
    reranker: Reranker | None = None,
    key: bytes | None = None,
    rules: RuleSource | None = None,
) -> None:
    """Serve each (directory, port) until `stop` is set, or until SIGINT or SIGTERM when no `stop` is given.

    Args:
        kbs: a port of 0 takes a free one.
        model: answers for all of them; without one answers are extractive.
        embedder: name of `load_embedder`, loaded once for all in the background ("none": words only).
        others: name to DIR or DIR@GENERATION, see `rag.serving.app.create_app`; beside each of `kbs`.
        reranker: for all of them. key: of the signatures of their pointers.
        routes, prices, context_tokens, rules: see `rag.serving.app.create_app`.
        on_ready: called with the ports, in order, when all of them accept connections.

    Raises:
        DataError: a knowledge base cannot be loaded.
        ConfigError: a port is taken.
    """
    shared = embedder if isinstance(embedder, SharedEmbedder) else SharedEmbedder(embedder)
    opened = [await asyncio.to_thread(_open, str(directory), key, reranker) for directory, _ in kbs]
    more = {name: await asyncio.to_thread(_open, place, key, reranker) for name, place in (others or {}).items()}
    sockets = [listen(host, port) for _, port in kbs]
    servers = [
        PlainServer(
            uvicorn.Config(
                create_app(
                    kb,
                    model,
                    shared,
                    k=k,
                    mode=mode,
                    routes=routes,
                    prices=prices,
                    others=more,
                    context_tokens=context_tokens,
                    follow=parse_place(str(directory))[1] is None,
                    rules=rules,
                ),
                log_level="warning",
                access_log=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        for kb, (directory, _) in zip(opened, kbs, strict=True)
    ]
    running = [asyncio.create_task(s.serve(sockets=[sock])) for s, sock in zip(servers, sockets, strict=True)]
    try:
        # uvicorn has a flag for this and no event
        while not _started(servers, running):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if on_ready is not None and all(server.started for server in servers):
            on_ready([sock.getsockname()[1] for sock in sockets])
        await _until_stopped(stop, running)
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running, return_exceptions=True)
        for sock in sockets:
            sock.close()


def serve(
    directory: Path | str,
    host: str = "127.0.0.1",
    port: int = 8810,
    model: ModelConfig | None = None,
    embedder: str | None = None,
    on_ready: Callable[[list[int]], None] | None = None,
    routes: Routes | None = None,
    prices: Pricer | None = None,
    others: Mapping[str, str] | None = None,
    context_tokens: int | None = None,
    reranker: Reranker | None = None,
    key: bytes | None = None,
    k: int = 3,
    rules: RuleSource | None = None,
) -> None:
    """Serve one knowledge base until SIGINT or SIGTERM."""
    served = serve_many(
        [(directory, port)],
        host=host,
        model=model,
        embedder=embedder,
        on_ready=on_ready,
        routes=routes,
        prices=prices,
        others=others,
        context_tokens=context_tokens,
        reranker=reranker,
        key=key,
        k=k,
        rules=rules,
    )
    asyncio.run(served)


def _open(place: str, key: bytes | None, reranker: Reranker | None) -> KnowledgeBase:
    directory, generation = parse_place(place)
    kb = KnowledgeBase.open(directory, generation=generation, key=key)
    kb.use_reranker(reranker)
    return kb


async def _until_stopped(stop: asyncio.Event | None, running: Sequence[asyncio.Task[None]]) -> None:
    loop = asyncio.get_running_loop()
    caught: list[signal.Signals] = []
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
            caught.append(number)
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        for number in caught:
            loop.remove_signal_handler(number)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigError: the port is taken or the address is not here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named protocol: asyncio switches Nagle off only then, and 40 ms per answer is what it costs otherwise.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise ConfigError("listen", f"{host}:{port}", f"{reason}; choose a free port or stop what uses it") from error
    return sock


def _started(servers: Sequence[uvicorn.Server], running: Sequence[asyncio.Task[None]]) -> bool:
    """All accept connections, or one has ended before it could."""
    return all(server.started for server in servers) or any(task.done() for task in running)
