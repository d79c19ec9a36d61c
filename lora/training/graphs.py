"""Forward and backward of one shape as a CUDA graph: at few rows a step, starting kernels takes longer than running.

A graph is captured once a shape and replayed with new numbers in the same places. What is captured must not wait for
the GPU and must find its gradients where they were: gradients are zeroed, never set to None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from lora.training.layout import Batch

WARMUP = 2
MOST = 12
"""Shapes that are captured at most; each keeps its activations' memory reserved, others run without a graph."""

Shape = tuple[int, int, int]
Run = Callable[[Batch, torch.Tensor], None]


class Graphs:
    """Runs `run(batch, scale)`, which adds to gradients and sums in place, through a graph where it can."""

    def __init__(self, run: Run, clean: Callable[[], None]) -> None:
        """clean: undoes what warm-up runs added."""
        self._run, self._clean = run, clean
        self._made: dict[Shape, tuple[torch.cuda.CUDAGraph, Batch, torch.Tensor]] = {}
        self._pool: Any = None
        self.why_not = ""
        """Why nothing is captured any more; empty while all is well."""

    @property
    def count(self) -> int:
        """Graphs captured."""
        return len(self._made)

    def prepare(self, batches: Iterable[Batch], device: torch.device) -> None:
        """Capture the shapes that come up most in these batches, the largest first: they share one pool of memory."""
        example, count = dict[Shape, Batch](), Counter[Shape]()
        for batch in batches:
            example.setdefault(batch.shape, batch)
            count[batch.shape] += 1
        for shape in sorted((shape for shape, _ in count.most_common(MOST)), reverse=True):
            if not self.why_not:
                self._capture(example[shape].to(device))

    def __call__(self, batch: Batch, scale: torch.Tensor) -> None:
        """One forward and backward."""
        made = self._made.get(batch.shape)
        if made is None:
            self._run(batch, scale)
            return
        graph, place, place_scale = made
        for name in ("ids", "positions", "segments", "keep", "labels"):
            there = getattr(place, name)
            if there is not None:
                there.copy_(getattr(batch, name), non_blocking=True)
        place_scale.copy_(scale, non_blocking=True)
        graph.replay()

    def _capture(self, batch: Batch) -> None:
        segments = None if batch.segments is None else batch.segments.clone()
        place = replace(
            batch, ids=batch.ids.clone(), positions=batch.positions.clone(), segments=segments,
            keep=batch.keep.clone(), labels=batch.labels.clone(),
        )  # fmt: skip
        scale = torch.ones((), device=batch.ids.device)
        try:
            side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(1 if self._made else WARMUP):
                    self._run(place, scale)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool):
                self._run(place, scale)
            self._made[batch.shape] = graph, place, scale
        except RuntimeError as error:  # A model that cannot be captured is trained all the same, only slower.
            torch.cuda.synchronize()
            self.why_not = str(error).strip().split("\n")[0][:200]
        self._clean()
