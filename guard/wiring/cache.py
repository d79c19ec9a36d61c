"""The answer cache and what looks after it, where guard.yaml asks for a cache."""

from __future__ import annotations

from typing import Any

from guard.cache.build import GuardCache
from guard.cache.care_build import KeptCare
from guard.settings import Settings
from guard.split import WeightedSplit
from guard.wiring.loops import Loops
from guard.wiring.recorders import Recorders
from slo.clock import Clock


class CacheParts:
    """Both are there or neither: `cache` (answers, its store) and `care` (savings, warming, near answers)."""

    def __init__(self, settings: Settings, split: WeightedSplit, recorders: Recorders, clock: Clock) -> None:
        """Opens no socket.

        Raises:
            ConfigError: Redis is asked for and redis-py is not installed.
        """
        self.cache: GuardCache | None = None
        self.care: KeptCare | None = None
        wanted = settings.file.cache
        if wanted is None or not wanted.enabled:
            return
        exporter = recorders.exporter
        self.cache = GuardCache(settings, exporter, clock)
        self.care = KeptCare(settings, self.cache.answers, split, exporter, clock)
        recorders.quality.source_of = self.cache.answers.source_of
        exporter.gauge_source(self.care.care.gauges)
        exporter.gauge_source(self.cache.gauges)

    def recorders(self) -> dict[str, Any]:
        """Told of exchanges like every recorder."""
        if self.cache is None or self.care is None:
            return {}
        return {"cache": self.cache.answers, "cache_care": self.care.care}

    def flag(self, exchange_id: str) -> None:
        """A thumb points down: the answer is not given again."""
        if self.cache is not None:
            self.cache.answers.flag(exchange_id)

    async def start(self, loops: Loops) -> None:
        """Before the listener opens."""
        if self.cache is not None:
            await self.cache.start()
            loops.begin("cache", self.cache.run())
        if self.care is not None:
            self.care.care.start()
            loops.begin("cache_care", self.care.care.run())
            loops.begin("cache_figures", self.care.save())

    async def stop(self) -> None:
        """After the last answer."""
        if self.care is not None:
            await self.care.stop()
        if self.cache is not None:
            await self.cache.stop()
