"""Embedders side by side on one core: speed, memory, first hits of retrieval, what plain cosine says of grounding.

    python -m bench.embedders [--sample 1000] [--only static] [--write docs/embedders.md] [--json]

Each embedder runs in a process of its own, with one thread. The public evaluation sets are not part of this repository
(`--data`, default ../shared/data); without them it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from bench.report_section import table, write_section
from bench.retrieval import evaluation_sets, read
from rag.embedding import Embedder, embedder_status, load_embedder
from rag.text import sentences

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EMBEDDERS = ("static", "hashed-tfidf", "hashed-ngram", "all-MiniLM-L6-v2")
SECTION, COMMAND = "embedders", "python -m bench.embedders"
SEED = 7
ANSWERS = 200
SLOW_ANSWERS = 40


def speed(embedder: Embedder, data: Path, slow: bool) -> dict[str, float]:
    """Texts and whole answers (its sentences, and those of its passages) a second of one core, nothing remembered."""
    rows = read(data / "grounding" / "ragtruth_qa_dev.jsonl")[: SLOW_ANSWERS if slow else ANSWERS]
    texts = [[*sentences(str(r["answer"])), *(s for p in r["passages"] for s in sentences(p))] for r in rows]  # type: ignore[attr-defined]
    embedder.embed(texts[0])
    began_s = time.process_time()
    for one in texts:
        embedder.embed(one)
    spent_s = time.process_time() - began_s
    return {"texts_per_s": sum(map(len, texts)) / spent_s, "answers_per_s": len(texts) / spent_s}


class Remembered:
    """An embedder that embeds a text once: six answers share their passages."""

    def __init__(self, embedder: Embedder, slow: bool) -> None:
        self._embedder, self._slow = embedder, slow
        self._known: dict[str, Any] = {}

    def embed(self, texts: list[str]) -> Any:
        """Vectors, shape (len(texts), dim)."""
        import numpy as np  # here, because loading an embedder counts with its numpy

        if new := [t for t in dict.fromkeys(texts) if t not in self._known]:
            self._known.update(zip(new, self._embedder.embed(new), strict=True))
        return np.stack([self._known[t] for t in texts])

    def left_out(self, text: str) -> bool:
        """Whether measuring on such texts would take minutes and say nothing: slow, and blind in this script."""
        return self._slow and not self._embedder.covers(text)


def first_hits(embedder: Remembered, data: Path, sample: int) -> dict[str, float]:
    """Share of questions whose nearest document by cosine is the right one, by set."""
    found = {}
    for evaluation in evaluation_sets(data / "retrieval"):
        ids = list(evaluation.documents)
        if embedder.left_out(evaluation.documents[ids[0]]):
            continue
        asked = evaluation.questions
        if 0 < sample < len(asked):
            asked = Random(SEED).sample(asked, sample)
        documents = embedder.embed([evaluation.documents[i] for i in ids])
        nearest = (embedder.embed([question for question, _ in asked]) @ documents.T).argmax(axis=1)
        right = sum(ids[row] == expected for row, (_, expected) in zip(nearest, asked, strict=True))
        found[evaluation.name] = right / len(asked)
    return found


def grounding(embedder: Remembered, data: Path, slow: bool) -> dict[str, float]:
    """AUROC of plain cosine for unsupported answers, and the share of Chinese pairs that it orders rightly."""
    from sklearn.metrics import roc_auc_score

    folder = data / "grounding"

    def best(texts: list[str], sources: list[str]) -> list[float]:
        cosines: list[float] = (embedder.embed(texts) @ embedder.embed(sources).T).max(axis=1).tolist()
        return cosines

    step = 4 if slow else 1
    found: dict[str, float] = {}
    rows: list[Any] = read(folder / "ragtruth_qa_dev.jsonl")
    bad = [bool(r["hallucinated"]) for r in rows]
    found["AUROC, RAGTruth-QA, answer"] = roc_auc_score(bad, [-best([r["answer"]], r["passages"])[0] for r in rows])
    weakest = [
        -min(best(sentences(r["answer"]) or [""], [s for p in r["passages"] for s in sentences(p)])) for r in rows
    ]
    found["AUROC, RAGTruth-QA, weakest sentence"] = roc_auc_score(bad, weakest)
    rows = read(folder / "begin_wow_dev.jsonl")
    bad = [r["label"] != "Fully attributable" for r in rows]
    found["AUROC, BEGIN"] = roc_auc_score(bad, [-best([r["response"]], sentences(r["knowledge"]))[0] for r in rows])
    labels, scores = [], []
    for r in read(folder / "factscore_dev.jsonl")[::step]:
        claims: Any = r["claims"]
        labels += [c["label"] != "entailment" for c in claims]
        scores += [-x for x in best([c["claim"] for c in claims], sentences(str(r["doc"])))]
    found["AUROC, FActScore claims"] = roc_auc_score(labels, scores)
    rows = read(folder / "uhgeval_zh_dev.jsonl")[::step]
    if embedder.left_out(str(rows[0]["beginning"])):
        return found
    source = [sentences(r["beginning"] + r["remainder"]) for r in rows]
    pairs = [best([r["real_answer"], r["hallucinated_answer"]], s or [""]) for r, s in zip(rows, source, strict=True)]
    found["UHGEval (zh), real above invented"] = sum(real > made for real, made in pairs) / len(pairs)
    return found


def resident_mb() -> float:
    """Memory of this process now."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def measure(name: str, data: Path, sample: int) -> dict[str, Any]:
    """Everything about one embedder; run it in a process of its own."""
    before_mb = resident_mb()
    began_s = time.process_time()
    embedder = load_embedder(name, threads=1)
    assert embedder is not None
    loaded_s, loaded_mb = time.process_time() - began_s, resident_mb() - before_mb
    slow = not getattr(embedder, "every_answer", False) and not name.startswith("hashed")
    remembered = Remembered(embedder, slow)
    return {
        "name": embedder.name, "dim": embedder.dim, "fingerprint": embedder.fingerprint, "load_cpu_s": loaded_s,
        "added_mb": loaded_mb, **speed(embedder, data, slow), "first_hits": first_hits(remembered, data, sample),
        "grounding": grounding(remembered, data, slow),
    }  # fmt: skip


