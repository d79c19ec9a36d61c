"""Rows as tensors. Both layouts give the same loss and gradients; they differ in what they cost.

padded: one row a line, padded to the longest of its batch. Right padding and a causal model: no token sees a pad, so no
        mask is needed, and the fastest attention kernels may be used.
packed: all rows behind each other in one line, kept apart by a mask, positions counted anew for each. No pads but those
        up to a multiple of `PACK_TO`, so that few shapes come up and each can be captured as a graph.

Logits are wanted only where an answer is learnt: `keep` names those positions, and the head of the model, which is a
third of a small model's work at a large vocabulary, sees no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lora.training.encode import IGNORED, Encoded

PACK_TO = 128
PAD_TO = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once. segments: number of the row of each token, -1 for pads; None when padded.

    keep: positions whose next token is learnt. labels: (lines, positions kept). tokens: real ones, pads not counted.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor | None
    keep: torch.Tensor
    labels: torch.Tensor
    tokens: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Lines, width and positions kept: batches of one shape may share a captured graph."""
        return self.ids.shape[0], self.ids.shape[1], self.keep.shape[0]

    def to(self, device: torch.device) -> Batch:
        """On a device, without waiting for the copies."""
        if device.type == "cpu":
            return self

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        segments = None if self.segments is None else moved(self.segments)
        return Batch(
            moved(self.ids), moved(self.positions), segments, moved(self.keep), moved(self.labels), self.tokens
        )


def padded(rows: Sequence[Encoded], pad_id: int, to: int = 1) -> Batch:
    """One row a line."""
    width = _up(max(len(row.ids) for row in rows), to)
    ids = np.full((len(rows), width), pad_id, np.int64)
    labels = np.full((len(rows), width), IGNORED, np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row.ids)] = row.ids
        labels[line, : len(row.labels)] = row.labels
    learnt = np.flatnonzero((labels[:, 1:] != IGNORED).any(axis=0))
    positions = np.broadcast_to(np.arange(width), ids.shape).copy()
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(positions), None, torch.from_numpy(learnt),
        torch.from_numpy(labels[:, learnt + 1]), sum(len(row.ids) for row in rows),
    )  # fmt: skip


def packed(rows: Sequence[Encoded], pad_id: int, to: int = PACK_TO) -> Batch:
    """All rows in one line; its width and the positions kept are multiples of `to`."""
    tokens = sum(len(row.ids) for row in rows)
    width = _up(tokens, to)
    ids = np.full(width, pad_id, np.int64)
    positions = np.zeros(width, np.int64)
    segments = np.full(width, -1, np.int64)
    following = np.full(width, IGNORED, np.int64)  # label of the next token
    at = 0
    for number, row in enumerate(rows):
        end = at + len(row.ids)
        ids[at:end], positions[at:end], segments[at:end] = row.ids, np.arange(len(row.ids)), number
        following[at : end - 1] = row.labels[1:]
        at = end
    learnt = np.flatnonzero(following != IGNORED)
    keep = np.zeros(_up(len(learnt), to), np.int64)
    labels = np.full(len(keep), IGNORED, np.int64)
    keep[: len(learnt)], labels[: len(learnt)] = learnt, following[learnt]
    as_line = [torch.from_numpy(line).unsqueeze(0) for line in (ids, positions, segments, labels)]
    return Batch(as_line[0], as_line[1], as_line[2], torch.from_numpy(keep), as_line[3], tokens)


def widened(batch: Batch, kept: int) -> Batch:
    """The batch with so many positions kept at least; those added are learnt nothing from.

    Batches of one width then have one shape, and one graph serves them.
    """
    more = kept - batch.keep.shape[0]
    if more <= 0:
        return batch
    keep = torch.nn.functional.pad(batch.keep, (0, more))
    return replace(batch, keep=keep, labels=torch.nn.functional.pad(batch.labels, (0, more), value=IGNORED))


def loss_sum(model: Any, batch: Batch, *, keeps: bool = True) -> torch.Tensor:
    """Sum of the cross entropy, in nats, of the tokens that are learnt. keeps: the model takes `logits_to_keep`."""
    mask = None
    if batch.segments is not None:
        same = batch.segments.unsqueeze(2) == batch.segments.unsqueeze(1)
        mask = torch.tril(same).unsqueeze(1)
    more = {"logits_to_keep": batch.keep} if keeps else {}
    logits = model(
        input_ids=batch.ids, position_ids=batch.positions, attention_mask=mask, use_cache=False, **more
    ).logits
    if not keeps:
        logits = logits[:, batch.keep]
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _up(count: int, to: int) -> int:
    return max(1, -(-count // to)) * to
