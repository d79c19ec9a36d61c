"""How often a question goes the right way, what an answer costs, and what the quick checks see. English and Chinese.

    python -m bench.routing [--sample 300] [--embedder NAME] [--write]

A labelled mix on public sets (SQuAD 2.0, StackFAQ, BANKING77, DRCD; they are not part of this repository; without them
it says so and ends): simple FAQ (generated: listed phrasings in other case, width and punctuation), answerable,
paraphrased, about something else, and on the subject without an answer in the text. Thresholds are fitted with the
held-out fold left out.
No model is asked: costs are counted tokens x list prices, an answer of a model taken as 60 tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench.report_section import table, write_section
from rag.answer import build_prompt
from rag.calibration import FITS, Observed, calibrate, held_out
from rag.embedding import default_embedder, load_embedder
from rag.finetune.counting import counter_for
from rag.fixed_answers import FixedAnswer, FixedAnswers
from rag.kb import KnowledgeBase
from rag.quick_checks import doubt
from rag.routing import PRACTICE, Signals, Thresholds, is_confident, signals
from rag.search import NGRAMS
from rag.text import language
from rag.types import SearchResult
from slo.errors import GuardError
from slo.pricing import PriceTable
from slo.statistics import wilson_lower, wilson_upper

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RAG_MODEL, FT_MODEL = "gpt-4o-mini", "ft:gpt-4o-mini"
ANSWER_TOKENS, SYSTEM_TOKENS = 60, 60
KINDS = ("simple FAQ", "answerable", "paraphrased", "about something else", "on the subject, no answer")
RIGHT = dict(zip(KINDS, ("RULE", "KB", "KB", "MODEL", "MODEL"), strict=True))


@dataclass(frozen=True, slots=True)
class Question:
    """One of the mix. prompt_tokens: of the prompt with its documents."""

    kind: str
    text: str
    signals: Signals
    by_rule: bool
    prompt_tokens: int

    @property
    def right(self) -> str:
        return RIGHT[self.kind]


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def english(data: Path, n: int, rng: Random) -> tuple[dict[str, str], list[tuple[str, str]], list[str]]:
    """(documents, (kind, question), phrasings that are listed as fixed answers)."""
    passages = {str(r["pid"]): str(r["text"]) for r in rows(data / "retrieval/squad2_passages.jsonl")}
    articles = sorted({pid.rpartition("-")[0] for pid in passages})
    rng.shuffle(articles)
    kept = set(articles[: len(articles) * 3 // 5])  # whole articles are left out: their questions are foreign
    held = {pid: text for pid, text in passages.items() if pid.rpartition("-")[0] in kept}
    faq = rows(data / "retrieval/stackfaq_docs.jsonl")
    held |= {f"faq-{r['fid']}": f"{r['question']}\n{r['answers'][0]}" for r in faq}  # type: ignore[index]
    squad = rows(data / "retrieval/squad2_questions.jsonl")

    def of(unanswerable: bool, inside: bool) -> list[str]:
        return [
            str(r["question"])
            for r in squad
            if bool(r["unanswerable"]) is unanswerable and (str(r["pid"]) in held) is inside
        ]

    banking = [str(r["text"]) for r in rows(data / "intents/banking77_train.jsonl")]
    listed = [str(r["question"]) for r in faq[:50]]
    foreign = pick(of(False, False), n // 2, rng) + pick(banking, n - n // 2, rng)
    return (
        held,
        [
            *(("simple FAQ", text) for text in varied(listed, n // 3, rng)),
            *(("answerable", text) for text in pick(of(False, True), n, rng)),
            *(("paraphrased", str(r["query"])) for r in pick(rows(data / "retrieval/stackfaq_queries.jsonl"), n, rng)),
            *(("about something else", text) for text in foreign),
            *(("on the subject, no answer", text) for text in pick(of(True, True), n, rng)),
        ],
        listed,
    )


def chinese(data: Path, n: int, rng: Random) -> tuple[dict[str, str], list[tuple[str, str]], list[str]]:
    passages = {str(r["pid"]): str(r["text"]) for r in rows(data / "retrieval/drcd_zhtw_passages.jsonl")}
    articles = sorted({pid.rpartition("-")[0] for pid in passages})
    rng.shuffle(articles)
    kept = set(articles[: len(articles) * 3 // 5])
    held = {pid: text for pid, text in passages.items() if pid.rpartition("-")[0] in kept}
    asked = rows(data / "retrieval/drcd_zhtw_questions.jsonl")
    inside = [str(r["question"]) for r in asked if str(r["pid"]) in held]
    outside = [str(r["question"]) for r in asked if str(r["pid"]) not in held]
    listed = pick(inside, 50, rng)
    return (
        held,
        [
            *(("simple FAQ", text) for text in varied(listed, n // 3, rng)),
            *(("answerable", text) for text in pick([q for q in inside if q not in listed], n, rng)),
            *(("about something else", text) for text in pick(outside, n, rng)),
        ],
        listed,
    )


def pick(given: list[Any], n: int, rng: Random) -> list[Any]:
    return given if len(given) <= n else rng.sample(given, n)


def varied(phrasings: list[str], n: int, rng: Random) -> list[str]:
    """Phrasings as people type them: other case, full width, without or with more punctuation."""
    ways = (str.upper, str.lower, lambda t: t.rstrip("?\uff1f") + " ??", lambda t: "".join(map(wide, t)))
    return [rng.choice(ways)(rng.choice(phrasings)) for _ in range(n)]


def wide(character: str) -> str:
    return chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character


def observe(kb: KnowledgeBase, asked: list[tuple[str, str]], listed: list[str], trusted_name: str) -> list[Question]:
    rules = FixedAnswers([FixedAnswer(f"faq {i}", "fixed", phrasings=(text,)) for i, text in enumerate(listed)])
    counter = counter_for(RAG_MODEL)
    found = []
    for kind, text in asked:
        result: SearchResult = kb.search(text, 3)
        trusted = result.similarity_by != NGRAMS and result.similarity_by == trusted_name
        seen = signals(
            [h.similarity for h in result.hits], confidence=result.confidence, trusted=trusted, lang=language(text)
        )
        tokens = counter.row(build_prompt(text, result.hits).messages())
        found.append(Question(kind, text, seen, rules.answer(text) is not None, tokens))
    return found


def cost_usd(question: Question, way: str, prices: PriceTable) -> float:
    if way == "RULE":
        return 0.0
    if way == "KB":
        return prices.cost_usd(RAG_MODEL, question.prompt_tokens, ANSWER_TOKENS) or 0.0
    asked = SYSTEM_TOKENS + counter_for(FT_MODEL.removeprefix("ft:")).count(question.text)
    return prices.cost_usd(FT_MODEL, asked, ANSWER_TOKENS) or 0.0


def ways(questions: list[Question], lines: list[Thresholds]) -> list[str]:
    return [
        "RULE" if q.by_rule else "KB" if is_confident(q.signals, line)[0] else "MODEL"
        for q, line in zip(questions, lines, strict=True)
    ]


def judge(name: str, questions: list[Question], taken: list[str], prices: PriceTable) -> list[str]:
    cells = [name]
    for kind in KINDS:
        right = [way == q.right for q, way in zip(questions, taken, strict=True) if q.kind == kind]
        cells.append(f"{sum(right) / len(right):.3f}" if right else "")
    hits = sum(way == q.right for q, way in zip(questions, taken, strict=True))
    count = len(questions)
    cost = sum(cost_usd(q, way, prices) for q, way in zip(questions, taken, strict=True)) / count
    low, high = wilson_lower(hits, count, 1.96), wilson_upper(hits, count, 1.96)
    return [*cells, f"{hits / count:.3f} [{low:.3f}, {high:.3f}]", f"{cost * 1000:.4f}"]


def compare(questions: list[Question], prices: PriceTable) -> tuple[list[list[str]], str]:
    """Rows of the table, and what was fitted."""
    open_ones = [q for q in questions if not q.by_rule]
    # Fitted on what a person can label in a minute: answerable or about something else. Questions on the subject
    # without an answer are not fitted on, only judged.
    fit_on = [q for q in open_ones if q.kind != KINDS[4]]
    observed = [Observed(q.signals, q.right != "MODEL", q.text) for q in fit_on]
    found = calibrate(observed)
    fitted = dict(zip((q.text for q in fit_on), held_out(observed, FITS[found.method]), strict=True))
    calibrated = [fitted.get(q.text, found.line) for q in questions]
    rules = [
        judge("RAG only", questions, ["KB"] * len(questions), prices),
        judge("model only", questions, ["MODEL"] * len(questions), prices),
        judge("routed, default line", questions, ways(questions, [PRACTICE.default] * len(questions)), prices),
        judge(f"routed, fitted line ({found.method})", questions, ways(questions, calibrated), prices),
    ]
    number = found.line.confidence if found.method == "confidence" else found.line.best
    between = f" (95 % {found.low:.3f} to {found.high:.3f})" if found.low is not None and found.high is not None else ""
    return rules, f"{found.method} >= {number:.3f}{between}; others, balanced accuracy: {dict(found.others)}"


def auroc(good: list[float], bad: list[float]) -> float:
    ranked = sorted([(v, True) for v in good] + [(v, False) for v in bad])
    wins = below = 0.0
    i = 0
    while i < len(ranked):
        j = i
        while j < len(ranked) and ranked[j][0] == ranked[i][0]:
            j += 1
        ups = sum(flag for _, flag in ranked[i:j])
        downs = j - i - ups
        wins += ups * (below + downs / 2)
        below += downs
        i = j
    return wins / (len(good) * len(bad))


def quick_checks(data: Path) -> str:
    good = bad = good_doubted = bad_doubted = 0
    for r in rows(data / "grounding/ragtruth_qa_dev.jsonl"):
        passages = [str(p) for p in r["passages"]]  # type: ignore[attr-defined]
        doubted = bool(doubt(str(r["question"]), passages, str(r["answer"])))
        if r["hallucinated"]:
            bad, bad_doubted = bad + 1, bad_doubted + doubted
        else:
            good, good_doubted = good + 1, good_doubted + doubted
    return (
        f"Quick checks before an answer goes out (RAGTruth-QA, development half): {bad_doubted} of {bad} answers with "
        f"unsupported claims are asked again ({bad_doubted / bad:.1%}), and {good_doubted} of {good} good ones "
        f"({good_doubted / good:.1%}), which is what escalation costs."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="questions of each kind (default 300)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--embedder", help="default: the usual one that is installed; none: words only")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/accuracy.md")
    args = parser.parse_args()
    if not (args.data / "retrieval/squad2_passages.jsonl").exists():
        print(f"skipped: no evaluation sets in {args.data}; give their folder with --data", file=sys.stderr)
        return 0
    name = args.embedder or default_embedder()
    embedder = load_embedder(name) if name != "none" else None
    prices = PriceTable.load()
    shown_name = embedder.name if embedder else "none"
    out: list[str] = [
        f"Embedder {shown_name}, {args.sample} questions of each kind (simple FAQ a third), seed {args.seed}."
    ]
    for title, made in (("English", english), ("Traditional Chinese", chinese)):
        documents, asked, listed = made(args.data, args.sample, Random(args.seed))
        with tempfile.TemporaryDirectory() as directory:
            kb = KnowledgeBase.init(Path(directory) / "kb", embedder=embedder)
            print(f"{title}: {len(documents)} documents", file=sys.stderr, flush=True)
            kb.add([{"doc_id": doc_id, "text": text} for doc_id, text in documents.items()])
            questions = observe(kb, asked, listed, shown_name)
        compared, fitted = compare(questions, prices)
        head = [title, *KINDS, "all [95 %]", "USD per 1,000"]
        out += [table(head, compared), f"Fitted: {fitted}."]
        values = {k: [q.signals.confidence for q in questions if q.kind == k] for k in KINDS}
        for kind in KINDS[3:]:
            if values[kind]:
                score = auroc(values["answerable"], values[kind])
                out.append(f"AUROC of the confidence, answerable against {kind}: {score:.3f}.")
        by_rule = sum(q.by_rule for q in questions if q.kind != KINDS[0])
        out.append(f"Fixed answers given to questions that are not theirs: {by_rule}.")
    out.append(quick_checks(args.data))
    text = "\n\n".join(out)
    print(text)
    if args.write:
        write_section("routing", text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GuardError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
