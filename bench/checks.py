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
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from guard.checks.calibration import PATH, Calibration, Language, load_calibration
from guard.checks.claims import clauses
from guard.checks.context import read_context
from guard.checks.facts import statement
from guard.checks.grounding import (
    CONTRADICTION_CHANCE,
    CONTRADICTION_MARGIN,
    LONG_TERMS,
    NO_CLAIM_SUPPORT,
    SHORT_TERMS,
    answer_score,
    check_grounding,
    claim_probability,
    must_fail,
    read_claims,
)
from guard.checks.semantic import Semantic
from guard.checks.support import FEATURES, assess
from rag.embedding import load_embedder

ROOT = Path(__file__).resolve().parent.parent
TWINS = ROOT / "tests" / "data" / "checks_near_miss.jsonl"
FOLDS = 5
SINGLE_SETS = ("begin", "factscore")
MANY_SET = "ragtruth"


@dataclass(slots=True)
class Row:
    """One labelled answer. features: of each claim; cosines: best cosine of each claim with a context sentence."""

    name: str
    group: str
    lang: str
    question: str
    contexts: list[str]
    answer: str
    unsupported: bool
    features: list[tuple[float, ...]] = field(default_factory=list)
    contradicted: list[bool] = field(default_factory=list)
    must_fail: bool = False
    term_count: int = 0
    claims: list[str] = field(default_factory=list)
    fold: int = 0
    cosines: list[float] = field(default_factory=list)
    max_cosine: float = 0.0

    def fold_of(self, count: int) -> int:
        """A stable share of the groups."""
        return zlib.crc32(self.group.encode()) % count


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
            Row("factscore", f"f{i}", "en", c["query"], [r["doc"]], c["claim"], c["label"] != "entailment")
            for i, r in enumerate(_lines(path))
            for c in r["claims"]
        ]
    if (path := data / "uhgeval_zh_dev.jsonl").exists():
        for i, r in enumerate(_lines(path)):
            contexts = [r["headline"], r["beginning"], r["remainder"]]
            for key, bad in (("hallucinated_answer", True), ("real_answer", False)):
                rows.append(Row("uhgeval", f"u{i}", "zh", r["headline"], contexts, r[key], bad))
            # Clauses whose keywords people marked: paraphrases that are right, beside inventions.
            for clause in clauses(r["hallucinated_answer"]):
                marked = [k["ok"] for k in r["keywords"] if k["keyword"] in clause]
                if len(marked) >= 2:
                    rows.append(Row("uhgeval-clause", f"u{i}", "zh", "", contexts, clause, not all(marked)))
    return rows


def read(rows: Iterable[Row]) -> None:
    """Fill in features; about 1 ms per answer."""
    for row in rows:
        contexts = [read_context(c) for c in row.contexts if c.strip()]
        asked = statement(row.question)
        claims, _ = read_claims(row.answer)
        row.claims = [c.text for c in claims]
        supports = [assess(c, contexts, asked) for c in claims]
        row.features = [s.features for s in supports]
        row.term_count = sum(s.term_count for s in supports)
        row.contradicted = [must_fail(s, row.term_count) for s in supports]
        row.must_fail = any(row.contradicted)


def assign_folds(rows: list[Row], seed: int = 0) -> None:
    groups = sorted({r.group for r in rows})
    fold = dict(zip(groups, np.random.default_rng(seed).integers(0, FOLDS, len(groups)), strict=True))
    for row in rows:
        row.fold = int(fold[row.group])


def fit(rows: list[Row], lang: str) -> Language:
    """Fit one language: the model of a claim, then what many claims together mean, then the thresholds."""
    mine = [r for r in rows if r.lang == lang and r.features]
    names = SINGLE_SETS if lang == "en" else ("uhgeval", "uhgeval-clause")
    train = [r for r in mine if r.name in names]
    x = np.array([np.max(r.features, axis=0) for r in train])
    y = np.array([r.unsupported for r in train])
    sizes = {n: sum(r.name == n for r in train) for n in names}
    w = np.array([len(train) / len(names) / sizes[r.name] for r in train])
    model = LogisticRegression(C=0.3, max_iter=5000).fit(x, y, sample_weight=w)
    count = {n: sum(r.name == n for r in mine) for n in sorted({r.name for r in mine})}
    language = Language(
        intercept=round(float(model.intercept_[0]), 4), weights=tuple(round(float(v), 4) for v in model.coef_[0]),
        length_shift=0.0, thresholds={}, sample_count=count,
    )  # fmt: skip
    single = [(score_of(r, language), r.unsupported) for r in train if r.term_count <= SHORT_TERMS]
    limit = best_threshold(single)
    many = [r for r in mine if r.name == MANY_SET and r.term_count >= LONG_TERMS]
    if many:  # Shift so that the best cut of long answers is the best cut of single claims: one threshold serves both.
        cut = best_threshold([(score_of(r, language), r.unsupported) for r in many], 0.999)
        shift = np.log(cut / (1 - cut)) - np.log(limit / (1 - limit))
        language = replace_struct(language, length_shift=round(float(shift), 4))
    supported = sorted(score_of(r, language) for r in mine if not r.unsupported and r.name != "uhgeval-clause")
    thresholds = {"balanced": round(limit, 4), "fpr_05": round(min(0.89, float(np.quantile(supported, 0.95))), 4)}
    if lang == "zh":
        thresholds["balanced"] = round(max(limit, 0.5), 4)
    return replace_struct(language, thresholds=thresholds)


