"""route: where the line between knowledge base and model is, and what a question would do."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, add_group, emit, progress
from slo.errors import ConfigError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    route = add_group(groups, "route", "who answers a question: fit the line, explain a decision")
    fit = add_command(route, "calibrate", run_calibrate, "fit the line on labelled questions, by language",
                      "sft-guard route calibrate --questions labelled.jsonl --kb kb --out thresholds.json")  # fmt: skip
    fit.add_argument("--questions", type=Path, required=True, metavar="FILE",
                     help='JSON lines {"question", "route": "kb" or "model"}')  # fmt: skip
    fit.add_argument("--out", type=Path, metavar="FILE", help="for thresholds_file in routes.yaml")
    fit.add_argument("--seed", type=int, default=1, help="of the bootstrap, default 1")
    explain = add_command(route, "explain", run_explain, "what would become of a question, without asking a model",
                          'sft-guard route explain --routes routes.yaml --kb kb "How many days of leave?"')  # fmt: skip
    explain.add_argument("question", help="what a user would ask")
    explain.add_argument("--routes", type=Path, required=True, metavar="FILE", help="routes.yaml")
    explain.add_argument("--sensitive", action="store_true", help="as if the sender had marked it")
    for parser in (fit, explain):
        parser.add_argument("--kb", type=Path, required=True, metavar="DIR", help="knowledge base")
        parser.add_argument("--embedder", help="name or none; default: the one the knowledge base was made with")
        parser.add_argument("--k", type=int, default=3, help="documents looked at, default 3")


def run_calibrate(args: argparse.Namespace) -> int:
    """Exit 1 when there are too few questions to fit anything."""
    from rag import calibrating
    from rag.commands import open_with_embedder

    questions = calibrating.read_questions(args.questions)
    kb, embedder = open_with_embedder(args.kb, args.embedder)

    def tell(done: int) -> None:
        if done % 500 == 0:
            progress(f"{done} of {len(questions)} questions")

    result = calibrating.calibrate_kb(kb, questions, embedder, k=_k(args), seed=args.seed, tell=tell)
    languages: Any = result["languages"]
    if args.out:
        calibrating.write_thresholds(args.out, result)
    lines = [_line(lang, found) for lang, found in languages.items()]
    emit(args, result, "\n".join(lines + ([f"wrote {args.out}"] if args.out else [])))
    return 1 if all("note" in found for found in languages.values()) else 0


def _line(lang: str, found: dict[str, Any]) -> str:
    if "note" in found:
        return f"{lang}: the line of the practice stays; {found['note']}"
    line, interval = found["line"], found["threshold_interval"]
    number = line["confidence"] if found["method"] == "confidence" else line["best"]
    shown = f"{found['method']} >= {number:.3f}" + (
        f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    )
    return (
        f"{lang}: {shown}; answered {_share(found['answered'])}, kept out {_share(found['kept_out'])}; "
        f"balanced {found['balanced_accuracy']:.3f}, others {found['other_methods']}"
    )


def _share(share: dict[str, Any]) -> str:
    return f"{share['ratio']:.3f} [{share['low']:.3f}, {share['high']:.3f}] of {share['count']}"


def run_explain(args: argparse.Namespace) -> int:
    """Print the decision and why."""
    from rag.calibrating import signals_for
    from rag.commands import open_with_embedder
    from rag.planning import plan_for
    from rag.routes_file import load_routes
    from rag.routing import SOURCE_OF, Source
    from rag.sensitivity import MARK

    routes = load_routes(args.routes, lambda name: "-")  # keys are not needed: nobody is asked
    rule = routes.rules.answer(args.question)
    if rule is not None:
        result: dict[str, Any] = {"source": Source.RULE, "reason": f"fixed answer by {rule.how}", "topic": rule.topic}
        emit(args, result, f"RULE ({rule.topic}): {rule.text}")
        return 0
    kb, embedder = open_with_embedder(args.kb, args.embedder)
    found = kb.search(args.question, _k(args))
    way = plan_for(routes, args.question, found, MARK if args.sensitive else "", embedder)
    without = Source.KB if way.from_documents else Source.REFUSAL
    steps = [without if slot is None else SOURCE_OF[slot] for slot in way.steps]
    seen = asdict(signals_for(kb, args.question, _k(args)))
    result = {"source": steps[0], "steps": steps, "reason": way.reason, "sensitive": way.sensitive,
              "escalate": way.escalate, "signals": seen}  # fmt: skip
    emit(args, result, f"{' -> '.join(steps)}: {way.reason}")
    return 0


def _k(args: argparse.Namespace) -> int:
    if not 1 <= args.k <= 100:
        raise ConfigError("--k", args.k, "write 1 to 100")
    return int(args.k)
