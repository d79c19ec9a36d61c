"""lora eval: what an adapter answers, held against the right answers, its base, and the scenario's minimum."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, emit, login, needs_extra, progress
from guard.settings import environment_value
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError, RefusedError

SCENARIOS = ("internal-kb", "support-faq", "finance")


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    about = "ask an adapter (or an endpoint) the questions of a set; exit 1 below the scenario's minimum"
    example = (
        "sft-guard lora eval --data data --kb kb --base Qwen/Qwen2.5-1.5B-Instruct --adapter run/adapter --out run\n"
        "  sft-guard lora eval --data data --base-url http://127.0.0.1:8000/v1 --model hr-rules --out run"
    )
    parser = add_command(lora, "eval", run_eval, about, example)
    about = "directory of `lora dataset` (its test rows are asked), or a file of such rows"
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=about)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="evaluation.json, .md and .png go there")
    parser.add_argument("--kb", type=Path, metavar="DIR", help="knowledge base: what claims may rest on; rules need it")
    about = "least average similarity: internal-kb 85 %%, support-faq 80 %%, finance (critical) 90 %%"
    parser.add_argument("--scenario", choices=SCENARIOS, default="internal-kb", help=f"{about}; default %(default)s")
    local = parser.add_argument_group("a local model")
    local.add_argument("--base", metavar="MODEL", help="causal model, by name or path")
    about = "its adapter; the base alone is asked as well. Of answers from elsewhere: the adapter that gave them"
    local.add_argument("--adapter", type=Path, metavar="DIR", help=about)
    local.add_argument("--no-base", action="store_true", help="do not ask the base alone")
    local.add_argument("--batch", type=int, default=8, metavar="N", help="questions at a time, default %(default)s")
    local.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: the library's")
    local.add_argument(
        "--repetition-penalty", type=float, default=1.3, metavar="X", help="default %(default)s; 1 is off"
    )
    local.add_argument("--no-repeat-ngram", type=int, default=3, metavar="N", help="default %(default)s; 0 is off")
    local.add_argument("--old", type=Path, metavar="FILE", help="rows of earlier rules: what was forgotten")
    local.add_argument("--general", type=Path, metavar="FILE", help="rows of general questions: likewise")
    about = "adapter that answered before, for --old and --general; default: the base alone"
    local.add_argument("--previous", type=Path, metavar="DIR", help=about)
    served = parser.add_argument_group("an OpenAI-compatible endpoint")
    served.add_argument("--base-url", metavar="URL", help="such as http://127.0.0.1:8000/v1")
    served.add_argument("--model", default="", help="name of the model there")
    served.add_argument("--key-env", metavar="NAME", help="environment variable with its API key")
    served.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help="for one answer")
    about = 'JSON lines {"question", "answer", "base"?}, from anywhere'
    parser.add_argument_group("given answers").add_argument("--answers", type=Path, metavar="FILE", help=about)
    parser.add_argument(
        "--max-new-tokens", type=int, default=100, metavar="N", help="default %(default)s; articles 500"
    )
    parser.add_argument("--system", default="", help="system text, when it was trained with one")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="what the answers are after these rules, too")
    parser.add_argument("--embedder", help="of similarity; default: MiniLM where it is installed, else the static one")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--max-hallucinated", type=float, metavar="RATIO", help="also decides; default: only reported")
    parser.add_argument("--min-refused", type=float, metavar="RATIO", help="of what must be refused; likewise")
    parser.set_defaults(run=needs_extra("lora", run_eval))


def run_eval(args: argparse.Namespace) -> int:
    """Evaluate; exit 1 below the minimum."""
    from guard.lora_scoring import Scorer
    from lora.evaluation import ADAPTER, ADAPTER_RULES, Evaluation, as_json, markdown
    from lora.figures import decide, figures
    from rag.embedding import default_embedder
    from rag.finetune.cursor import write_file

    _check(args)
    rows, set_about = _rows(args.data, args.limit)
    for earlier in filter(None, (args.old, args.general)):
        _rows(earlier, args.limit)  # a file that cannot be read is told before minutes of answers
    documents = _documents(args.kb)
    embedder = args.embedder or default_embedder()
    scorer = Scorer(rows, documents, embedder)
    rules = _rules(args.rules, documents)
    answers, about, kept = _answers(args, [row.question for row in rows])
    progress(f"grading {len(rows)} answers by {scorer.graded_by}")
    sides = scorer.sides(answers, rules)
    decided_on = ADAPTER_RULES if rules is not None else ADAPTER
    decision = decide(figures(sides[decided_on]), args.scenario,
                      max_hallucinated=args.max_hallucinated, min_refused=args.min_refused)  # fmt: skip
    about = {
        "made_wall_s": SystemClock().wall_s(), "made_by": login(), "set": set_about, "model": about,
        "embedder": embedder, "graded_by": scorer.graded_by, "rules": _file_about(args.rules),
    }  # fmt: skip
    evaluation = Evaluation(sides, decision, decided_on, about, kept)
    document = as_json(evaluation)
    args.out.mkdir(parents=True, exist_ok=True)
    write_file(args.out / "evaluation.json", _pretty(document))
    write_file(args.out / "evaluation.md", markdown(evaluation).encode())
    picture = _picture(evaluation, args.out / "evaluation.png")
    result = {name: document[name] for name in ("passed", "decision", "sides", "rules_fired", "sha256")}
    emit(args, {**result, **kept, "out": str(args.out), "picture": picture}, "\n".join(_lines(evaluation, args.out)))
    return 0 if decision.passed else 1


def _check(args: argparse.Namespace) -> None:
    ways = [args.base is not None, args.base_url is not None, args.answers is not None]
    if sum(ways) != 1:
        raise ConfigError(
            "lora eval", f"{sum(ways)} sources of answers", "give one of --base, --base-url and --answers"
        )
    if args.base_url and not args.model:
        raise ConfigError("--model", "nothing", "name the model that the endpoint shall answer with")
    if args.rules and not args.kb:
        raise ConfigError("--rules", str(args.rules), "name the knowledge base of its texts with --kb")
    if args.base is None and (args.old or args.general or args.previous):
        raise ConfigError("--old, --general, --previous", "no --base", "they are asked of a local model")
    if args.out.exists() and not args.out.is_dir():  # told before minutes of answers
        raise ConfigError("--out", str(args.out), "a file is in the way; name a directory")
    for option, value, low in (("--batch", args.batch, 1), ("--max-new-tokens", args.max_new_tokens, 1),
                               ("--no-repeat-ngram", args.no_repeat_ngram, 0), ("--limit", args.limit, 1),
                               ("--threads", args.threads, 1)):  # fmt: skip
        if value is not None and value < low:
            raise ConfigError(option, value, f"write a number from {low}")
    if not 1.0 <= args.repetition_penalty <= 10.0:
        raise ConfigError("--repetition-penalty", args.repetition_penalty, "write 1 (off) to 10; usual are 1.1 to 1.5")
    for option, ratio in (("--max-hallucinated", args.max_hallucinated), ("--min-refused", args.min_refused)):
        if ratio is not None and not 0.0 <= ratio <= 1.0:
            raise ConfigError(option, ratio, "write a share of 0 to 1")


def _rows(path: Path, limit: int | None) -> tuple[list[Any], dict[str, object]]:
    """Rows to ask, and what they are. The files of a data set are held against its card first."""
    from lora.dataset_files import check_files, read_rows

    card = check_files(path) if path.is_dir() else {}
    file = path / "test.jsonl" if path.is_dir() else path
    rows = read_rows(file)[:limit]
    if not rows:
        raise DataError(f"{file}: holds no row; make a larger set, or name a file of rows with --data")
    # Of a set: what training saw and what it did not is in the card, and the registry keeps its hash.
    return rows, {"file": file.name, "sha256": sha256(file.read_bytes()).hexdigest(), "rows": len(rows),
                  "data_sha256": card.get("data_sha256", ""), "overlap": card.get("overlap", {})}  # fmt: skip


def _documents(directory: Path | None) -> dict[str, str]:
    if directory is None:
        return {}
    from rag.kb import KnowledgeBase

    return {document.doc_id: document.text for document in KnowledgeBase.open(directory).documents}


def _rules(path: Path | None, documents: Mapping[str, str]) -> Any:
    if path is None:
        return None
    from lora.postprocess import load_rules

    return load_rules(path, documents)


def _answers(
    args: argparse.Namespace, questions: Sequence[str]
) -> tuple[dict[str, Sequence[str]], dict[str, object], dict[str, float]]:
    """Answers by side, what gave them, and what was kept of earlier sets."""
    from lora.answering import asked_of, read_answers
    from lora.evaluation import ADAPTER, BASE
    from lora.guards import Guards

    guards = Guards(args.max_new_tokens, args.repetition_penalty, args.no_repeat_ngram)
    which = {} if args.base else _of_adapter(args.adapter)
    if args.answers:
        answers, base = read_answers(args.answers, questions)
        about = {"answers": _file_about(args.answers), **which}
        return {ADAPTER: answers, **({BASE: base} if base else {})}, about, {}
    if args.base_url:
        from rag.model_client import ModelConfig

        key = environment_value(args.key_env) if args.key_env else ""
        if key is None or (args.key_env and not key):
            raise ConfigError("--key-env", args.key_env, "set that environment variable")
        config = ModelConfig(args.base_url, args.model, key, 0.0, args.max_new_tokens, args.timeout_s, args.timeout_s)
        said = asked_of(config, questions, guards, _told("answers", len(questions)), system=args.system)
        return (
            {ADAPTER: said},
            {"base_url": args.base_url, "model": args.model, "max_new_tokens": args.max_new_tokens, **which},
            {},
        )
    return _local(args, questions, guards)


def _local(
    args: argparse.Namespace, questions: Sequence[str], guards: Any
) -> tuple[dict[str, Sequence[str]], dict[str, object], dict[str, float]]:
    from dataclasses import asdict

    from lora.adapter_files import read_directory
    from lora.answering import LocalModel
    from lora.evaluation import ADAPTER, BASE
    from lora.other_base import other_base
    from lora.weights import weights_sha256

    model = LocalModel(args.base, args.adapter, threads=args.threads)
    note = other_base(read_directory(args.adapter), args.base, weights_sha256(args.base)) if args.adapter else ""
    if note:
        progress(f"sft-guard: {note}")

    def ask(texts: Sequence[str], what: str, *, adapted: bool) -> list[str]:
        tell = _told(what, len(texts))
        return model.answers(texts, guards, tell, adapted=adapted, batch=args.batch, system=args.system)

    answers: dict[str, Sequence[str]] = {ADAPTER: ask(questions, "answers", adapted=True)}
    if args.adapter and not args.no_base:
        answers[BASE] = ask(questions, "answers of the base", adapted=False)
    about: dict[str, object] = {
        "base": args.base, "adapter": str(args.adapter or ""), "generation": {**asdict(guards), "greedy": True},
        **_of_adapter(args.adapter), **({"note": note} if note else {}),
    }  # fmt: skip
    return answers, about, _kept(args, ask)


def _of_adapter(adapter: Path | None) -> dict[str, object]:
    """Which adapter an evaluation is of; the registry takes none that does not say."""
    from lora.adapter_files import adapter_hash, read_directory

    return {"adapter_sha256": adapter_hash(read_directory(adapter)) if adapter else ""}


def _kept(args: argparse.Namespace, ask: Callable[..., list[str]]) -> dict[str, float]:
    """Similarity on earlier rules and on general questions, before (`--previous`, or the base) and after."""
    from guard.lora_scoring import Scorer
    from lora.answering import LocalModel
    from lora.evaluation import ADAPTER, BASE
    from lora.figures import figures
    from lora.guards import Guards
    from rag.embedding import default_embedder

    found: dict[str, float] = {}
    for name, path in (("old", args.old), ("general", args.general)):
        if path is None:
            continue
        rows, _ = _rows(path, args.limit)
        texts = [row.question for row in rows]
        after = ask(texts, f"{name} set", adapted=True)
        if args.previous:
            earlier = LocalModel(args.base, args.previous, threads=args.threads)
            guards = Guards(args.max_new_tokens, args.repetition_penalty, args.no_repeat_ngram)
            tell = _told(f"{name} set, before", len(texts))
            before = earlier.answers(texts, guards, tell, batch=args.batch, system=args.system)
        else:
            before = ask(texts, f"{name} set, before", adapted=False)
        sides = Scorer(rows, {}, args.embedder or default_embedder()).sides({BASE: before, ADAPTER: after}, None)
        for when, side in (("before", BASE), ("after", ADAPTER)):
            found[f"{name}_{when}"] = round(figures(sides[side]).similarity or 0.0, 4)
    return found


def _told(what: str, total: int) -> Callable[[int], None]:
    """Progress at every tenth."""
    shown = 0

    def tell(done: int) -> None:
        nonlocal shown
        if done * 10 // max(1, total) > shown:
            shown = done * 10 // max(1, total)
            progress(f"  {what}: {done} of {total}")

    return tell


def _file_about(path: Path | None) -> dict[str, str] | None:
    return None if path is None else {"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}


def _pretty(document: Mapping[str, object]) -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _picture(evaluation: Any, path: Path) -> str:
    """Path of the picture; "" where matplotlib is missing, which costs the picture and nothing else."""
    from guard.lora_plot import plot_evaluation

    try:
        plot_evaluation(evaluation, path)
    except RefusedError as error:
        progress(f"sft-guard: {error}")
        return ""
    return str(path)


def _lines(evaluation: Any, out: Path) -> list[str]:
    from lora.evaluation import as_fired, table

    rows = table(evaluation)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    decision = evaluation.decision
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [line for line in (as_fired(evaluation),) if line]
    lines += [f"note: {note}" for note in decision.notes] + [f"below: {reason}" for reason in decision.reasons]
    word = "passed" if decision.passed else "NOT passed"
    return [*lines, f"{word} ({decision.scenario}, {evaluation.decided_on}); report in {out}/evaluation.md"]
