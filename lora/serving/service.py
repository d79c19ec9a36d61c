"""The event loop's side: names to adapters, requests to the model's thread, its events back, deadlines, draining."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as changed
from typing import Protocol

from lora.serving.catalog import Served, Sources, check_name
from lora.serving.engine import Engine
from lora.serving.meters import Meters
from lora.serving.types import MIXED, Done, Event, Failed, Row, Said, Sampling, Ticket
from slo.clock import Clock
from slo.errors import DataError, GuardError, RefusedError

_GRACE_S = 0.5  # the model's thread tells a deadline between two steps; only a step that hangs is answered from here
_PROMPT_CHARACTERS_A_TOKEN = 32  # no text is read to the end that cannot fit
_POLL_S = 0.02
UNREAD = "unread"
"""Label `model` of what was refused before anybody looked which model it asks for."""


class Refused(Exception):
    """A request that is not taken in: what HTTP says."""

    def __init__(self, failed: Failed, param: str | None = None, code: str | None = None) -> None:
        self.failed, self.param, self.code = failed, param, code
        super().__init__(failed.message)


class Reader(Protocol):
    """What of the model is used outside its thread, and what its thread does with adapters."""

    context_tokens: int

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Tokens of a chat. Raises DataError."""
        ...

    def load(self, files: Mapping[str, bytes]) -> str:
        """Put an adapter in, return its handle."""
        ...

    def unload(self, handle: str) -> None:
        """Take it out."""
        ...

    def group(self, handle: str | None) -> str:
        """Which batch its answers may join."""
        ...


class Answer:
    """One answer as it comes."""

    def __init__(self, service: Service, model: Served, ticket: Ticket) -> None:
        self.model, self.number = model, ticket.number
        self._service, self._arrived_s, self._deadline_s = service, ticket.arrived_s, ticket.deadline_s
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def tell(self, event: Event) -> None:
        """From the model's thread."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody is there to be told
            pass

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events; Done or Failed is the last. Closing it early frees the row."""
        service, clock = self._service, self._service.clock
        begun_s, first, outcome = self._arrived_s, True, "cancelled"
        try:
            while True:
                try:
                    async with asyncio.timeout(max(0.0, self._deadline_s + _GRACE_S - clock.now_s())):
                        event = await self._queue.get()
                except TimeoutError:
                    event = Failed(504, "timeout", "no whole answer in time; the model does not come back")
                if isinstance(event, Said) and first:
                    first = False
                    service.meters.first_token.add(self.model.name, clock.now_s() - begun_s)
                if isinstance(event, Done):
                    outcome = "ok"
                    service.meters.tokens[self.model.name, "input"] += event.prompt_tokens
                    service.meters.tokens[self.model.name, "output"] += event.completion_tokens
                elif isinstance(event, Failed):
                    outcome = {"timeout": "timeout", "draining": "draining"}.get(event.kind, "error")
                yield event
                if not isinstance(event, Said):
                    return
        finally:
            service.engine.leave(self.number)
            service.meters.requests[self.model.name, outcome] += 1
            service.meters.duration.add(self.model.name, clock.now_s() - begun_s)


