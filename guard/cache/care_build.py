"""From the settings to what looks after the cache, and what of it survives a restart."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec

from guard.cache.care import CacheCare
from guard.cache.key import target_mark
from guard.cache.near import NearCache, NearConfig
from guard.cache.ports import Counters
from guard.cache.quiet import QuietPath
from guard.cache.service import AnswerCache
from guard.cache.tightening import Strictness
from guard.cache.warmer import Warmer
from guard.cache.warming import WarmLimits
from guard.pipeline import WorkerPipeline
from guard.proxy import DataPath
from guard.settings import Settings
from guard.split import WeightedSplit
from slo.clock import Clock
from slo.codec import NOT_JSON

log = logging.getLogger("guard.cache")

NAME = "cache-care.json"
SAVE_EVERY_S = 30.0


class KeptCare:
    """The care of one guard's cache with its file in the state directory."""

    def __init__(
        self, settings: Settings, answers: AnswerCache, split: WeightedSplit, counters: Counters, clock: Clock
    ) -> None:
        self._path = settings.state_dir / NAME
        self._settings, self._answers, self._split, self._clock = settings, answers, split, clock
        self.care = CacheCare(answers, split.in_traffic, counters, clock)
        self._kept = self._read()
        self.care.savings.load(self._kept.get("savings", {}))

    def connect(
        self, path: DataPath, pipeline: WorkerPipeline | None, counters: Counters, sick: Callable[[], bool]
    ) -> None:
        """Once the data path is there; before `start`."""
        cache = self._settings.file.cache
        assert cache is not None
        care, answers = self.care, self._answers
        warmer = near = None
        if cache.warming.enabled:
            w = cache.warming
            warmer = Warmer(
                WarmLimits(w.requests_per_minute, w.usd_per_hour, w.in_flight, w.span, w.least_count),
                care.ask,
                self._split.in_traffic,
                lambda assignment: target_mark(assignment.target),
                answers.store.get,
                care.keep,
                lambda: path.draining or path.shed_ratio > 0,
                sick,
                care.settle,
                counters,
                self._clock,
                key_count=w.keys,
            )
        if cache.semantic is not None:
            s = cache.semantic
            near = NearCache(
                NearConfig(
                    frozenset(s.routes), frozenset(s.tenants), s.threshold, s.budget, s.recheck, s.false_hits,
                    s.embedder, s.entries,
                ),
                answers.store.get,
                care.recheck,
                counters,
                self._clock,
                strict=_strictness(self._kept.get("strict", {})),
            )  # fmt: skip
        care.connect(QuietPath(path), pipeline.offer if pipeline is not None else None, warmer=warmer, near=near)

    async def save(self) -> None:
        """For ever: write what was saved down."""
        while True:
            await self._clock.sleep(SAVE_EVERY_S)
            try:
                await asyncio.to_thread(self._write, self._dump())
            except OSError as error:
                log.warning("%s: cannot be written: %s", self._path.name, error.strerror)

    async def stop(self) -> None:
        """End what is under way; write the last figures."""
        await self.care.stop()
        try:
            await asyncio.to_thread(self._write, self._dump())
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._path.name, error.strerror)

    def _dump(self) -> bytes:
        near = self.care.near
        strict = {route: asdict(state) for route, state in near.strict.items()} if near is not None else {}
        return msgspec.json.encode({"savings": self.care.savings.dump(), "strict": strict})

    def _write(self, data: bytes) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, self._path)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, dict[str, Any]])
        except FileNotFoundError:
            return {}
        except (OSError, *NOT_JSON) as error:
            log.warning("%s: cannot be read (%s); figures of the past are lost", self._path.name, error)
            return {}


def _strictness(kept: Any) -> dict[str, Strictness]:
    found = {}
    for route, values in kept.items() if isinstance(kept, dict) else ():
        try:
            found[str(route)] = msgspec.convert(values, Strictness)
        except msgspec.ValidationError:
            continue  # of another version
    return found
