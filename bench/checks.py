"""`python -m bench.checks`: how good and how fast the grounding check is, next to plain cosine; `--calibrate` fits it.

Quality is measured cross-fitted (the weights that judge an answer never saw its source) on public development sets that
lie outside this repository (`--data`, default ../shared/data/grounding) and on the near-miss pairs of the tests.
Nothing of the sets goes into the repository but the fitted numbers of guard/checks/calibration.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import msgspec
import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from bench.checks_report import (
    COSINE,
    MAX_COSINE,
    WORDS,
    WORDS_THERE,
    Quality,
    accuracy_text,
    cosine_text,
    near_miss_text,
)
from bench.report_section import write_section
from guard.checks.calibration import PATH, Calibration, Language, encode_calibration, load_calibration
from guard.checks.claims import clauses
from guard.checks.semantic import Semantic
from guard.checks.support import FEATURES
from guard.checks.training import FOLDS, fit, fold_of, score_of
from guard.checks.training_cosine import cosine_adjust, embed_claims, fit_cosine
from guard.checks.training_rows import Row, read_features
from guard.commands.common import program_version
from rag.embedding import load_embedder
from slo.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
MANY_SET = "ragtruth"
NOT_TRAINED = ("uhgeval-start",)
"""Measured only: without the rest of the article even the real continuation is not supported."""


def in_sample(row: Row) -> bool:
    """A tenth of the sources: embedding all long documents takes a quarter of an hour."""
    return fold_of(row.group, 10) == 0


def _lines(path: Path) -> Iterator[dict]:  # type: ignore[type-arg]
    with path.open(encoding="utf-8") as source:
        yield from map(json.loads, source)


def load_rows(data: Path) -> list[Row]:
    """Rows of the four sets that are there."""
    rows: list[Row] = []
    if (path := data / "ragtruth_qa_dev.jsonl").exists():
        rows += [
            Row("ragtruth", f"r{r['source_id']}", "en", r["question"], r["passages"], r["answer"], r["hallucinated"])
            for r in _lines(path)
        ]
    if (path := data / "begin_wow_dev.jsonl").exists():
        rows += [
            Row("begin", "b" + r["knowledge"][:40], "en", r["message"], [r["knowledge"]], r["response"],
                r["label"] != "Fully attributable")
            for r in _lines(path)
        ]  # fmt: skip
    if (path := data / "factscore_dev.jsonl").exists():
        rows += [
            Row(
                "factscore",
                f"f{crc32(r['doc'].encode()):08x}",
                "en",
                c["query"],
                [r["doc"]],
                c["claim"],
                c["label"] != "entailment",
            )
            for r in _lines(path)
            for c in r["claims"]
        ]
    if (path := data / "uhgeval_zh_dev.jsonl").exists():
        for i, r in enumerate(_lines(path)):
            contexts = [r["headline"], r["beginning"], r["remainder"]]
            for key, bad in (("hallucinated_answer", True), ("real_answer", False)):
                rows.append(Row("uhgeval", f"u{i}", "zh", r["headline"], contexts, r[key], bad))
                rows.append(Row("uhgeval-start", f"u{i}", "zh", r["headline"], contexts[:2], r[key], bad))
            # Clauses whose keywords people marked: paraphrases that are right, beside inventions.
            for clause in clauses(r["hallucinated_answer"]):
                marked = [k["ok"] for k in r["keywords"] if k["keyword"] in clause]
                if len(marked) >= 2:
                    rows.append(Row("uhgeval-clause", f"u{i}", "zh", "", contexts, clause, not all(marked)))
    return rows


def assign_folds(rows: list[Row], seed: int = 0) -> None:
    groups = sorted({r.group for r in rows})
    fold = dict(zip(groups, np.random.default_rng(seed).integers(0, FOLDS, len(groups)), strict=True))
    for row in rows:
        row.fold = int(fold[row.group])


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Cut with the best F1: what max cosine is granted, on the very rows it is measured on."""
    grid = np.quantile(scores, np.linspace(0.02, 0.98, 97))
    return float(max(grid, key=lambda t: f1_score(labels, scores >= t)))