def _cell(found: dict[str, float], name: str) -> str:
    return f"{found[name]:.3f}" if name in found else "not covered"


def section(results: list[dict[str, Any]], sample: int) -> str:
    """The section of docs/embedders.md."""

    def row(title: str, show: Callable[[dict[str, Any]], str]) -> list[str]:
        return [title, *map(show, results)]

    rows = [
        row("dimensions", lambda r: str(r["dim"])),
        row("CPU seconds to load", lambda r: f"{r['load_cpu_s']:.2f}"),
        row("MB of memory", lambda r: f"{r['added_mb']:.0f}"),
        row("texts/s", lambda r: f"{r['texts_per_s']:,.0f}"),
        row("answers/s", lambda r: f"{r['answers_per_s']:,.0f}"),
        *(row(f"first hit, {n}", lambda r, n=n: _cell(r["first_hits"], n)) for n in results[0]["first_hits"]),  # type: ignore[misc]
        *(row(n, lambda r, n=n: _cell(r["grounding"], n)) for n in results[0]["grounding"]),  # type: ignore[misc]
    ]
    return f"""\
    .venv/bin/{COMMAND} --sample {sample}

One core, one thread; development halves; plain cosine of each embedder alone. `answers/s`: all sentences of an answer
of RAGTruth-QA and of its passages, embedded anew. CPU seconds and MB: what loading adds to the process, numpy included.
Grounding rows are AUROC of plain cosine, the last one is the share of pairs in the right order.

{table(["", *(f"`{r['name'].rsplit('/', 1)[-1]}`" for r in results)], rows)}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--sample", type=int, default=1000, help="questions per retrieval set, 0 for all (default 1000)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the evaluation sets")
    parser.add_argument("--only", help="one embedder by name or path, in this process; prints one JSON object")
    parser.add_argument("--write", type=Path, help="page whose section `embedders` is rewritten")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    args = parser.parse_args()
    if not (args.data / "grounding" / "ragtruth_qa_dev.jsonl").exists():
        print(f"skipped: no evaluation sets in {args.data}; give their folder with --data", file=sys.stderr)
        return 0
    if args.only:
        print(json.dumps(measure(args.only, args.data, args.sample)))
        return 0
    results = []
    for name in EMBEDDERS:
        installed, why = embedder_status(name)
        if not installed:
            print(f"left out: {why}", file=sys.stderr)
            continue
        print(f"measuring {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "bench.embedders", "--only", name, "--sample", str(args.sample)]
        done = subprocess.run([*command, "--data", str(args.data)], check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    text = section(results, args.sample)
    print(text)
    if args.write:
        write_section(SECTION, text, args.write)
    if args.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
