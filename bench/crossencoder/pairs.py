"""`python -m bench.crossencoder.pairs`: claims with the context sentences that speak of them, as word pieces.

Everything the training needs in two files, so that it runs where only torch is: `pairs.npz` and `minilm.npz` (weights
of all-MiniLM-L6-v2, the word table in int8 with one scale a row, the rest in float16). The files are derived from sets
that are not part of the project and stay outside of it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.checks import ROOT, load_rows
from bench.checks_report import TWINS
from bench.crossencoder.edits import names_of, near_miss, shorter
from guard.checks.context import read_context
from guard.checks.facts import Statement, statement
from guard.checks.grounding import read_claims
from guard.checks.lexicon import weight
from guard.checks.training_rows import Row

CONTEXT_TOKENS, CLAIM_TOKENS = 224, 72
SETS = ("ragtruth", "begin", "factscore", "squad", "near-miss")
CLAIM, WHOLE, EDIT, QUESTION = range(4)
"""Origin of a pair: a claim that is scored and trained on; a whole answer, a near miss, a question with its answer:
trained on only."""

EDITS_PER_CONTEXT = 24


@dataclass(frozen=True, slots=True)
class Pair:
    """row: index of its answer, -1 for none. claim_index: which claim of it. bad: unsupported."""

    set_name: str
    group: str
    origin: int
    row: int
    claim_index: int
    claim: str
    context: str
    bad: bool


def speaking_of(claim: Statement, sentences: Sequence[Statement], token_counts: Sequence[int], room: int) -> str:
    """Context sentences that share most with a claim, in their order, as many as fit in `room` word pieces.

    >>> parts = [statement(s) for s in ("Leave lasts 14 days.", "Parking is free.", "Leave must be asked for.")]
    >>> speaking_of(statement("Leave lasts 7 days."), parts, [5, 4, 6], 11)
    'Leave lasts 14 days. Leave must be asked for.'
    """
    weights = {t: weight(t) for t in claim.term_set}
    scores = [sum(weights[t] for t in s.term_set if t in weights) for s in sentences]
    chosen: list[int] = []
    for i in sorted(range(len(sentences)), key=lambda i: (-scores[i], i)):
        if token_counts[i] <= room:
            chosen.append(i)
            room -= token_counts[i]
    return " ".join(sentences[i].text for i in sorted(chosen))


def answers(rows: Sequence[Row], spans: dict[int, list[str]], count) -> Iterator[Pair]:  # type: ignore[no-untyped-def]
    """Claims of labelled answers. spans: unsupported stretches of an answer, by row, where people marked them."""
    for number, row in enumerate(rows):
        sentences = [s for c in row.contexts if c.strip() for s in read_context(c).sentences]
        counts = [count(s.text) for s in sentences]
        claims, _ = read_claims(row.answer)
        group = row.group
        for i, claim in enumerate(claims):
            bad = row.unsupported and (len(claims) == 1 or any(_shares(claim.text, s) for s in spans.get(number, ())))
            known = not row.unsupported or len(claims) == 1 or number in spans
            context = speaking_of(claim, sentences, counts, CONTEXT_TOKENS)
            yield Pair(row.name, group, CLAIM, number, i if known else -1 - i, claim.text, context, bad)
        if row.name == "begin" and len(claims) > 1:
            whole = speaking_of(statement(row.answer), sentences, counts, CONTEXT_TOKENS)
            yield Pair(row.name, group, WHOLE, -1, 0, row.answer, whole, row.unsupported)


def _shares(claim: str, span: str) -> bool:
    """Whether a marked span lies in a claim, or the claim in it."""
    a, b = set(claim.lower().split()), set(span.lower().split())
    return len(a & b) >= 0.7 * min(len(a), len(b))


def edits(set_name: str, group: str, context: str, count, rng: random.Random) -> Iterator[Pair]:  # type: ignore[no-untyped-def]
    """Sentences of a context as they stand, shortened, with one fact changed, or with their own sentence taken away."""
    sentences = list(read_context(context).sentences)
    counts = [count(s.text) for s in sentences]
    names = names_of(context)
    usable = [i for i, s in enumerate(sentences) if 6 <= len(s.text.split()) <= 45]
    rng.shuffle(usable)
    for i in usable[:EDITS_PER_CONTEXT]:
        text = sentences[i].text
        supported = shorter(text, rng) or text
        rest = [j for j in range(len(sentences)) if j != i]
        made: list[tuple[str, bool, Sequence[int]]] = [(supported, False, range(len(sentences)))]
        if (changed := near_miss(supported, names, rng)) is not None:
            made.append((changed[1], True, range(len(sentences))))
        elif rest:
            made.append((supported, True, rest))
        for claim, bad, kept in made:
            seen = speaking_of(
                statement(claim), [sentences[j] for j in kept], [counts[j] for j in kept], CONTEXT_TOKENS
            )
            yield Pair(set_name, group, EDIT, -1, 0, claim, seen, bad)


def questions(data: Path, count, rng: random.Random) -> Iterator[Pair]:  # type: ignore[no-untyped-def]
    """SQuAD 2.0 questions with their answer, the plausible answer of an unanswerable one, or a wrong answer."""
    folder = data.parent / "retrieval"
    passages = {p["pid"]: p for p in _lines(folder / "squad2_passages.jsonl")}
    by_passage: dict[str, list[dict]] = {}  # type: ignore[type-arg]
    for q in _lines(folder / "squad2_questions.jsonl"):
        by_passage.setdefault(q["pid"], []).append(q)
    for pid, asked in by_passage.items():
        text, group = passages[pid]["text"], passages[pid]["title"]
        yield from edits("squad", group, text, count, rng)
        sentences = list(read_context(text).sentences)
        counts = [count(s.text) for s in sentences]
        known = [a for q in asked for a in q["answers"][:1]]
        for q in asked:
            options = [(a, False) for a in q["answers"][:1]] + [(a, True) for a in q["plausible"][:1]]
            others = [a for a in known if a not in q["answers"]]
            if q["answers"] and others and rng.random() < 0.4:
                options.append((rng.choice(others), True))
            for answer, bad in options:
                claim = claim_of(q["question"], answer)
                seen = speaking_of(statement(claim), sentences, counts, CONTEXT_TOKENS)
                yield Pair("squad", group, QUESTION, -1, 0, claim, seen, bad)


def claim_of(question: str, answer: str) -> str:
    """A question and its answer as one statement, where a simple rule does it; else side by side.

    >>> claim_of("Who wrote the rules?", "HR"), claim_of("What is the limit?", "14 days")
    ('HR wrote the rules.', 'the limit is 14 days.')
    """
    words = question.rstrip("? ").split()
    if len(words) > 2 and words[0].lower() in ("who", "what"):
        if words[1] in ("is", "was", "are", "were"):
            return f"{' '.join(words[2:])} {words[1]} {answer}."
        if words[1] not in ("do", "does", "did", "can", "could", "will", "would", "has", "have", "had", "should"):
            return f"{answer} {' '.join(words[1:])}."
    return f"{question} {answer}."


def _lines(path: Path) -> Iterator[dict]:  # type: ignore[type-arg]
    with path.open(encoding="utf-8") as source:
        yield from map(json.loads, source)


def near_misses(count) -> Iterator[Pair]:  # type: ignore[no-untyped-def]
    """The project's own English pairs: scored, never trained on. row: line, claim_index: 0 true, 1 near miss."""
    for number, pair in enumerate(_lines(TWINS[0])):
        if pair["lang"] == "en":
            sentences = [s for c in pair["contexts"] for s in read_context(c).sentences]
            counts = [count(s.text) for s in sentences]
            for bad, key in enumerate(("supported", "unsupported")):
                seen = speaking_of(statement(pair[key]), sentences, counts, CONTEXT_TOKENS)
                yield Pair("near-miss", pair["half"], CLAIM, number, bad, pair[key], seen, bool(bad))


