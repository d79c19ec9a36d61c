"""One exchange log on a disk with a switch, its clock and its drop counter."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from exporters.exchange_log import ExchangeLog
from exporters.segments import DiskFile
from slo.codec import decode_exchange
from slo.types import Exchange, Outcome
from tests.unit.exporters_helpers import ManualClock

EXCHANGE = Exchange("e1", 1_750_000_000.0, "chat", "r1", "stable", Outcome.OK, 200, duration_s=0.5)


class Disk:
    """A disk with a switch: files on it fail as told."""

    def __init__(self) -> None:
        self.write_error: int | None = None
        self.sync_error: int | None = None
        self.truncate_error: int | None = None
        self.take_bytes: int | None = None  # how much of the next write gets through before it fails
        self.gate = threading.Event()
        self.gate.set()
        self.synced: list[DiskFile] = []

    def open(self, path: Path) -> DiskFile:
        return FlakyFile(path, self)


class FlakyFile(DiskFile):
    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__(path)
        self.disk = disk

    def write(self, data: memoryview) -> int:
        assert self.disk.gate.wait(20)
        if self.disk.write_error is None:
            return super().write(data)
        if self.disk.take_bytes:
            taken, self.disk.take_bytes = super().write(data[: self.disk.take_bytes]), 0
            return taken
        raise OSError(self.disk.write_error, os.strerror(self.disk.write_error))

    def truncate(self, size: int) -> None:
        if self.disk.truncate_error is not None:
            raise OSError(self.disk.truncate_error, os.strerror(self.disk.truncate_error))
        super().truncate(size)

    def sync(self) -> None:
        assert self not in self.disk.synced, "the same descriptor is never synced again"
        self.disk.synced.append(self)
        if self.disk.sync_error is not None:
            raise OSError(self.disk.sync_error, os.strerror(self.disk.sync_error))
        super().sync()


class Bench:
    """One log under test, its clock, its disk and its drop counter."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.disk = Disk()
        self.drops: Counter[str] = Counter()
        self.logs: list[ExchangeLog] = []

    def log(self, **options: object) -> ExchangeLog:
        made = ExchangeLog(
            self.directory,
            clock=self.clock,
            on_drop=lambda reason, count: self.drops.update({reason: count}),
            opener=self.disk.open,
            **options,  # type: ignore[arg-type]
        )
        self.logs.append(made)
        return made

    def ids(self) -> list[str]:
        """Exchange ids of all segments in the order of their names."""
        return [decode_exchange(line)[0].exchange_id for line in self.lines()]

    def lines(self) -> list[bytes]:
        return [line for path in self.segments() for line in path.read_bytes().splitlines()]

    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("exchanges-*"))


def numbered(count: int, start: int = 0) -> list[Exchange]:
    return [replace(EXCHANGE, exchange_id=f"e{i}") for i in range(start, start + count)]


@contextmanager
def log_bench(directory: Path) -> Iterator[Bench]:
    """A bench whose logs are closed at the end, also when a test left the disk waiting."""
    made = Bench(directory)
    yield made
    made.disk.gate.set()
    for log in made.logs:
        log.close()
