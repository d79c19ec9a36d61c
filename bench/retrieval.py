"""How often the first hit is right, by words, by vectors and fused, in English and Traditional Chinese.

    python -m bench.retrieval [--sample 500] [--embedder static --embedder all-MiniLM-L6-v2] [--data FOLDER] [--report]

Public evaluation sets (StackFAQ, SQuAD 2.0, DRCD) are not part of this repository; without them it says so and ends.
Prints R@1, R@3, R@10 and the share without any hit per mode,
the difference of hybrid to the better single signal, and the time of a search.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from bench.report_section import table, write_section
from rag.embedding import Embedder, embedder_status, load_embedder
from rag.kb import KnowledgeBase
from slo.errors import GuardError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "retrieval"


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Documents by id, and questions with the id of the right one."""

    name: str
    documents: dict[str, str]
    questions: list[tuple[str, str]]


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def evaluation_sets(data: Path) -> Iterator[EvaluationSet]:
    faq = read(data / "stackfaq_docs.jsonl")
    asked = [(str(row["query"]), str(row["fid"])) for row in read(data / "stackfaq_queries.jsonl")]
    yield EvaluationSet("stackfaq questions (en)", {str(row["fid"]): str(row["question"]) for row in faq}, asked)
    answered = {str(row["fid"]): f"{row['question']}\n{row['answers'][0]}" for row in faq}  # type: ignore[index]
    yield EvaluationSet("stackfaq entries (en)", answered, asked)
    for name, stem in (("squad2 passages (en)", "squad2"), ("drcd passages (zh-TW)", "drcd_zhtw")):
        passages = {str(row["pid"]): str(row["text"]) for row in read(data / f"{stem}_passages.jsonl")}
        rows = [row for row in read(data / f"{stem}_questions.jsonl") if not row.get("unanswerable")]
        yield EvaluationSet(name, passages, [(str(row["question"]), str(row["pid"])) for row in rows])


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of questions whose document is among the first k, share without any hit, CPU milliseconds a search."""

    at_1: float
    at_3: float
    at_10: float
    zero_hit: float
    spent_ms: float


def measure(kb: KnowledgeBase, questions: list[tuple[str, str]], mode: str) -> Found:
    places: list[int] = []
    zero = 0
    began_s = time.process_time()
    for question, expected in questions:
        found = [hit.doc_id for hit in kb.search(question, 10, mode).hits]
        places.append(found.index(expected) if expected in found else 99)
        zero += not found
    spent_s = time.process_time() - began_s
    count = len(questions)
    shares = [sum(place < k for place in places) / count for k in (1, 3, 10)]
    return Found(*shares, zero / count, 1000 * spent_s / count)


def section(results: dict[str, dict[str, dict[str, Found]]], sample: int) -> str:
    """The section of docs/accuracy.md: embedder to set to mode to what was found."""
    rows = []
    for embedder, sets in results.items():
        for name, found in sets.items():
            for mode, one in found.items():
                shown = [f"{value:.3f}" for value in (one.at_1, one.at_3, one.at_10, one.zero_hit)]
                rows.append([name, embedder, mode, *shown])
    head = ["set", "embedder", "mode", "R@1", "R@3", "R@10", "zero-hit"]
    said = f"{sample} questions of each set, drawn with seed 7" if sample else "all questions of each set"
    return f"{said}.\n\n{table(head, rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sample", type=int, default=500, help="questions per set, 0 for all (default 500)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the JSON lines files")
    parser.add_argument("--embedder", action="append", help="for `load_embedder`; may be given again")
    parser.add_argument("--report", action="store_true", help="write the section of docs/accuracy.md")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    args = parser.parse_args()
    if not (args.data / "stackfaq_docs.jsonl").exists():
        print(f"skipped: no evaluation sets in {args.data}; give their folder with --data", file=sys.stderr)
        return 0
    results: dict[str, dict[str, dict[str, Found]]] = {}
    print(f"{'set':26} {'n':>5}  {'mode':10} {'R@1':>6} {'R@3':>6} {'R@10':>6} {'zero':>6} {'ms CPU':>7}")
    for name in args.embedder or [None]:
        installed, status = embedder_status(name)
        embedder = load_embedder(name) if installed else None
        if embedder is None:
            print(f"by words only: {status}", file=sys.stderr)
        called = embedder.name.rpartition("/")[2] if embedder else "none"
        results[called] = {}
        for evaluation in evaluation_sets(args.data):
            results[called][evaluation.name] = one_set(evaluation, embedder, args.sample)
    if args.report:
        write_section("retrieval", section(results, args.sample))
    if args.json:
        shown = {e: {n: {m: asdict(f) for m, f in found.items()} for n, found in s.items()} for e, s in results.items()}
        print(json.dumps(shown))
    return 0


def one_set(evaluation: EvaluationSet, embedder: Embedder | None, sample: int) -> dict[str, Found]:
    """Every mode on one set, printed."""
    questions = evaluation.questions
    if 0 < sample < len(questions):
        questions = Random(7).sample(questions, sample)
    with tempfile.TemporaryDirectory() as directory:
        kb = KnowledgeBase.init(Path(directory) / "kb", embedder=embedder)
        kb.add([{"doc_id": doc_id, "text": text} for doc_id, text in evaluation.documents.items()])
        modes = ("embedding", "bm25", "hybrid") if embedder else ("bm25", "hybrid")
        # Opened anew for each mode: vectors of questions are remembered, and each mode pays for its own.
        found = {m: measure(KnowledgeBase.open(kb.directory, embedder=embedder), questions, m) for m in modes}
    for mode, one in found.items():
        shown = " ".join(f"{value:6.3f}" for value in (one.at_1, one.at_3, one.at_10, one.zero_hit))
        print(f"{evaluation.name:26} {len(questions):5}  {mode:10} {shown} {one.spent_ms:7.1f}")
    better = max(found[mode].at_1 for mode in modes if mode != "hybrid")
    print(f"{'':26} {'':5}  hybrid against the better single signal: {found['hybrid'].at_1 - better:+.3f}", flush=True)
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GuardError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