def embed_rows(rows: list[Row], semantic: Semantic) -> None:
    """Cosines of claims where the embedder covers them, and the plain cosine of every answer with its best context."""
    began = time.monotonic()
    for name in sorted({r.name for r in rows}):
        mine = [r for r in rows if r.name == name]
        print(f"embedding {len(mine)} answers of {name} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
        embed_claims(mine, semantic)
        for row in mine:
            if row.answer.strip() and row.contexts:
                row.max_cosine = semantic.best_cosine(row.answer, row.contexts)


def weighed(rows: list[Row], language: Language) -> Language:
    """With the weight of the cosine, fitted on those of the rows that carry one."""
    return msgspec.structs.replace(language, cosine=fit_cosine(rows, "en", language))


def measure(rows: list[Row], embedded: bool) -> list[Quality]:
    """Cross-fitted quality per set: our tiers, and max cosine where rows carry cosines."""
    scores: dict[int, float] = {}
    with_cosine: dict[int, float] = {}
    limits: dict[int, tuple[float, float]] = {}
    for fold in range(FOLDS):
        train = [r for r in rows if r.fold != fold and r.name not in NOT_TRAINED]
        languages = {lang: fit(train, lang) for lang in ("en", "zh") if any(r.lang == lang for r in rows)}
        if embedded and "en" in languages:
            languages["en"] = weighed(train, languages["en"])
        for row in rows:
            if row.fold == fold:
                language = languages[row.lang]
                scores[id(row)] = score_of(row, language)
                limits[id(row)] = (language.thresholds["balanced"], language.thresholds["fpr_05"])
                if row.cosines and language.cosine:
                    with_cosine[id(row)] = score_of(row, language, cosine_adjust(row, language))
    found = []
    for name in sorted({r.name for r in rows}):
        mine = [r for r in rows if r.name == name]
        found.append(_quality(name, WORDS, mine, scores, limits))
        if seen := [r for r in mine if r.max_cosine > 0.0]:
            found.append(_quality(name, WORDS_THERE, seen, scores, limits))
            if any(id(r) in with_cosine for r in seen):
                found.append(_quality(name, COSINE, seen, {**scores, **with_cosine}, limits))
            y = np.array([r.unsupported for r in seen])
            s = np.array([1 - r.max_cosine for r in seen])
            cut = best_threshold(s, y)
            plain = {id(r): 1 - r.max_cosine for r in seen}
            found.append(_quality(name, MAX_COSINE, seen, plain, dict.fromkeys(plain, (cut, cut))))
    for row in rows:
        row.score = scores[id(row)]
    return found


def _quality(
    name: str, label: str, rows: list[Row], scores: dict[int, float], limits: dict[int, tuple[float, float]]
) -> Quality:
    s = np.array([scores[id(r)] for r in rows])
    y = np.array([r.unsupported for r in rows])
    hit, few = (s >= np.array([limits[id(r)][k] for r in rows]) for k in (0, 1))
    return Quality(
        name, label, len(y), int(y.sum()), float(roc_auc_score(y, s)), float(f1_score(y, hit)),
        float(balanced_accuracy_score(y, hit)), float(hit[~y].mean()), float(f1_score(y, few)), float(few[~y].mean()),
    )  # fmt: skip


def transfer(rows: list[Row]) -> dict[str, float]:
    """AUROC on each English set of numbers that were fitted on the other sets only."""
    names = sorted({r.name for r in rows if r.lang == "en"} - set(NOT_TRAINED))
    found = {}
    for name in names:
        try:
            language = fit([r for r in rows if r.name != name], "en")
        except DataError:
            continue
        mine = [r for r in rows if r.name == name]
        found[name] = float(roc_auc_score([r.unsupported for r in mine], [score_of(r, language) for r in mine]))
    return found


def pair_ratio(rows: list[Row], name: str) -> tuple[float, int]:
    """Share of pairs (a right and a wrong one of the same source) in which the right one scores better, and how many.

    A tie counts half.
    """
    by_group: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.name == name:
            by_group.setdefault(row.group, ([], []))[row.unsupported].append(row.score)
    pairs = [(good, bad) for goods, bads in by_group.values() for good in goods for bad in bads]
    return sum((bad > good) + 0.5 * (bad == good) for good, bad in pairs) / max(1, len(pairs)), len(pairs)


def speed(rows: list[Row], semantic: Semantic | None, seconds: float = 3.0) -> None:
    """Answers per second on one core: 250-token answers, three contexts of 300 tokens, all checks of the suite."""
    from guard.checks.spec import CheckSpec
    from guard.checks.suite import CheckSuite
    from guard.ports import ExchangeText

    pool = [c for r in rows if r.name == MANY_SET for c in r.contexts] or [
        " ".join(f"Rule {i} allows {i} days of leave per year." for i in range(40))
    ]
    answers = [r.answer for r in rows if r.name == MANY_SET] or pool
    stream = " ".join(pool).split()
    replies = " ".join(answers).split()
    pieces = [" ".join(stream[i : i + 230]) for i in range(0, min(len(stream), 450_000) - 230, 97)]
    said = [" ".join(replies[i : i + 190]) for i in range(0, len(replies) - 190, 61)]
    texts = [
        ExchangeText(
            "What are the rules?", said[i % len(said)], tuple(pieces[(3 * i + k) % len(pieces)] for k in range(3))
        )
        for i in range(1200)
    ]
    print("\nspeed, one core, all checks (190-word answer, 3 contexts of 230 words: about 250 and 300 tokens)")
    kinds: list[tuple[str, Semantic | None, list[ExchangeText]]] = [
        ("lexical, contexts never seen before", None, texts),
        (
            "lexical, contexts from a pool of 60",
            None,
            [replace(t, contexts=texts[i % 20].contexts) for i, t in enumerate(texts)],
        ),
    ]
    if semantic is not None:
        kinds.append(("MiniLM, contexts from a pool of 60", semantic, kinds[1][2]))
    for label, embedder, load in kinds:
        suite = CheckSuite(CheckSpec(embedder="none"))
        suite.semantic = embedder
        began, count = time.perf_counter(), 0
        cpu = time.process_time()
        for i, text in enumerate(load):
            suite.check(text, release="r1", arm="stable")
            count = i + 1
            if time.perf_counter() - began > seconds:
                break
        print(f"  {label:40} {count / (time.process_time() - cpu):8.0f} answers per CPU second")


def calibrate(rows: list[Row], semantic: Semantic | None) -> None:
    """Write guard/checks/calibration.json from all rows but those of `NOT_TRAINED`."""
    train = [r for r in rows if r.name not in NOT_TRAINED]
    languages = {lang: fit(train, lang) for lang in ("en", "zh")}
    if semantic is not None:
        languages["en"] = weighed(train, languages["en"])
    made = Calibration(datetime.now(UTC).date().isoformat(), FEATURES, semantic.name if semantic else "", languages,
                       f"python -m bench.checks --calibrate, sft-guard {program_version()}")  # fmt: skip
    PATH.write_bytes(encode_calibration(made))
    print(f"wrote {PATH.relative_to(ROOT)}, {PATH.stat().st_size} bytes")
    load_calibration.cache_clear()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.checks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "grounding")
    parser.add_argument("--calibrate", action="store_true", help="fit guard/checks/calibration.json anew")
    parser.add_argument("--no-embedder", action="store_true")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the sections of docs/accuracy.md")
    args = parser.parse_args(argv)
    rows = load_rows(args.data)
    semantic = None
    if rows and not args.no_embedder and (embedder := load_embedder(None, threads=1)) is not None:
        semantic = Semantic(embedder, cache_count=100_000)
    if not rows:
        print(f"SKIPPED quality: no development sets in {args.data}; pass --data DIR", file=sys.stderr)
        if args.calibrate:
            return 2
    else:
        read_features(rows)
        assign_folds(rows)
        if semantic is not None:
            long = ("factscore", "uhgeval", "uhgeval-clause")
            embed_rows(
                [r for r in rows if r.name not in NOT_TRAINED and (r.name not in long or in_sample(r))], semantic
            )
        if args.calibrate:
            calibrate(rows, semantic)
        found = measure(rows, semantic is not None)
        pairs = {name: pair_ratio(rows, name) for name in ("uhgeval", "uhgeval-start", "uhgeval-clause")}
        section = accuracy_text(found, transfer(rows), pairs)
        print(section)
        if args.write:
            write_section("grounding", section)
        if semantic is not None:
            print(cosine_text(found))
            if args.write:
                write_section("cosine", cosine_text(found))
    near = near_miss_text(load_calibration())
    print(near)
    if args.write:
        write_section("near misses", near)
    if not args.no_speed:
        speed(rows, semantic)
    return 0


if __name__ == "__main__":
    sys.exit(main())