class Service:
    """One base model and its adapters, as requests see them."""

    def __init__(
        self, base: str, reader: Reader, engine: Engine, clock: Clock, *, sources: Sources, meters: Meters | None = None
    ) -> None:
        """base: name under which the base itself is asked."""
        self.reader, self.engine, self.clock, self.sources = reader, engine, clock, sources
        self.meters = meters or Meters()
        self.base = base
        self.models: dict[str, Served] = {base: Served(base, None, MIXED, "base", "", clock.wall_s())}
        self.draining = False
        self._read_count = 0  # requests whose text is being turned into tokens: they hold their places in the queue
        self._numbers = itertools.count(1)
        self._pen = ThreadPoolExecutor(1, "tokens")
        self._loading = asyncio.Lock()

    async def begin(
        self, name: str, messages: Sequence[Mapping[str, str]], how: Sampling, timeout_s: float, *, clip: bool
    ) -> Answer:
        """Queue a request. clip: an answer too long for the context is made shorter, as nobody asked for its length.

        Raises:
            Refused: unknown model, queue full, draining, too long.
        """
        arrived_s = self.clock.now_s()
        self._served(name)
        self.admit(name)
        self._read_count += 1
        try:
            ids = await self._read(messages)
        finally:
            self._read_count -= 1
        model = self._served(name)  # again: it may have been unloaded while the text was read
        room = self.reader.context_tokens - len(ids)
        if room < (1 if clip else how.max_tokens):
            raise Refused(
                Failed(400, "invalid_request_error", f"{len(ids)} tokens of messages and up to {how.max_tokens} of the "
                       f"answer do not fit into the context of {self.reader.context_tokens} tokens"),
                "messages", "context_length_exceeded",
            )  # fmt: skip
        if how.max_tokens > room:
            how = changed(how, max_tokens=room)
        tokens_count = len(ids) + how.max_tokens
        ticket = Ticket(next(self._numbers), model.group, tokens_count, arrived_s, arrived_s + timeout_s)
        answer = Answer(self, model, ticket)
        later_s = self.engine.submit(ticket, Row(answer.number, ids, how, model.handle), answer.tell)
        if later_s is not None:
            raise self._full(name, later_s)
        return answer

    def admit(self, name: str = UNREAD) -> None:
        """Refuse at once what would be refused later, before any work that grows with what was sent.

        Raises:
            Refused: queue full, draining.
        """
        if self.draining:
            self.meters.requests[name, "draining"] += 1
            raise Refused(Failed(503, "draining", "the server is stopping; ask another", 5))
        later_s = self.engine.refuses(self._read_count)
        if later_s is not None:
            raise self._full(name, later_s)

    async def load(
        self, name: str, source: str, *, token: str | None = None, replace: bool = False, anywhere: bool = False
    ) -> Served:
        """Serve an adapter under a name. Requests under way go on with what they began with.

        token: whose right counts in the vault; None is the server's own. anywhere: a directory may lie outside `root`.

        Raises:
            ConfigError, RefusedError, DataError: nothing was changed.
        """
        try:
            async with self._loading:
                check_name(name, self.models, replace=replace)
                files, sha256 = await asyncio.to_thread(self.sources.read, source, token, anywhere=anywhere)
                served = await self._put(name, files, source, sha256)
                old, self.models[name] = self.models.get(name), served
        except GuardError as error:
            self.meters.loads["refused" if isinstance(error, RefusedError) else "failed"] += 1
            raise
        self.meters.loads["ok"] += 1
        if old is not None:
            await self._take_out(old)
        return served

    async def unload(self, name: str) -> Served:
        """No new requests for an adapter; it leaves the memory when those under way are done.

        Raises:
            RefusedError: `unknown`; the base cannot be unloaded.
        """
        served = self.models.get(name)
        if served is None or served.handle is None:
            why = "is the base model" if served else "is not loaded"
            raise RefusedError("unknown", f"{name[:80]!r} {why}")
        del self.models[name]
        await self._take_out(served)
        return served

    async def drain(self, limit_s: float) -> bool:
        """Take nothing new in and wait for what is under way; whether all was answered in time."""
        self.draining = True
        end_s = self.clock.now_s() + limit_s
        while not self.engine.idle and self.clock.now_s() < end_s:
            await self.clock.sleep(_POLL_S)
        return self.engine.idle

    def close(self) -> None:
        """End the threads; who still waits is told."""
        self.draining = True
        self.engine.stop()
        self._pen.shutdown(wait=True, cancel_futures=True)

    async def _put(self, name: str, files: Mapping[str, bytes], source: str, sha256: str) -> Served:
        handle = await asyncio.wrap_future(self.engine.between_steps(lambda: self.reader.load(files)))
        return Served(name, handle, self.reader.group(handle), source, sha256, self.clock.wall_s())

    async def _take_out(self, served: Served) -> None:
        handle = served.handle
        if handle is None:
            return
        while self.engine.uses(handle):
            await self.clock.sleep(_POLL_S)
        await asyncio.wrap_future(self.engine.between_steps(lambda: self.reader.unload(handle)))

    async def _read(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        characters = sum(len(message["content"]) for message in messages)
        if characters > self.reader.context_tokens * _PROMPT_CHARACTERS_A_TOKEN:
            raise Refused(
                Failed(400, "invalid_request_error", f"messages of {characters} characters do not fit into the context "
                       f"of {self.reader.context_tokens} tokens"),
                "messages", "context_length_exceeded",
            )  # fmt: skip
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pen, self.reader.prompt_ids, messages)
        except DataError as error:
            raise Refused(Failed(400, "invalid_request_error", str(error)), "messages") from error

    def _full(self, name: str, later_s: int) -> Refused:
        self.meters.requests[name, "queue_full"] += 1
        return Refused(Failed(429, "queue_full", f"too many requests wait; come again in {later_s} s", later_s))

    def _served(self, name: str) -> Served:
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models))[:300]
            why = f"the model {name[:80]!r} is not served here; there is {known}"
            raise Refused(Failed(404, "invalid_request_error", why), "model", "model_not_found") from None