def encode(pairs: Sequence[Pair], tokens_of) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """Arrays of all pairs. start: of context and claim in `tokens`, one more than pairs."""
    flat: list[int] = []
    starts = [0]
    for pair in pairs:
        flat += tokens_of(pair.context)[:CONTEXT_TOKENS]
        starts.append(len(flat))
        flat += tokens_of(pair.claim)[:CLAIM_TOKENS]
        starts.append(len(flat))
    return {
        "tokens": np.array(flat, dtype=np.uint16),
        "starts": np.array(starts, dtype=np.int64),
        "bad": np.array([p.bad for p in pairs], dtype=np.int8),
        "set": np.array([SETS.index(p.set_name) for p in pairs], dtype=np.int8),
        "origin": np.array([p.origin for p in pairs], dtype=np.int8),
        "row": np.array([p.row for p in pairs], dtype=np.int32),
        "claim_index": np.array([p.claim_index for p in pairs], dtype=np.int16),
        "fold": np.array([zlib.crc32(p.group.encode()) % 3 for p in pairs], dtype=np.int8),
    }


def minilm_weights() -> dict[str, np.ndarray]:
    """all-MiniLM-L6-v2: `words` int8 with `words_scale`, the other tensors float16 under their own names."""
    import safetensors.numpy

    from rag.embedding import minilm_directory

    tensors = safetensors.numpy.load_file(minilm_directory() / "model.safetensors")
    found = {}
    for name, value in tensors.items():
        name = name.removeprefix("bert.")
        if name == "embeddings.word_embeddings.weight":
            scale = np.abs(value).max(axis=1, keepdims=True) / 127
            found["words"] = np.rint(value / scale).astype(np.int8)
            found["words_scale"] = scale.astype(np.float32)
        elif name != "embeddings.position_ids" and not name.startswith("pooler"):
            found[name] = value.astype(np.float16)
    return found


