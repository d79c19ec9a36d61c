"""What a knowledge base costs as it grows: adding, starting, searching, memory, and what approximate search misses.

    python -m bench.kb [--sizes 10000,100000,1000000] [--dim 256] [--queries 500] [--unclustered]

Vectors and texts are generated: documents of 2,000 subjects, as far from each other inside a subject as sentences on
one subject are (cosine about 0.5); `--unclustered` has no subjects at all, the worst case for approximate search. After
each size, 10,000 documents are added three times. Start, search and memory are measured in a process of their own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from rag.kb import KnowledgeBase

Vectors = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

TOPICS, POOL, WORDS = 2_000, 65_536, 20_000
ADDED = 10_000
QUERIES_FROM = 10**9


class GeneratedEmbedder:
    """Vectors of texts that begin with `item<number> topic<number>`; the same for the same text, anywhere."""

    name = "generated"

    def __init__(self, dim: int, clustered: bool) -> None:
        random = np.random.default_rng(5)
        self.dim = dim
        self.fingerprint = f"generated-{dim}-{int(clustered)}"
        self._weight = 1.0 if clustered else 0.0
        self._topics = _unit(random.standard_normal((TOPICS, dim)).astype(np.float32))
        self._pool = _unit(random.standard_normal((POOL, dim)).astype(np.float32))

    def embed(self, texts: Sequence[str]) -> Vectors:
        heads = [text.split(" ", 2) for text in texts]
        items = np.array([int(head[0][4:]) for head in heads], np.uint64)
        topics = np.array([int(head[1][5:]) for head in heads])
        mixed = items * np.uint64(0x9E3779B97F4A7C15)
        one, two = (mixed >> np.uint64(48)).astype(np.int64), ((mixed >> np.uint64(24)) & np.uint64(0xFFFF)).astype(int)
        noise = _unit(self._pool[one % POOL] + self._pool[two % POOL])
        return _unit(self._weight * self._topics[topics] + noise)

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        return True


def _unit(vectors: Vectors) -> Vectors:
    made: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


def texts(first: int, count: int) -> Iterator[str]:
    """Documents of a dozen words, common ones more often."""
    random = Random(first)
    for item in range(first, first + count):
        words = " ".join(f"w{int(WORDS * random.random() ** 3)}" for _ in range(10))
        yield f"item{item} topic{random.randrange(TOPICS)} {words}"


def rows(first: int, count: int) -> Iterator[dict[str, object]]:
    for number, text in enumerate(texts(first, count), first):
        yield {"doc_id": f"d{number}", "text": text}


def look(directory: Path, embedder: GeneratedEmbedder, queries: int) -> dict[str, object]:
    """Start, search and memory, in this process."""
    began_s = time.perf_counter()
    kb = KnowledgeBase.open(directory, embedder=embedder)
    kb.search("item0 topic0 w1", mode="hybrid")
    start_s = time.perf_counter() - began_s
    asked = list(texts(QUERIES_FROM, queries))
    found: dict[str, list[float]] = {}
    hits: list[list[str]] = []
    for mode in ("embedding", "bm25", "hybrid"):
        took = found[mode] = []
        for text in asked:
            began_s = time.perf_counter()
            result = kb.search(text, 10, mode)
            took.append(1000 * (time.perf_counter() - began_s))
            if mode == "embedding":
                hits.append([hit.doc_id for hit in result.hits])
    memory = memory_mb()
    shares = recall(kb, embedder, asked, hits)
    return {
        "docs": kb.meta.doc_count,
        "start_s": round(start_s, 2),
        **{f"{mode}_p50_ms": round(float(np.percentile(took, 50)), 1) for mode, took in found.items()},
        **{f"{mode}_p99_ms": round(float(np.percentile(took, 99)), 1) for mode, took in found.items()},
        **memory,
        "recall_at_10": round(float(np.mean(shares)), 4),
        "segments": [
            [s.count, s.index.kind.removeprefix("faiss.Index"), s.index.lists, s.index.probes, s.index.recall_at_10]
            for s in kb.meta.segments
            if s.index
        ],
    }


def memory_mb() -> dict[str, float]:
    """Resident memory, and the part of it that is not a mapped file (which the kernel may drop)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: round(int(lines[field].split()[0]) / 1024) for name, field in
            (("rss_mb", "VmRSS"), ("anon_mb", "RssAnon"))}  # fmt: skip


def recall(kb: KnowledgeBase, embedder: GeneratedEmbedder, asked: list[str], hits: list[list[str]]) -> list[float]:
    """Share of the true ten nearest that each search has found, by looking at every vector."""
    vectors = embedder.embed(asked)
    best: list[list[tuple[float, str]]] = [[] for _ in asked]
    for segment in kb._segments:  # no other way to all vectors by name
        assert segment.index is not None
        for begin in range(0, segment.count, 50_000):
            local = range(begin, min(begin + 50_000, segment.count))
            cosines = segment.index.vectors(list(local)) @ vectors.T  # (rows, queries)
            for number, top in enumerate(np.argpartition(-cosines, 9, axis=0)[:10].T):
                named = [(float(cosines[row, number]), segment.document(begin + int(row)).doc_id) for row in top]
                best[number] = sorted([*best[number], *named], reverse=True)[:10]
    return [len({name for _, name in true} & set(found)) / 10 for true, found in zip(best, hits, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--unclustered", action="store_true", help="vectors without any subjects")
    parser.add_argument("--dir", type=Path, help="where to work (default: a temporary directory)")
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    threadpool_limits(1)  # as `load_embedder` does: one query gains nothing from threads that spin
    embedder = GeneratedEmbedder(args.dim, not args.unclustered)
    if args.look:
        print(json.dumps(look(args.look, embedder, args.queries)))
        return 0
    for size in (int(text) for text in args.sizes.split(",")):
        home = Path(tempfile.mkdtemp(prefix="bench-kb-", dir=args.dir))
        try:
            print(json.dumps(measured(home / "kb", size, embedder, args)), flush=True)
        finally:
            shutil.rmtree(home)
    return 0


def measured(directory: Path, size: int, embedder: GeneratedEmbedder, args: argparse.Namespace) -> dict[str, object]:
    """One size: built, looked at in a process of its own, grown, and looked at again."""
    began_s = time.perf_counter()
    KnowledgeBase.init(directory, embedder=embedder).add(rows(0, size))
    result: dict[str, object] = {"size": size, "build_s": round(time.perf_counter() - began_s, 1)}
    command = [sys.executable, "-m", "bench.kb", "--look", str(directory), "--dim", str(args.dim), "--queries",
               str(args.queries), *(["--unclustered"] if args.unclustered else [])]  # fmt: skip
    result |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    took, cpu = [], []
    for round_number in range(3):
        kb = KnowledgeBase.open(directory, embedder=embedder, lazy=True)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        kb.add(rows(size + round_number * ADDED, ADDED))
        took.append(time.perf_counter() - began_s)
        cpu.append(time.process_time() - began_cpu_s)
    result |= {"add_10000_s": round(median(took), 2), "add_10000_cpu_s": round(median(cpu), 2)}
    grown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    result |= {f"grown_{name}": grown[name] for name in ("embedding_p99_ms", "recall_at_10", "segments")}
    return result


if __name__ == "__main__":
    sys.exit(main())
