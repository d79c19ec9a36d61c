"""The way between one replica and the registry: delays, loss, lost answers, duplicates, late writers, partitions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from registry.errors import RegistryRefused, RegistryUnreachable

TIMEOUT_S = 2.0
LATE_S = 20.0


@dataclass(frozen=True, slots=True)
class Weather:
    """Probabilities per call, and the longest ordinary delay of one way in seconds."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    late: float = 0.0  # the request arrives after its sender has given up: a stale write
    twice: float = 0.0  # and arrives again later
    delay_s: float = 0.0


CALM = Weather()


class Link:
    """One replica's calls. `cut`: nothing gets through in either direction."""

    def __init__(self, chance: random.Random, check: Callable[[], None], told: Callable[[str], None]) -> None:
        self._chance, self._check, self._told = chance, check, told
        self.weather = CALM
        self.cut = False

    async def __call__(self, call: Callable[[], Any]) -> Any:
        """Carry out `call` at the registry, some time, perhaps; raise what the registry or the network says."""
        self._check()
        w = self.weather
        if w is CALM and not self.cut:
            return call()
        chance = self._chance.random
        loop = asyncio.get_running_loop()
        if self.cut or chance() < w.lost_request:
            await asyncio.sleep(TIMEOUT_S)
            self._check()
            raise RegistryUnreachable("simulated: the request was lost")
        there_s = chance() * w.delay_s
        if chance() < w.late:
            there_s += TIMEOUT_S + chance() * LATE_S
            self._told("late request")
        back_s = chance() * w.delay_s
        drop_answer = chance() < w.lost_answer
        if chance() < w.twice:
            loop.call_later(there_s + chance() * LATE_S, self._again, call)
        if there_s == back_s == 0.0 and not drop_answer:
            return call()
        answer: asyncio.Future[Any] = loop.create_future()
        loop.call_later(there_s, self._arrive, call, answer, back_s, drop_answer)
        timer = loop.call_later(TIMEOUT_S, _settle, answer, None, RegistryUnreachable("simulated: no answer in time"))
        try:
            return await answer
        finally:
            timer.cancel()
            self._check()

    def _arrive(self, call: Callable[[], Any], answer: asyncio.Future[Any], back_s: float, drop: bool) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = call()
        except RegistryRefused as refused:
            error = refused
        if drop or self.cut:
            self._told("answer lost")
            return
        asyncio.get_running_loop().call_later(back_s, _settle, answer, result, error)

    def _again(self, call: Callable[[], Any]) -> None:
        self._told("duplicate")
        try:
            call()
        except RegistryRefused:
            pass  # Nobody is waiting for this answer.


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