def fit_cosine(rows: list[Row], language: Language) -> tuple[float, ...]:
    """Second model for claims in doubt: logit of the first and the best cosine. Rows need `cosines`."""
    x, y = [], []
    for row in rows:
        if row.name in SINGLE_SETS and len(row.features) == 1 and row.cosines:
            p = claim_probability(row.features[0], language)
            if 0.15 < p < 0.85:
                x.append((np.log(p / (1 - p)), row.cosines[0]))
                y.append(row.unsupported)
    model = LogisticRegression(C=1.0).fit(np.array(x), np.array(y))
    return (round(float(model.intercept_[0]), 4), *(round(float(v), 4) for v in model.coef_[0]))


def replace_struct(language: Language, **changes: object) -> Language:
    return msgspec.structs.replace(language, **changes)


def score_of(row: Row, language: Language, *, cosine: bool = False) -> float:
    """Hallucination score as the check gives it."""
    if not row.features:
        return 1 - NO_CLAIM_SUPPORT
    chances = [claim_probability(f, language) for f in row.features]
    if cosine and language.cosine and row.cosines:
        a, b, c = language.cosine
        for i, p in enumerate(chances):
            if 0.15 < p < 0.85:
                chances[i] = 1 / (1 + np.exp(-(a + b * np.log(p / (1 - p)) + c * row.cosines[i])))
    chances = [max(p, CONTRADICTION_CHANCE) if c else p for p, c in zip(chances, row.contradicted, strict=True)]
    score = answer_score(chances, row.term_count, language)
    if row.must_fail and language.thresholds:
        score = max(score, language.thresholds["balanced"] + CONTRADICTION_MARGIN)
    return score


def best_threshold(pairs: list[tuple[float, bool]], largest: float = 0.85) -> float:
    """Cut with the best F1, in the middle of the plateau around it."""
    scores = np.array([p for p, _ in pairs])
    labels = np.array([y for _, y in pairs])
    grid = np.quantile(scores, np.linspace(0.02, 0.98, 97))
    f1 = np.array([f1_score(labels, scores >= t) for t in grid])
    return float(np.clip(np.median(grid[f1 >= f1.max() - 0.005]), 0.05, largest))


def embed_rows(rows: list[Row], semantic: Semantic) -> None:
    """Cosines of every claim with its best context sentence, and the plain cosine of the whole answer."""
    wanted: dict[str, None] = {}
    for row in rows:
        wanted.update(dict.fromkeys((*row.claims, *(s.text for c in row.contexts for s in read_context(c).sentences))))
        wanted.update(dict.fromkeys((row.answer, *row.contexts)))
    texts = sorted(wanted, key=len)  # alike lengths together: a batch is as slow as its longest text
    for start in range(0, len(texts), 256):
        semantic.vectors(texts[start : start + 256])
    for row in rows:
        sentences = [s.text for c in row.contexts if c.strip() for s in read_context(c).sentences]
        if row.claims and sentences:
            row.cosines = [semantic.best_cosine(c, sentences) for c in row.claims]
            row.max_cosine = semantic.best_cosine(row.answer, row.contexts)


