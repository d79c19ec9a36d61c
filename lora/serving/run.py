"""`lora serve` as a process: loads, listens, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import uvicorn

from lora.guards import Guards
from lora.serving.app import Authorise, create_app
from lora.serving.catalog import Sources
from lora.serving.engine import Engine
from lora.serving.meters import Meters
from lora.serving.model import Model
from lora.serving.service import Service
from lora.serving.types import Sampling
from lora.serving.waiting import Limits
from rag.servers import PlainServer, listen
from slo.clock import SystemClock

_KEEP_ALIVE_S = 75


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `lora serve` was told.

    base: path or name of the model. name: under which the base is asked. adapters: name to DIR or sealed:NAME@VERSION.
    max_tokens: of an answer, whoever asks for more. timeout_s: of a request. drain_s: for what is under way at the end.
    """

    base: str
    name: str
    adapters: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int = 8830
    guards: Guards = field(default_factory=lambda: Guards(temperature=0.1))
    max_tokens: int = 500
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 60.0
    drain_s: float = 25.0
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the server is given from outside: sources of adapters, who may, how counters are shown, where lines go."""

    sources: Sources
    may_ask: Authorise
    may_load: Authorise
    metrics: Callable[[Service], bytes]
    say: Callable[[str], None]


def serve(config: ServeConfig, around: Surroundings, on_ready: Callable[[str, Service], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        DataError, ConfigError, RefusedError: model or adapter cannot be loaded, or the port is taken.
    """
    # What was decrypted lives in this process's memory: it must not be in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asyncio.run(_serve(config, around, on_ready))


async def _serve(config: ServeConfig, around: Surroundings, on_ready: Callable[[str, Service], None]) -> None:
    sock = listen(config.host, config.port)  # before the model is loaded: a taken port is told at once
    try:
        around.say(f"loading {config.base}")
        model = await asyncio.to_thread(Model, config.base, threads=config.threads)
        service = service_of(model, config, around)
        service.engine.start()
        try:
            for name, source in config.adapters.items():
                served = await service.load(name, source, anywhere=True)
                around.say(f"loaded {name} from {source} (sha256 {served.sha256[:12]})")
            await _listen_until_stopped(config, around, service, sock, on_ready)
        finally:
            await asyncio.to_thread(service.close)
    finally:
        sock.close()


def service_of(model: Model, config: ServeConfig, around: Surroundings) -> Service:
    """Queue, thread and names over a model that is loaded; the thread is not started."""
    limits = config.limits
    if not model.joinable and limits.rows > 1:
        around.say("this model's cache is not plain keys and values: one answer at a time")
        limits = Limits(limits.queue, 1, limits.tokens)
    clock = SystemClock()
    engine = Engine(model.batch, model.decode, model.stop_ids, limits, clock, around.say)
    return Service(config.name, model, engine, clock, sources=around.sources, meters=Meters())


async def _listen_until_stopped(
    config: ServeConfig,
    around: Surroundings,
    service: Service,
    sock: socket.socket,
    on_ready: Callable[[str, Service], None],
) -> None:
    app = create_app(
        service,
        defaults=Sampling.of(config.guards),
        max_tokens=config.max_tokens,
        timeout_s=config.timeout_s,
        metrics=lambda: around.metrics(service),
        may_ask=around.may_ask,
        may_load=around.may_load,
    )
    server = PlainServer(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=_KEEP_ALIVE_S,
                       timeout_graceful_shutdown=5)
    )  # fmt: skip
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    # uvicorn has a flag for this and no event
    while not server.started and not running.done():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    on_ready(f"http://{config.host}:{sock.getsockname()[1]}", service)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, running}, return_when=asyncio.FIRST_COMPLETED)
    if service.engine.idle:
        service.draining = True
    elif not await service.drain(config.drain_s):
        around.say(f"{service.engine.running_count + service.engine.waiting_count} answers were not done in time")
        await asyncio.to_thread(service.engine.stop)  # they are told, then the connections close
    stopped.cancel()
    server.should_exit = True
    await running
