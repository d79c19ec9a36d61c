"""How full the bounded tables of the process are: where its memory is, for whoever sees it rise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from guard.c_heap import heap_bytes

if TYPE_CHECKING:
    from guard.parts import Parts

Row = tuple[str, Mapping[str, str], float | None]


def held(guard: Parts) -> Iterator[tuple[str, int]]:
    """(table, entries) of each; docs/reliability.md says what each takes and where it ends."""
    yield from guard.recent.held()
    yield from guard.labels.held()
    yield from guard.memory.held()
    if guard.cache is not None:
        yield from guard.cache.answers.held()
    if guard.kept_care is not None:
        yield from guard.kept_care.care.held()


def held_rows(guard: Parts) -> Iterator[Row]:
    """Rows for the metrics page."""
    for table, count in held(guard):
        yield "sft_guard_held_entries", {"table": table}, float(count)
    yield "sft_guard_allocated_blocks", {}, float(sys.getallocatedblocks())
    heap = heap_bytes()
    if heap is not None:
        yield "sft_guard_heap_bytes", {"state": "used"}, float(heap[0])
        yield "sft_guard_heap_bytes", {"state": "free"}, float(heap[1])