def report(rows: list[Row], embedded: bool) -> None:
    """Cross-fitted quality per set."""
    scores: dict[int, float] = {}
    with_cosine: dict[int, float] = {}
    limits: dict[int, float] = {}
    for fold in range(FOLDS):
        train = [r for r in rows if r.fold != fold]
        languages = {lang: fit(train, lang) for lang in ("en", "zh") if any(r.lang == lang for r in rows)}
        if embedded and "en" in languages:
            languages["en"] = replace_struct(languages["en"], cosine=fit_cosine(train, languages["en"]))
        for row in rows:
            if row.fold == fold:
                scores[id(row)] = score_of(row, languages[row.lang])
                with_cosine[id(row)] = score_of(row, languages[row.lang], cosine=True)
                limits[id(row)] = languages[row.lang].thresholds["balanced"]
    print(f"{'set':16} {'n':>5} {'bad':>5}  {'detector':18} {'AUROC':>6} {'F1':>6} {'bal.acc':>7} {'FPR':>6}")
    for name in sorted({r.name for r in rows}):
        mine = [r for r in rows if r.name == name]
        _judged(name, "lexical", mine, scores, limits)
        embedded_rows = [r for r in mine if r.cosines]
        if embedded and embedded_rows:
            if len(embedded_rows) < len(mine):
                _judged(name, "lexical, same rows", embedded_rows, scores, limits)
            _judged(name, "lexical+cosine", embedded_rows, with_cosine, limits)
            y = np.array([r.unsupported for r in embedded_rows])
            s = np.array([1 - r.max_cosine for r in embedded_rows])
            t = best_threshold([(v, bool(b)) for v, b in zip(s, y, strict=True)])
            _line(name, y, "max cosine (best t)", s, s >= t)


def _judged(name: str, label: str, rows: list[Row], scores: dict[int, float], limits: dict[int, float]) -> None:
    s = np.array([scores[id(r)] for r in rows])
    _line(name, np.array([r.unsupported for r in rows]), label, s, s >= np.array([limits[id(r)] for r in rows]))


def _line(name: str, y: np.ndarray, label: str, s: np.ndarray, hit: np.ndarray) -> None:
    fpr = float(np.mean(hit[~y])) if (~y).any() else 0.0
    f1, balanced = 100 * f1_score(y, hit), 100 * balanced_accuracy_score(y, hit)
    print(
        f"{name:16} {len(y):5} {int(y.sum()):5}  {label:18.18} {roc_auc_score(y, s):6.3f} {f1:6.1f} {balanced:7.1f} "
        f"{100 * fpr:5.1f}%"
    )


def report_twins(calibration: Calibration) -> None:
    """Near-miss pairs: caught, and false alarms on the true twins."""
    print("\nnear-miss twins (tests/data/checks_near_miss.jsonl; never trained on)")
    for lang in ("en", "zh"):
        rows = [r for r in _lines(TWINS) if r["lang"] == lang]
        caught = sum(_fails(r, r["unsupported"], calibration) for r in rows)
        false = sum(_fails(r, r["supported"], calibration) for r in rows)
        print(f"  {lang}: caught {caught} of {len(rows)} ({caught / len(rows):.0%}), "
              f"false alarms {false} of {len(rows)} ({false / len(rows):.0%})")  # fmt: skip


def _fails(row: dict, answer: str, calibration: Calibration) -> bool:  # type: ignore[type-arg]
    return check_grounding(row.get("question", ""), answer, row["contexts"], calibration).result.value == "fail"


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
    languages = {lang: fit(rows, lang) for lang in ("en", "zh")}
    if semantic is not None:
        languages["en"] = replace_struct(languages["en"], cosine=fit_cosine(rows, languages["en"]))
    embedder = semantic.name if semantic else ""
    if semantic is None:  # the cosine of the last run stays; it is a small correction on top
        last = load_calibration()
        languages["en"] = replace_struct(languages["en"], cosine=last.languages["en"].cosine)
        embedder = last.embedder
    made_on = datetime.now(UTC).date().isoformat()
    found = Calibration(made_on, FEATURES, embedder, languages)
    PATH.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(f"wrote {PATH.relative_to(ROOT)}")
    load_calibration.cache_clear()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.checks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "grounding")
    parser.add_argument("--calibrate", action="store_true", help="fit guard/checks/calibration.json anew")
    parser.add_argument("--no-embedder", action="store_true")
    parser.add_argument("--no-speed", action="store_true")
    args = parser.parse_args(argv)
    rows = load_rows(args.data)
    semantic = None
    if not args.no_embedder and (embedder := load_embedder(None, threads=1)) is not None:
        semantic = Semantic(embedder, cache_count=100_000)
    if not rows:
        print(f"SKIPPED quality: no development sets in {args.data}; pass --data DIR", file=sys.stderr)
        if args.calibrate:
            return 2
    else:
        read(rows)
        assign_folds(rows)
        if semantic is not None:
            # A quarter of the long documents is enough for three numbers; all of them take a quarter of an hour.
            embed_rows([r for r in rows if r.lang == "en" and (r.name != "factscore" or r.fold_of(4) == 0)], semantic)
        report(rows, semantic is not None)
        if args.calibrate:
            calibrate(rows, semantic)
    report_twins(load_calibration())
    if not args.no_speed:
        speed(rows, semantic)
    return 0


if __name__ == "__main__":
    sys.exit(main())
