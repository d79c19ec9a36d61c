"""ft: from documents or traffic to a fine-tuned model in the registry."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, add_group, emit, progress
from guard.commands.times import time_range
from guard.settings import environment_value
from slo.clock import SystemClock
from slo.errors import ConfigError, RefusedError

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
    check.add_argument("file", type=Path)
    check.add_argument("--validation-file", type=Path, metavar="FILE")
    _model_options(check)

    run = add_command(ft, "run", run_run, "upload, start the job, follow it to its end; run again to go on",
                      "sft-guard ft run ft.jsonl --suffix faq")  # fmt: skip
    run.add_argument("file", type=Path)
    run.add_argument("--validation-file", type=Path, metavar="FILE")
    run.add_argument("--suffix", default="", help="part of the model's name, at most 64 characters")
    run.add_argument("--seed", type=int)
    run.add_argument("--again", action="store_true", help="start another job although one has ended (it is paid again)")
    run.add_argument("--poll-s", type=float, default=10.0, metavar="S", help="seconds between two looks, default 10")
    _model_options(run)

    status = add_command(
        ft, "status", run_status, "how the job stands", "sft-guard ft status --state ft.jsonl.job.json"
    )
    status.add_argument("--follow", action="store_true", help="until it has ended")
    status.add_argument("--poll-s", type=float, default=10.0, metavar="S")
    ask = add_command(ft, "ask", run_ask, "ask the fine-tuned model", 'sft-guard ft ask "How many days of leave?"')
    ask.add_argument("question")
    evaluate = add_command(ft, "eval", run_eval, "trained and unseen phrasings: similarity, support, form",
                           "sft-guard ft eval --kb kb --state ft.jsonl.job.json")  # fmt: skip
    evaluate.add_argument("--kb", type=Path, required=True, metavar="DIR")
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
    entry.add_argument("--registry", default="http://127.0.0.1:8820", metavar="URL")
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
            args.kb, target, words, _day(args.date), cursor_path=args.cursor, force_all=args.force_all, since=args.since
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
        lines += _cost_lines(result)
    lines += [f"left out, {reason}: {count}" for reason, count in result.get("left_out", {}).items()]
    return "\n".join(lines + result.get("log_problems", []))


def _cost_lines(result: dict[str, Any]) -> list[str]:
    by = "exact" if result["tokens_exact"] else "about"
    price = (
        "price unknown, give --training-usd"
        if result["estimated_usd"] is None
        else f"{result['estimated_usd']:.4f} USD"
    )
    return [
        f"{result['examples']} training examples, {by} {result['tokens']} tokens ({result['tokens_by']}), "
        f"x {result['epochs']} epochs = {result['trained_tokens']} trained: {price}",
        *(f"problem: {text}" for text in result["problems"]),
        *(f"warning: {text}" for text in result["warnings"]),
    ]


def run_check(args: argparse.Namespace) -> int:
    """Exit 1 when the API would refuse the file."""
    from rag.finetune.export import check_files

    result = check_files(args.file, args.validation_file, args.model, args.epochs, args.training_usd)
    emit(args, result, "\n".join(_cost_lines(result)))
    return 1 if result["problems"] else 0


def run_run(args: argparse.Namespace) -> int:
    """Exit 0 when the model is there, 1 when the job failed, was cancelled, or would be refused."""
    from rag.finetune.export import check_files
    from rag.finetune.jobs import JobPlan

    if len(args.suffix) > 64:
        raise ConfigError("--suffix", args.suffix, "at most 64 characters")
    checked = check_files(args.file, args.validation_file, args.model, args.epochs, args.training_usd)
    for line in _cost_lines(checked):
        progress(line)
    if checked["problems"]:
        emit(args, {"status": "not_started", **checked}, "not started: the API would refuse this file")
        return 1
    state_path = args.state or args.file.with_name(f"{args.file.name}.job.json")
    plan = JobPlan(
        _base_url(args, state_path), args.model, args.file, args.validation_file, args.suffix, args.epochs, args.seed
    )
    return _finished(args, _job_run(args, state_path).run(plan, again=args.again, poll_s=_poll_s(args)))


def run_status(args: argparse.Namespace) -> int:
    """Exit 1 when the job failed or was cancelled."""
    state, path = _state(args)
    if not state.job_id:
        raise RefusedError("no_job", f"{path}: the job was not made yet; go on with `sft-guard ft run`")
    run = _job_run(args, path)
    return _finished(args, run.poll(state, _poll_s(args)) if args.follow else run.look(state))


def _finished(args: argparse.Namespace, state: Any) -> int:
    import msgspec

    from rag.finetune.jobs import ENDED, ended_words

    lines = [f"job {state.job_id}: {state.status}"]
    words = ended_words(state) if state.status in ENDED else []
    result: dict[str, Any] = msgspec.to_builtins(state)
    emit(args, {**result, "explained": words}, "\n".join(lines + words))
    return 1 if state.status in ("failed", "cancelled") else 0


def run_ask(args: argparse.Namespace) -> int:
    """Print the answer."""
    from rag.text import language

    model, client, caller = _asked_model(args)
    system = _system_texts(args).get(language(args.question), "")
    answer = _completion(client, caller, model, system, args.question)
    emit(args, {"model": model, "question": args.question, "answer": answer}, answer)
    return 0


def run_eval(args: argparse.Namespace) -> int:
    """Print what the model learnt; the figures are for a person to judge, so 0."""
    from guard.checks.spec import CheckSpec
    from guard.finetune_grading import grader
    from rag.finetune.evaluate import TRAINED, UNSEEN, cases_of, evaluate, summary
    from rag.finetune.templates import load_templates
    from rag.kb import KnowledgeBase

    model, client, caller = _asked_model(args)
    cases = cases_of(KnowledgeBase.open(args.kb).documents, load_templates(args.templates), _day(args.date))
    if args.limit is not None:
        cases = [case for kind in (TRAINED, UNSEEN) for case in [c for c in cases if c.kind == kind][: args.limit]]
    grade, graded_by = grader(CheckSpec(embedder=args.embedder) if args.embedder else CheckSpec())

    def tell(done: int) -> None:
        if done % 20 == 0:
            progress(f"{done} of {len(cases)} questions")

    graded = evaluate(cases, lambda c: _completion(client, caller, model, c.system, c.question), grade, tell)
    if args.out:
        _write_answers(args.out, graded)
    kinds = {kind: summary([one for one in graded if one.case.kind == kind]) for kind in (TRAINED, UNSEEN)}
    result = {"model": model, "graded_by": graded_by, **kinds}
    names = list(kinds[TRAINED])
    lines = [f"{model}, graded by {graded_by}", f"{'':20} {'trained':>10} {'unseen':>10}"]
    lines += [f"{name:20} {kinds[TRAINED][name]!s:>10} {kinds[UNSEEN][name]!s:>10}" for name in names]
    emit(args, result, "\n".join(lines))
    return 0


def _write_answers(path: Path, graded: Any) -> None:
    import msgspec

    from rag.finetune.cursor import write_file

    rows = [
        {"kind": g.case.kind, "doc_id": g.case.doc_id, "question": g.case.question, "answer": g.answer,
         "reference": g.case.reference, "similarity": g.grade.similarity, "hallucinated": g.grade.hallucinated}
        for g in graded
    ]  # fmt: skip
    write_file(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def run_register(args: argparse.Namespace) -> int:
    """Register; again is no error."""
    import msgspec

    from guard.release.pointer import translated
    from rag.finetune.registering import register as register_model
    from registry.client import RegistryClient

    state, _ = _state(args)
    token = None
    if args.registry_token_env:
        token = environment_value(args.registry_token_env)
        if token is None:
            raise ConfigError("--registry-token-env", args.registry_token_env, "set that environment variable")
    evaluation = None
    if args.evaluation:
        try:
            evaluation = msgspec.json.decode(args.evaluation.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConfigError(
                "--evaluation", str(args.evaluation), f"name the output of `ft eval --json` ({error})"
            ) from error

    async def register_it() -> Any:
        client = RegistryClient(args.registry, token=token)
        try:
            return await register_model(client, args.name, state, owner=args.owner, evaluation=evaluation)
        finally:
            await client.close()

    with translated():
        made = asyncio.run(register_it())
    result = {"model": made.model, "version": made.version, "artifact_url": made.artifact_url, "meta": dict(made.meta)}
    emit(args, result, f"registered {made.model} {made.version}: {made.artifact_url}")
    return 0


def _asked_model(args: argparse.Namespace) -> tuple[str, Any, Any]:
    """Model, client and caller of `ask` and `eval`."""
    model, path = args.model, args.state or Path("ft.jsonl.job.json")
    if not model:
        state, _ = _state(args)
        if not state.fine_tuned_model:
            raise RefusedError("no_model", f"{path}: job {state.job_id or '(none)'} is {state.status}; name a --model")
        model = state.fine_tuned_model
    return model, _client(args, path), _caller()


def _completion(client: Any, caller: Any, model: str, system: str, question: str) -> str:
    messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": question}]
    answer = caller.read(
        "question", lambda: client.chat.completions.create(model=model, messages=messages, temperature=0.0)
    )
    return str(answer.choices[0].message.content or "") if answer.choices else ""


def _system_texts(args: argparse.Namespace) -> dict[str, str]:
    from rag.finetune.templates import load_templates

    return {lang: words.system for lang, words in load_templates(args.templates).by_language.items()}


def _state(args: argparse.Namespace) -> tuple[Any, Path]:
    from rag.finetune.jobs import read_state

    path = args.state or Path("ft.jsonl.job.json")
    state = read_state(path)
    if state is None:
        raise ConfigError("--state", str(path), "name the state file of an `sft-guard ft run` (FILE.job.json)")
    return state, path


def _base_url(args: argparse.Namespace, state_path: Path) -> str:
    from rag.finetune.api import BASE_URL
    from rag.finetune.jobs import read_state

    if args.base_url:
        return str(args.base_url).rstrip("/")
    known = read_state(state_path)
    return known.base_url if known is not None else BASE_URL


def _client(args: argparse.Namespace, state_path: Path) -> Any:
    from rag.finetune.api import make_client

    return make_client(_base_url(args, state_path), environment_value(args.key_env) or "")


def _caller() -> Any:
    from rag.finetune.api import Caller

    return Caller(SystemClock().now_s, time.sleep, progress)


def _job_run(args: argparse.Namespace, path: Path) -> Any:
    from rag.finetune.jobs import JobRun

    return JobRun(_client(args, path), _caller(), path, progress, time.sleep)


def _poll_s(args: argparse.Namespace) -> float:
    if not 0.01 <= args.poll_s <= 3600:
        raise ConfigError("--poll-s", args.poll_s, "write 0.01 to 3600 seconds")
    return float(args.poll_s)


def _day(given: str | None) -> str:
    if given is None:
        return datetime.fromtimestamp(SystemClock().wall_s(), UTC).date().isoformat()
    try:
        return datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError as error:
        raise ConfigError("--date", given, "write a day such as 2026-03-31") from error
