"""A model without torch for tests of `lora serve`: it says the question, byte by byte, and breaks when told to.

`BREAKS` in a question breaks every batch it is read into or is in; `MUMBLES` gives no numbers. While `gate` is cleared
a step waits.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from lora.serving.choosing import NotFiniteError
from lora.serving.types import MIXED, Row

END = 0
BREAKS, MUMBLES, LATE = "BREAKS", "MUMBLES", "LATE"


def decode(tokens: Sequence[int]) -> str:
    """Bytes to text, the end left out."""
    return bytes(token for token in tokens if token != END).decode("utf-8", "replace")


class EchoBatch:
    """Rows under way, checked for what an engine may never do."""

    def __init__(self, model: EchoModel) -> None:
        self._model = model
        self.rows: list[Row] = []

    def join(self, rows: Sequence[Row]) -> list[int | NotFiniteError]:
        names = {row.number for row in self.rows}
        assert not names & {row.number for row in rows}, "a row is in the batch already"
        self._model.joins.append([row.number for row in rows])
        if any(BREAKS in self._model.text(row) for row in rows):
            raise RuntimeError("the model broke while it read")
        self.rows = [*self.rows, *rows]
        self._model.widest = max(self._model.widest, len(self.rows))
        return [self._next(row) for row in rows]

    def step(self) -> list[int | NotFiniteError]:
        assert self.rows, "a step without rows"
        self._model.gate.wait(30)
        self._model.steps += 1
        groups = {row.adapter for row in self.rows}
        assert "alone" not in groups or len(groups) == 1, "adapters that cannot share a batch do"
        if any(LATE in self._model.text(row) and len(row.said) > 2 for row in self.rows):
            raise RuntimeError("the model broke in the middle")
        return [self._next(row) for row in self.rows]

    def keep(self, numbers: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.number in set(numbers)]

    def _next(self, row: Row) -> int | NotFiniteError:
        text = self._model.text(row)
        if MUMBLES in text:
            return NotFiniteError()
        said = self._model.prefix(row.adapter) + text.encode()
        return said[len(row.said)] if len(row.said) < len(said) else END


class EchoModel:
    """What `Service` reads and the engine's thread computes with."""

    context_tokens = 200

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.reads = threading.Event()  # while it is cleared, texts are not turned into tokens
        self.reads.set()
        self.read_count = 0
        self.joins: list[list[int]] = []
        self.steps = self.widest = 0
        self.loaded: dict[str, bytes] = {}
        self.unloaded: list[str] = []

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        self.read_count += 1
        self.reads.wait(30)
        return tuple(messages[-1]["content"].encode())

    def text(self, row: Row) -> str:
        return bytes(row.prompt).decode("utf-8", "replace")

    def prefix(self, adapter: str | None) -> bytes:
        """What an adapter adds, so that a test sees who answered."""
        return self.loaded[adapter] if adapter is not None else b""

    def load(self, files: Mapping[str, bytes]) -> str:
        handle = f"h{len(self.loaded)}"
        self.loaded[handle] = files["adapter_config.json"]
        return handle

    def unload(self, handle: str) -> None:
        del self.loaded[handle]
        self.unloaded.append(handle)

    def group(self, handle: str | None) -> str:
        return MIXED

    def batch(self) -> EchoBatch:
        return EchoBatch(self)
