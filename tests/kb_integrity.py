"""Damages a knowledge base in every way that fits, and lets two writers race; counts what should never happen.

    python -m tests.kb_integrity --flips 10000 --writes 1000 [--seed 1] [--dir DIR]

Prints one JSON object: flips and truncations tried and how many were loaded, generations written and how many of them
were not whole; exits 1 when any number that should be 0 is not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from rag.embedding import HashedNgramEmbedder
from rag.index import vectors_available
from rag.kb import KnowledgeBase
from slo.errors import DataError
from tests.kb_kit import content_files

KIB = 1024


def prepare(directory: Path, rows: int) -> None:
    """Two segments and a tombstone, with vectors where numpy is."""
    embedder = HashedNgramEmbedder(256) if vectors_available() else None
    kb = KnowledgeBase.init(directory, embedder=embedder)
    for part in range(2):
        kb.add([{"doc_id": f"d{part}-{i}", "text": f"rule {part} {i} about leave"} for i in range(rows)])
    kb.remove(["d0-1"])


def loads(directory: Path) -> bool:
    """Whether it opens. Anything but a DataError goes through and ends the run."""
    try:
        KnowledgeBase.open(directory)
    except DataError:
        return False
    return True


def flipped(directory: Path, count: int, random: Random) -> int:
    """How many of `count` single flipped bits, spread over all content by size, were loaded."""
    paths = list(content_files(directory))
    sizes = [path.stat().st_size for path in paths]
    loaded = 0
    for number in range(count):
        # Half by size, half by file: small files matter as much as large ones.
        path = random.choices(paths, sizes)[0] if number % 2 else random.choice(paths)
        whole = path.read_bytes()
        place, bit = random.randrange(len(whole)), random.randrange(8)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ (1 << bit)]))
        loaded += loads(directory)
        path.write_bytes(whole)
    return loaded


def truncated(directory: Path, step: int = KIB) -> tuple[int, int]:
    """Truncations tried (every file at every step, and one byte more and less) and how many were loaded."""
    tried = loaded = 0
    for path in content_files(directory):
        whole = path.read_bytes()
        shorter = [whole[:size] for size in (*range(0, len(whole), step), len(whole) - 1)]
        for data in (*shorter, whole + b"\0", whole + whole[:step]):
            path.write_bytes(data)
            tried += 1
            loaded += loads(directory)
        path.write_bytes(whole)
    return tried, loaded


WRITER = """
import sys
from rag.kb import KnowledgeBase
from slo.errors import RefusedError
directory, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
refused = 0
for number in range(count):
    while True:
        try:
            kb = KnowledgeBase.open(directory)  # verifies every file
            before = kb.generation.number
            kb.add([{"doc_id": f"{name}-{number}", "text": f"{name} row {number}"}])
            assert kb.generation.number == before + 1
            print(kb.generation.number)
            break
        except RefusedError as error:
            assert error.reason in ("locked", "conflict"), error
            refused += 1
print("refused", refused)
"""


def raced(directory: Path, writes: int) -> dict[str, object]:
    """Two processes that add one row at a time, `writes` times each, and never wait for each other."""
    KnowledgeBase.init(directory)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), name, str(writes)], stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    outputs = [writer.communicate()[0].split() for writer in writers]
    failed = sum(writer.returncode != 0 for writer in writers)
    numbers = sorted(int(word) for output in outputs for word in output[: output.index("refused")])
    kb = KnowledgeBase.open(directory)
    ids = {document.doc_id for document in kb.documents}
    expected = {f"{name}-{number}" for name in ("one", "two") for number in range(writes)}
    return {
        "generations": len(numbers),
        "numbered_twice_or_left_out": len(set(numbers) ^ set(range(1, 2 * writes + 1))),
        "documents_lost_or_foreign": len(ids ^ expected),
        "kb_version": kb.meta.kb_version,
        "refused_and_repeated": sum(int(output[-1]) for output in outputs),
        "writers_failed": failed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--writes", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as home:
        damaged = Path(home) / "damaged"
        prepare(damaged, 40)
        tried, loaded = truncated(damaged)
        result: dict[str, object] = {
            "flips": args.flips,
            "flips_loaded": flipped(damaged, args.flips, Random(args.seed)),
            "truncations": tried,
            "truncations_loaded": loaded,
            "whole_again": loads(damaged),
            **raced(Path(home) / "raced", args.writes),
        }
    print(json.dumps(result))
    wrong = ("flips_loaded", "truncations_loaded", "numbered_twice_or_left_out", "documents_lost_or_foreign",
             "writers_failed")  # fmt: skip
    return 1 if any(result[name] for name in wrong) or not result["whole_again"] else 0


if __name__ == "__main__":
    sys.exit(main())
