"""What a round of probes says of a release. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe's answer. documents: ids in retrieved order, None: unknown. contexts_known: whether contexts could be
    read at all. similarity: to the reference, None: none or not measured."""

    expected: tuple[str, ...]
    failed: bool = False
    contexts_known: bool = False
    empty: bool = False
    documents: tuple[str, ...] | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One release. k: passages that count. Ratios are None where nothing could be known; the counts say of how many."""

    release: str
    wall_s: float
    asked_count: int
    failed_count: int
    k: int
    recall_count: int
    recall_ratio: float | None
    zero_hit_count: int
    zero_hit_ratio: float | None
    similarity_count: int
    similarity: float | None
    note: str = ""


def verdict(result: ProbeResult, k: int) -> str:
    """hit, miss, unknown or failed: whether an expected document was among the first k.

    >>> verdict(ProbeResult(("a",), contexts_known=True, documents=("b", "a")), 1)
    'miss'
    >>> verdict(ProbeResult(("a",), contexts_known=True, documents=None), 1)
    'unknown'
    """
    if result.failed:
        return "failed"
    if not result.expected or not result.contexts_known:
        return "unknown"
    if result.empty:
        return "miss"
    if result.documents is None:
        return "unknown"
    return "hit" if set(result.expected) & set(result.documents[:k]) else "miss"


def row_of(release: str, wall_s: float, results: Sequence[ProbeResult], k: int) -> ProbeRow:
    """Sum up one round."""
    verdicts = [verdict(r, k) for r in results]
    judged = sum(v in ("hit", "miss") for v in verdicts)
    seen = [r for r in results if r.contexts_known and not r.failed]
    scores = [r.similarity for r in results if r.similarity is not None]
    blind = sum(not r.failed and not r.contexts_known for r in results)
    notes = []
    if blind:
        notes.append(f"contexts of {blind} answers are unknown (routes.contexts): no recall and no zero-hit for them")
    unnamed = sum(bool(r.expected) and r.contexts_known and not r.empty and r.documents is None for r in results)
    if unnamed:
        notes.append(f"{unnamed} answers name no document ids (routes.contexts, `id_field`): no recall for them")
    return ProbeRow(
        release, wall_s, len(results), verdicts.count("failed"), k,
        judged, _share(v == "hit" for v in verdicts if v in ("hit", "miss")),
        len(seen), _share(r.empty for r in seen),
        len(scores), sum(scores) / len(scores) if scores else None, "; ".join(notes),
    )  # fmt: skip


def _share(flags: Iterable[bool]) -> float | None:
    told = list(flags)
    return sum(told) / len(told) if told else None
