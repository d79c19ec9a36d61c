"""Whether the gate tells a bad update from a good one on public sets, and what a profile costs.

    python -m bench.kb_gate [--data FOLDER] [--golden 300] [--seed 1]

Each set: 90 % of the documents serve, 10 % are the update, as they are or spoilt like the two data incidents of the
practice (8 % malformed and rows cut to 280/400 of their length; 15 % empty, 3.2 % duplicates, 280/450). By words alone.
The sets are not part of this repository; without them it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from bench.retrieval import DATA, EvaluationSet, evaluation_sets
from rag import commands, gate_commands
from rag.profile import Profiler

Row = tuple[str, str]
PROFILED = (100_000, 400_000)
ENOUGH_ROWS = 50
"""Of an update with fewer rows the gate cannot tell a share from an accident: shown, not counted."""


def healthy(rows: Sequence[Row], chance: Random) -> list[str]:
    """The update as it is."""
    return [json.dumps({"doc_id": doc_id, "text": text}, ensure_ascii=False) for doc_id, text in rows]


def malformed(rows: Sequence[Row], chance: Random) -> list[str]:
    """8 % of the rows are no JSON any more, the others cut to 280 of 400 tokens."""
    lines = healthy([(doc_id, text[: int(len(text) * 280 / 400)]) for doc_id, text in rows], chance)
    for place in chance.sample(range(len(lines)), max(1, round(0.08 * len(lines)))):
        lines[place] = lines[place][: len(lines[place]) // 2]
    return lines


def emptied(rows: Sequence[Row], chance: Random) -> list[str]:
    """15 % of the rows are empty, 3.2 % stand twice, the others cut to 280 of 450 tokens."""
    cut = [(doc_id, text[: int(len(text) * 280 / 450)]) for doc_id, text in rows]
    places = chance.sample(range(len(cut)), len(cut))
    empty, twice = max(1, round(0.15 * len(cut))), max(1, round(0.032 * len(cut)))
    for place in places[:empty]:
        cut[place] = (cut[place][0], " ")
    copies = [(f"{cut[place][0]}-again", cut[place][1]) for place in places[empty : empty + twice]]
    return healthy([*cut, *copies], chance)


UPDATES: dict[str, tuple[Callable[[Sequence[Row], Random], list[str]], bool]] = {
    "healthy": (healthy, True),
    "8 % malformed, 400 -> 280": (malformed, False),
    "15 % empty, 3.2 % twice, 450 -> 280": (emptied, False),
}


def judge(chosen: EvaluationSet, golden_count: int, seed: int) -> bool:
    """Gate each update of one set; whether all were decided rightly."""
    chance = Random(seed)
    rows = sorted(chosen.documents.items())
    chance.shuffle(rows)
    current, update = rows[len(rows) // 10 :], rows[: len(rows) // 10]
    asked = [
        {"question": q, "doc_id": doc}
        for q, doc in chance.sample(chosen.questions, min(golden_count, len(chosen.questions)))
    ]
    right = True
    for name, (spoilt, good) in UPDATES.items():
        with tempfile.TemporaryDirectory(prefix="sft-kb-gate-") as scratch:
            place = Path(scratch)
            (place / "current.jsonl").write_text("\n".join(healthy(current, chance)), encoding="utf-8")
            (place / "update.jsonl").write_text("\n".join(spoilt(update, Random(seed))), encoding="utf-8")
            known = {doc_id for doc_id, _ in current}
            old = [row for row in asked if row["doc_id"] in known]
            (place / "golden.jsonl").write_text("\n".join(map(json.dumps, old)), encoding="utf-8")
            commands.kb_init(place / "kb")
            commands.kb_add(place / "kb", [place / "current.jsonl"], embedder="none")
            commands.kb_add(place / "kb", [place / "update.jsonl"], embedder="none", stage=True)
            found, _ = gate_commands.kb_gate(place / "kb", golden=place / "golden.jsonl", mode="bm25", embedder="none")
        accepted = bool(found["accepted"])
        right &= accepted is good or len(update) < ENOUGH_ROWS
        why = ", ".join(str(check["name"]) for check in found["checks"] if check.get("state") == "refused")  # type: ignore[attr-defined]
        print(
            f"{chosen.name:26} {len(update):>5}  {name:36} {'accepted' if accepted else 'refused':9} {why}", flush=True
        )
    return right


def profile_cost(count: int) -> None:
    """CPU and memory of a profile over rows of 60 tokens, in this process."""
    chance = Random(1)
    words = [f"w{n}" for n in range(5_000)]
    profiler, spent_s = Profiler(), 0.0
    for number in range(count):
        text = " ".join(chance.choices(words, k=60))
        began_s = time.process_time()
        profiler.take(f"doc-{number}", text, {})
        spent_s += time.process_time() - began_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"profile of {count} rows of 60 tokens: {1000 * spent_s / count:.2f} ms CPU a row, peak {peak_mb:.0f} MiB",
        flush=True,
    )


def main() -> int:
    """Print every decision; exit 1 when one was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the JSON lines files")
    parser.add_argument("--golden", type=int, default=300, help="golden questions a set")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", type=int, metavar="ROWS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.profile:
        profile_cost(args.profile)
        return 0
    right = True
    if (args.data / "stackfaq_docs.jsonl").exists():
        for chosen in evaluation_sets(args.data):
            if not chosen.name.startswith("stackfaq questions"):
                right &= judge(chosen, args.golden, args.seed)
    else:
        print(f"skipped: no evaluation sets in {args.data}; give their folder with --data", file=sys.stderr)
    for count in PROFILED:  # each in a process of its own, so that the peak is its own
        subprocess.run([sys.executable, "-m", "bench.kb_gate", "--profile", str(count)], check=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
