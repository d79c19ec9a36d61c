"""`python -m bench.safety`: train and measure the safety signals; `--write` renews the models and docs/accuracy.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from bench.report_section import table, write_section
from bench.safety import injection, pii, sets
from guard.safety.injection import check_contexts, check_question, read_sentences, ready_models
from guard.safety.linear import FILE, ModelFile, load_models
from guard.safety.modes import RATES

COMMAND = "python -m bench.safety --write"
PATH = sets.ROOT / "guard" / "safety" / FILE


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _mini(shares: list[float]) -> str:
    return f"{_percent(shares[1])} / {_percent(shares[2])}"


def _embed() -> Callable[[list[str]], np.ndarray] | None:
    try:
        from rag.embedding import load_embedder

        embedder = load_embedder("all-MiniLM-L6-v2", threads=1)
    except Exception as error:
        print(f"SKIPPED MiniLM: {error}", file=sys.stderr)
        return None
    if embedder is None:
        print("SKIPPED MiniLM: the `embeddings` extra is not installed", file=sys.stderr)
        return None

    def embed(texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out: list[np.ndarray | None] = [None] * len(texts)
        for start in range(0, len(order), 128):
            part = order[start : start + 128]
            for i, vector in zip(part, np.asarray(embedder.embed([texts[i] for i in part])), strict=True):
                out[i] = vector
        return np.array(out)

    return embed


def microseconds(data: Path) -> dict[str, float]:
    """Time of one question on the path and of one exchange in the worker, each text seen for the first time."""
    asked = [t.text for t in sets.questions(data) if t.source in ("own en", "clinc", "wildguard")][::9][:800]
    chinese = [t.text for t in sets.questions(data) if t.source == "own zh"][::7][:400]
    found = {}
    for name, texts in (("question, English", asked), ("question, Chinese", chinese)):
        check_question(texts[0], "1%")
        began = time.process_time()
        for text in texts:
            check_question(text, "1%")
        found[name] = (time.process_time() - began) / len(texts) * 1e6
    hosts = [p.text for p in sets.harmless_pages(data) if p.source in ("squad2", "ragtruth")]
    words = " ".join(hosts).split()
    contexts = [" ".join(words[i : i + 230]) for i in range(0, min(len(words), 60_000) - 230, 230)]
    read_sentences(contexts[0])
    began = time.process_time()
    for context in contexts[1:]:
        check_contexts((context,), asked[0], "1%")
    found["context of 300 tokens, never seen before"] = (time.process_time() - began) / (len(contexts) - 1) * 1e6
    began = time.process_time()
    for context in contexts[1:][-200:]:
        check_contexts((context,), asked[0], "1%")
    found["context of 300 tokens, seen before"] = (time.process_time() - began) / len(contexts[1:][-200:]) * 1e6
    return found


def report(questions: injection.Result, contexts: injection.Result, data: Path) -> str:
    """The section of docs/accuracy.md."""
    head = ["", *(f"at {r}" for r in RATES)]
    lines = [
        f"Command: `.venv/bin/{COMMAND}` (needs the development sets).", "",
        "Development halves, cross-fitted: no text was judged by weights that had seen it, and no BIPIA attack by "
        "weights\n"
        "that had seen its category. The columns are the named false-positive rates of the setting. Expressions: "
        "a dozen\n"
        "of the kind that firewalls for prompts publish. MiniLM: logistic regression on all-MiniLM-L6-v2, same "
        "rows, same\n"
        "folds, same way of setting the limit (rows thinned to keep the run short).", "",
        "Tuned while looking at these sets: the cues (on what was flagged wrongly among the harmless pages) and",
        "the own training texts (widened after a first total of 60 % on the own Chinese questions). The limits of",
        "the context model come from the harmless pages of this table. A set that nobody looked at reads lower.",
        "Published, by the PIGuard paper on its full test sets (right on NotInject / benign / malicious): PIGuard,",
        "184 M parameters, 87.3 / 85.7 / 77.4 %; PromptGuard 0.3 / 26.8 / 97.1 %. A large detector finds stories",
        "and role-play that lead a model on; this one does so by luck.",
        "",
        "### Injection in questions", "",
    ]  # fmt: skip
    rows = []
    for kind, groups in (("attacks", questions.caught), ("harmless", questions.flagged)):
        for name, (count, shares) in sorted(groups.items()):
            key = f"{name} {kind}"
            mini = questions.minilm.get(key)
            rows.append([
                f"{kind}: {name} ({count})", *map(_percent, shares), _percent(questions.plain.get(key, 0.0)),
                _mini(mini) if mini else "",
            ])  # fmt: skip
    lines += [table([*head, "expressions", "MiniLM at 1% / 5%"], rows), "", "### Injection in contexts", ""]
    rows = []
    for name, (count, shares) in contexts.caught.items():
        mini = contexts.minilm.get(name)
        plain = contexts.plain.get(name)
        rows.append([
            f"caught: {name} ({count})", *map(_percent, shares), "" if plain is None else _percent(plain),
            _mini(mini) if mini else "",
        ])  # fmt: skip
    for name, (count, shares) in contexts.flagged.items():
        mini = contexts.minilm.get(name)
        rows.append([f"harmless: {name} ({count})", *map(_percent, shares), "", _mini(mini) if mini else ""])
    lines += [table([*head, "expressions", "MiniLM at 1% / 5%"], rows), "", "### Personal data", ""]
    rows = [
        [kind, str(count), f"{precision:.2f}", f"{recall:.2f}", str(false)]
        for kind, (precision, recall, count, false) in pii.measure(data).items()
    ]
    lines += [table(["kind", "labelled", "precision", "recall", "false"], rows), ""]
    count, finds = pii.false_finds(data)
    said = ", ".join(f"{kind} {n}" for kind, n in sorted(finds.items())) or "none"
    lines += [
        "The patterns were adjusted while looking at this set. In texts that hold nobody's data\n"
        f"({count:,} encyclopedia passages) they find: {said}.", "", "### Time", "",
    ]  # fmt: skip
    lines += [table(["", "microseconds"], [[k, f"{v:.0f}"] for k, v in microseconds(data).items()])]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Train, measure, print; write when asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.safety", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--data", type=Path, default=sets.ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--write", action="store_true", help="write the trained models and the section of docs/accuracy.md"
    )
    parser.add_argument("--no-embedder", action="store_true", help="leave the comparison with MiniLM out")
    args = parser.parse_args(argv)
    if not (args.data / "safety").is_dir():
        print(f"SKIPPED: no development sets in {args.data}; pass --data DIR", file=sys.stderr)
        return 2
    embed = None if args.no_embedder else _embed()
    questions = injection.questions(args.data, embed)
    contexts = injection.contexts(args.data, embed)
    if args.write:
        made_on = datetime.now(UTC).date().isoformat()
        found = ModelFile(made_on, COMMAND, sets.LICENCES, questions.model, contexts.model)
        PATH.write_bytes(msgspec.json.encode(found) + b"\n")
        load_models.cache_clear()
        ready_models.cache_clear()
    text = report(questions, contexts, args.data)
    print(text)
    if args.write:
        write_section("safety", text)
        print(f"wrote {PATH.relative_to(sets.ROOT)} and docs/accuracy.md", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
