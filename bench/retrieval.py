"""How often the first hit is right, by words, by vectors and fused, in English and Traditional Chinese.

    python -m bench.retrieval [--sample 500] [--data ../shared/data/retrieval]

Public evaluation sets (StackFAQ, SQuAD 2.0, DRCD) are not part of this repository; without them it says so and ends.
Prints R@1 and R@3 per mode, the difference of hybrid to the better single signal, and the time of a search.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rag.embedding import embedder_status, load_embedder
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


def measure(kb: KnowledgeBase, questions: list[tuple[str, str]], mode: str) -> tuple[float, float, float]:
    """R@1, R@3 and CPU milliseconds per search."""
    first = three = 0
    began_s = time.process_time()
    for question, expected in questions:
        found = [hit.doc_id for hit in kb.search(question, 3, mode).hits]
        first += found[:1] == [expected]
        three += expected in found
    spent_s = time.process_time() - began_s
    return first / len(questions), three / len(questions), 1000 * spent_s / len(questions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sample", type=int, default=500, help="questions per set, 0 for all (default 500)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the JSON lines files")
    parser.add_argument("--embedder", help="name or path for `load_embedder` (default: all-MiniLM-L6-v2)")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    args = parser.parse_args()
    if not (args.data / "stackfaq_docs.jsonl").exists():
        print(f"skipped: no evaluation sets in {args.data}; give their folder with --data", file=sys.stderr)
        return 0
    installed, status = embedder_status(args.embedder)
    embedder = load_embedder(args.embedder) if installed else None
    if embedder is None:
        print(f"by words only: {status}", file=sys.stderr)
    results: dict[str, dict[str, list[float]]] = {}
    print(f"{'set':26} {'n':>5}  {'mode':10} {'R@1':>6} {'R@3':>6} {'ms CPU':>7}")
    for evaluation in evaluation_sets(args.data):
        questions = evaluation.questions
        if 0 < args.sample < len(questions):
            questions = Random(7).sample(questions, args.sample)
        with tempfile.TemporaryDirectory() as directory:
            kb = KnowledgeBase.init(Path(directory) / "kb", embedder=embedder)
            kb.add([{"doc_id": doc_id, "text": text} for doc_id, text in evaluation.documents.items()])
            modes = ("embedding", "bm25", "hybrid") if embedder else ("bm25", "hybrid")
            # Opened anew for each mode: vectors of questions are remembered, and each mode pays for its own.
            found = {m: measure(KnowledgeBase.open(kb.directory, embedder=embedder), questions, m) for m in modes}
        for mode, (first, three, spent_ms) in found.items():
            print(f"{evaluation.name:26} {len(questions):5}  {mode:10} {first:6.3f} {three:6.3f} {spent_ms:7.1f}")
        better = max(found[mode][0] for mode in modes if mode != "hybrid")
        print(
            f"{'':26} {'':5}  hybrid against the better single signal: {found['hybrid'][0] - better:+.3f}", flush=True
        )
        results[evaluation.name] = {mode: list(values) for mode, values in found.items()}
    if args.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GuardError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
