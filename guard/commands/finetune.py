"""ft: from documents or traffic to a fine-tuned model in the registry."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, add_group, emit, progress
from guard.commands.finetune_jobs import cost_lines, day, run_ask, run_eval, run_register, run_run, run_status
from guard.commands.times import time_range
from slo.errors import ConfigError

MODEL = "gpt-4o-mini-2024-07-18"


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    ft = add_group(groups, "ft", "fine-tune a model of the OpenAI API: export, run, ask, evaluate, register")
    export = add_command(ft, "export", run_export, "chat rows from a knowledge base, or from good production answers",
                         "sft-guard ft export --kb kb --out ft.jsonl")  # fmt: skip
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("--kb", type=Path, metavar="DIR", help="what is new in this knowledge base")
    source.add_argument(
        "--log", type=Path, nargs="+", metavar="PATH", help="segments or directories of an exchange log"
    )
    export.add_argument("--out", type=Path, default=Path("ft.jsonl"), metavar="FILE", help="default: ft.jsonl")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file")
    export.add_argument("--templates", type=Path, metavar="FILE", help="questions and replies; default: those shipped")
    export.add_argument("--validation", type=float, metavar="RATIO",
                        help="share of question groups for a validation file; default 0, from a log 0.1")  # fmt: skip
    _model_options(export)
    of_kb = export.add_argument_group("from a knowledge base")
    of_kb.add_argument("--force-all", action="store_true", help="everything, exported before or not")
    of_kb.add_argument("--since", type=int, metavar="N", help="documents after the first N, exported before or not")
    of_kb.add_argument("--reset", action="store_true", help="forget what was exported, write nothing")
    of_kb.add_argument("--cursor", type=Path, metavar="FILE", help="default: ft_cursor.json in the knowledge base")
    of_kb.add_argument("--date", metavar="DAY", help="data date in the replies, default today (UTC)")
    of_log = export.add_argument_group("from an exchange log")
    of_log.add_argument("--checks", default="grounding", help="checks that must have passed, by commas; none for any")
    of_log.add_argument("--thumbs", type=Path, metavar="FILE",
                        help='JSON lines {"exchange_id", "thumb"}: a thumb down leaves an answer out')  # fmt: skip
    of_log.add_argument("--thumbs-up", action="store_true", help="only answers with a thumb up (needs --thumbs)")
    of_log.add_argument("--release", action="append", default=[], metavar="ID", help="only this release; repeatable")
    of_log.add_argument("--between", metavar="FROM/TO", help="only this time, ISO or Unix seconds, UTC")
    of_log.add_argument("--mask", action="store_true",
                        help="keep rows with personal data, masked; default: leave them out")  # fmt: skip

    check = add_command(ft, "check", run_check, "check training files as the API would, count tokens, estimate cost",
                        "sft-guard ft check ft.jsonl")  # fmt: skip
    check.add_argument("file", type=Path, help="training rows, JSONL")
    check.add_argument("--validation-file", type=Path, metavar="FILE", help="validation rows, JSONL")
    _model_options(check)

    run = add_command(ft, "run", run_run, "upload, start the job, follow it to its end; run again to go on",
                      "sft-guard ft run ft.jsonl --suffix faq")  # fmt: skip
    run.add_argument("file", type=Path, help="training rows, JSONL")
    run.add_argument("--validation-file", type=Path, metavar="FILE", help="validation rows, JSONL")
    run.add_argument("--suffix", default="", help="part of the model's name, at most 64 characters")
    run.add_argument("--seed", type=int, help="seed of the job at the provider")
    run.add_argument("--again", action="store_true", help="start another job although one has ended (it is paid again)")
    run.add_argument("--poll-s", type=float, default=10.0, metavar="S", help="seconds between two looks, default 10")
    _model_options(run)

    status = add_command(
        ft, "status", run_status, "how the job stands", "sft-guard ft status --state ft.jsonl.job.json"
    )
    status.add_argument("--follow", action="store_true", help="until it has ended")
    status.add_argument(
        "--poll-s", type=float, default=10.0, metavar="S", help="seconds between two questions for the state"
    )
    ask = add_command(ft, "ask", run_ask, "ask the fine-tuned model", 'sft-guard ft ask "How many days of leave?"')
    ask.add_argument("question", help="what to ask the fine-tuned model")
    evaluate = add_command(ft, "eval", run_eval, "trained and unseen phrasings: similarity, support, form",
                           "sft-guard ft eval --kb kb --state ft.jsonl.job.json")  # fmt: skip
    evaluate.add_argument(
        "--kb", type=Path, required=True, metavar="DIR", help="knowledge base that the answers are held against"
    )
    evaluate.add_argument("--date", metavar="DAY", help="data date of the export, default today (UTC)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="at most N questions of each kind")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="every answer, as JSON lines")
    evaluate.add_argument("--embedder", help="name or none; default: the usual one when it is installed")
    for parser in (ask, evaluate):
        parser.add_argument("--model", help="default: the model of the job in --state")
        parser.add_argument("--templates", type=Path, metavar="FILE", help="as at the export: the system text is taken")
    entry = add_command(ft, "register", run_register, "register the model of a finished job",
                        "sft-guard ft register --name faq-ft --registry http://127.0.0.1:8820")  # fmt: skip
    entry.add_argument("--name", required=True, help="name in the registry")
    entry.add_argument("--registry", default="http://127.0.0.1:8820", metavar="URL", help="where the registry listens")
    entry.add_argument("--registry-token-env", metavar="NAME", help="environment variable with its token")
    entry.add_argument("--owner", default="ft", help="who is named in the audit")
    entry.add_argument("--evaluation", type=Path, metavar="FILE", help="output of `ft eval --json`, kept beside it")
    for parser in (run, status, ask, evaluate, entry):
        parser.add_argument("--state", type=Path, metavar="FILE", help="default: FILE.job.json, or ft.jsonl.job.json")
    for parser in (run, status, ask, evaluate):
        parser.add_argument("--base-url", metavar="URL", help="default: that of the job, or https://api.openai.com/v1")
        parser.add_argument("--key-env", default="OPENAI_API_KEY", metavar="NAME", help="variable with the API key")


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=MODEL, help=f"base model, default {MODEL}")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: the API chooses")
    parser.add_argument("--training-usd", type=float, metavar="USD", help="price per 1M trained tokens")


def run_export(args: argparse.Namespace) -> int:
    """Write rows; nothing new is no failure. Exit 1 when the API would refuse the file."""
    from rag.finetune import cursor, export, templates

    if args.reset:
        if args.kb is None:
            raise ConfigError("--reset", "--log", "only a knowledge base has a cursor; name it with --kb")
        path = args.cursor or args.kb / cursor.NAME
        result = export.reset_cursor(path)
        emit(args, result, f"{path}: forgotten" if result["reset"] else f"{path}: there was none")
        return 0
    ratio = args.validation if args.validation is not None else (0.1 if args.log else 0.0)
    if not 0.0 <= ratio <= 0.5:
        raise ConfigError("--validation", ratio, "write a share of 0 to 0.5")
    target = export.Target(args.out, args.model, ratio, args.overwrite, args.epochs, args.training_usd)
    words = templates.load_templates(args.templates)
    if args.kb is not None:
        result = export.export_kb(
            args.kb, target, words, day(args.date), cursor_path=args.cursor, force_all=args.force_all, since=args.since
        )
    else:
        result = _export_log(args, target, words)
    emit(args, result, _export_text(result))
    return 1 if result.get("problems") else 0


def _export_log(args: argparse.Namespace, target: Any, words: Any) -> dict[str, Any]:
    from guard.checks.pii import redact
    from rag.finetune import export
    from rag.finetune.traffic import TrafficFilter
    from slo.metric_names import CHECKS
    from slo.sources.exchange_log import LogReader

    checks = () if args.checks == "none" else tuple(name.strip() for name in args.checks.split(","))
    if unknown := [name for name in checks if name not in CHECKS]:
        raise ConfigError("--checks", unknown[0], f"write names of {', '.join(CHECKS)}, or none")
    if args.thumbs_up and args.thumbs is None:
        raise ConfigError("--thumbs-up", "no --thumbs", "name the file with the thumbs")
    from_s, to_s = time_range("--between", args.between) if args.between else (0.0, float("inf"))
    wanted = TrafficFilter(checks, args.thumbs_up, frozenset(args.release), from_s, to_s, args.mask)
    thumbs = export.read_thumbs(args.thumbs) if args.thumbs else {}
    reader = LogReader(args.log)
    result = export.export_traffic(_told(reader), target, wanted, redact, thumbs, words)
    if reader.problems:
        result["log_problems"] = reader.problems
    return result


def _told(reader: Any) -> Iterator[Any]:
    for number, row in enumerate(reader, 1):
        if number % 50_000 == 0:
            progress(f"{number} exchanges read")
        yield row


def _export_text(result: dict[str, Any]) -> str:
    lines = [result["note"]] if "note" in result else []
    if result["rows"]:
        lines.append(f"{result['rows']} rows: {result['out']}"
                     + (f", validation {result['validation_out']}" if "validation_out" in result else ""))  # fmt: skip
        lines += cost_lines(result)
    lines += [f"left out, {reason}: {count}" for reason, count in result.get("left_out", {}).items()]
    return "\n".join(lines + result.get("log_problems", []))


def run_check(args: argparse.Namespace) -> int:
    """Exit 1 when the API would refuse the file."""
    from rag.finetune.export import check_files

    result = check_files(args.file, args.validation_file, args.model, args.epochs, args.training_usd)
    emit(args, result, "\n".join(cost_lines(result)))
    return 1 if result["problems"] else 0