def collect(data: Path, count, *, seed: int = 0) -> list[Pair]:  # type: ignore[no-untyped-def]
    """All pairs of the English development sets that are there."""
    rng = random.Random(seed)
    rows = [r for r in load_rows(data) if r.lang == "en"]
    marked = {r["id"]: r for r in _lines(data / "ragtruth_qa_dev.jsonl")}
    spans = {}
    for number, (row, raw) in enumerate(zip([r for r in rows if r.name == "ragtruth"], marked.values(), strict=True)):
        if row.answer != raw["answer"]:
            raise SystemExit("rows and spans do not belong together")
        spans[number] = [s["text"] for s in raw["spans"]]
    pairs = list(answers(rows, spans, count))
    contexts: dict[str, tuple[str, str]] = {}
    for pair, row in ((p, rows[p.row]) for p in pairs if p.row >= 0):
        for context in row.contexts:
            contexts.setdefault(context, (pair.set_name, pair.group))
    for context, (name, group) in contexts.items():
        pairs += edits(name, group, context, count, rng)
    pairs += questions(data, count, rng)
    pairs += near_misses(count)
    return pairs


def summary(pairs: Iterable[Pair]) -> str:
    """Counts per set and origin."""
    found: dict[tuple[str, int], list[bool]] = {}
    for pair in pairs:
        found.setdefault((pair.set_name, pair.origin), []).append(pair.bad)
    return "\n".join(f"{n:10} origin {o}: {len(b):6} pairs, {sum(b):6} unsupported" for (n, o), b in found.items())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.crossencoder.pairs", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "grounding", help="folder of sets"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for pairs.npz and minilm.npz")
    args = parser.parse_args(argv)
    if not (args.data / "ragtruth_qa_dev.jsonl").exists():
        print(f"SKIPPED: no development sets in {args.data}; pass --data DIR", file=sys.stderr)
        return 2
    from tokenizers import Tokenizer

    from rag.embedding import minilm_directory

    tokenizer = Tokenizer.from_file(str(minilm_directory() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    memory: dict[str, list[int]] = {}

    def tokens_of(text: str) -> list[int]:
        if text not in memory:
            memory[text] = tokenizer.encode(text, add_special_tokens=False).ids
        return memory[text]

    pairs = collect(args.data, lambda text: len(tokens_of(text)))
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "pairs.npz", **encode(pairs, tokens_of))
    np.savez_compressed(args.out / "minilm.npz", **minilm_weights())
    print(summary(pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
