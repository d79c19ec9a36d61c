"""The grounding and near-miss sections of docs/accuracy.md, as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report_section import table
from guard.checks.calibration import Calibration
from guard.checks.grounding import check_grounding

_DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
TWINS = (_DATA / "checks_near_miss.jsonl", _DATA / "checks_near_miss_second.jsonl")
HALVES = ("tuned", "held out", "tuned 2", "held out 2")

NAMES = {
    "ragtruth": "RAGTruth-QA, answers",
    "begin": "BEGIN, Wizard of Wikipedia",
    "factscore": "FActScore, claims",
    "uhgeval": "UHGEval (zh), answers, whole article",
    "uhgeval-clause": "UHGEval (zh), single clauses",
    "uhgeval-start": "UHGEval (zh), answers, only the start of the article",
}


@dataclass(frozen=True, slots=True)
class Quality:
    """One line of the table. All measured on rows whose source the numbers never saw."""

    name: str
    detector: str
    count: int
    bad_count: int
    auroc: float
    f1_ratio: float
    balanced_ratio: float
    fpr_ratio: float
    fpr05_f1_ratio: float
    fpr05_fpr_ratio: float


WORDS, WORDS_THERE, COSINE, MAX_COSINE = (
    "words and facts", "words and facts, same rows", "with cosine in the band", "max cosine, best cut",
)  # fmt: skip
"""Detectors of a line; all but the first on rows that an embedder has read."""


def cosine_text(found: list[Quality]) -> str:
    """The section: max cosine and the transformer in the band, beside words and facts on the same rows."""
    by_set: dict[str, dict[str, Quality]] = {}
    for q in found:
        by_set.setdefault(q.name, {})[q.detector] = q
    rows = []
    for name in NAMES:
        mine = by_set.get(name, {})
        if (plain := mine.get(MAX_COSINE)) is None:
            continue
        cells = [mine.get(d) for d in (MAX_COSINE, WORDS_THERE, COSINE)]
        rows.append([NAMES[name], f"{plain.count:,} ({plain.bad_count:,})", *map(_cell, cells)])
    head = ["set", "rows (bad)", "max cosine", "words and facts", "with the transformer in the band"]
    return f"""```sh
python -m bench.checks --no-speed --write
```

AUROC / F1 / flagged of the good, on rows that all-MiniLM-L6-v2 has read (of FActScore and UHGEval a tenth of the
sources). *Max cosine* is the method of the practice: the best cosine of an answer to a context, granted the best cut on
the very rows it is measured on. *In the band*: `checks.transformer`, cross-fitted like the rest; words and facts beside
it are judged on the same rows.

{table(head, rows)}"""


def _cell(q: Quality | None) -> str:
    return f"{q.auroc:.3f} / {100 * q.f1_ratio:.1f} / {100 * q.fpr_ratio:.1f} %" if q else "not covered"


def accuracy_text(found: list[Quality], transferred: dict[str, float], pairs: dict[str, tuple[float, int]]) -> str:
    """The section: words and facts, transfer, pairs, published figures."""
    rows = [
        [
            NAMES.get(q.name, q.name), q.detector, f"{q.count:,} ({q.bad_count:,})", f"{q.auroc:.3f}",
            f"{100 * q.f1_ratio:.1f}", f"{100 * q.balanced_ratio:.1f}", f"{100 * q.fpr_ratio:.1f} %",
            f"{100 * q.fpr05_f1_ratio:.1f} / {100 * q.fpr05_fpr_ratio:.1f} %",
        ]
        for q in sorted(found, key=lambda q: list(NAMES).index(q.name))
        if q.detector == WORDS
    ]  # fmt: skip
    head = ["set", "detector", "rows (bad)", "AUROC", "F1", "balanced accuracy", "flagged of the good",
            "at the 5 % cut: F1 / flagged"]  # fmt: skip
    moved = ", ".join(f"{NAMES[n]} {v:.3f}" for n, v in transferred.items())
    paired = "; ".join(f"{NAMES[n]}: {r:.1%} of {c} pairs" for n, (r, c) in pairs.items())
    return f"""    make bench-checks

Development halves. Every figure is cross-fitted by source: weights, trees and thresholds that judge an answer never saw
its question or document. One threshold a language serves all its sets. The plain method, max cosine, and what a
transformer adds stand in the next section.

{table(head, rows)}

AUROC on a set that took no part in training at all (fitted on the other English sets): {moved}.

Real continuation scored better than the invented one: {paired}. With the whole article this is easy, because the real
continuation is part of it; with the start alone it shows that support by the context is measured, not truth.
Clauses are paired within one model's continuation: each that people marked right with each that they marked wrong.

{PUBLISHED}"""


PUBLISHED = """Published on RAGTruth-QA, answer-level F1 on the whole test split, of which this is half:

| system | F1 | source |
|---|---|---|
| RAGAS | 35.7 | Belyi et al. 2024, "Luna: An Evaluation Foundation Model to Catch Language Model \
Hallucinations with High \
Accuracy and Low Cost", arXiv 2406.00975 |
| GPT-4-turbo, prompted | 45.6 | Niu et al. 2024, "RAGTruth: A Hallucination Corpus for Developing Trustworthy \
Retrieval-Augmented Language Models", arXiv 2401.00396 |
| Luna (440 M) | 51.3 | Belyi et al. 2024 |
| LettuceDetect base / large (150 M / 396 M) | 65.5 / 70.2 | Kovacs and Recski 2025, "LettuceDetect: A Hallucination \
Detection Framework for RAG Applications", arXiv 2502.17125 |
| Llama-2-13B, fine-tuned | 68.2 | Niu et al. 2024 |
| RAG-HAT (8 B) | 74.8 | Song et al. 2024, "RAG-HAT: A Hallucination-Aware Tuning Pipeline for LLM in \
Retrieval-Augmented Generation", EMNLP 2024 industry track |

So a fine-tuned detector model is still clearly better on long answers; it is an optional tier. UHGEval, keyword
accuracy: GPT-4 70.0, GPT-3.5 53.7 (Liang et al. 2024, "UHGEval: Benchmarking the Hallucination of Chinese
Large Language Models via Unconstrained Generation", arXiv 2311.15296)."""


def near_miss_text(calibration: Calibration) -> str:
    """The section: caught and false alarms per language and half."""
    pairs = [json.loads(line) for path in TWINS for line in path.read_text(encoding="utf-8").splitlines()]
    rows = []
    for half in HALVES:
        for lang in ("en", "zh"):
            mine = [p for p in pairs if p["lang"] == lang and p["half"] == half]
            if mine:
                cells = []
                for name in ("balanced", "fpr_05"):
                    caught = sum(fails(p, p["unsupported"], calibration, name) for p in mine)
                    false = sum(fails(p, p["supported"], calibration, name) for p in mine)
                    cells.append(f"{caught / len(mine):.0%} / {false / len(mine):.0%}")
                rows.append([half, lang, str(len(mine)), *cells])
    head = ["half", "language", "pairs", "caught / false alarms on the true twins, `balanced`", "the same at `fpr_05`"]
    return f"""Two answers to the same contexts, one true, one a near miss: another number, unit, date, name, address,
path, version, a negation, a comparison turned round, roles or parts that changed places. Never trained on. The first
set (`tests/data/checks_near_miss.jsonl`) is close to its contexts in words; the second
(`tests/data/checks_near_miss_second.jsonl`, halved by context) puts both answers in other words, with other units and
calendars. Each held-out half was written before the rules were adjusted on the tuned one, and of it only totals, also
by kind of finding, were seen. The goal was 95 % caught at 5 % false alarms: it is not reached, and answers in other
words are the harder ones.

{table(head, rows)}"""


def fails(pair: dict[str, Any], answer: str, calibration: Calibration, named: str = "balanced") -> bool:
    """Whether the check fails an answer of a pair."""
    found = check_grounding(pair.get("question", ""), answer, pair["contexts"], calibration, named_threshold=named)
    return found.result.value == "fail"
