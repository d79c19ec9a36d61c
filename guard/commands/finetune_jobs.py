"""The half of `ft` that talks to the API: run, status, ask, eval, register."""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guard.commands.common import emit, progress
from guard.settings import environment_value
from slo.clock import SystemClock
from slo.codec import NOT_JSON
from slo.errors import ConfigError, RefusedError

PATIENT_S, WAITING_S = 1800.0, 30.0
"""How long nobody may answer: a job that runs for hours, and a person who waits at the keyboard."""


def run_run(args: argparse.Namespace) -> int:
    """Exit 0 when the model is there, 1 when the job failed, was cancelled, or would be refused."""
    from rag.finetune.export import check_files
    from rag.finetune.jobs import JobPlan

    if len(args.suffix) > 64:
        raise ConfigError("--suffix", args.suffix, "at most 64 characters")
    checked = check_files(args.file, args.validation_file, args.model, args.epochs, args.training_usd)
    for line in cost_lines(checked):
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
    from rag.finetune.jobs import ENDED

    state, path = _state(args)
    if not state.job_id:
        raise RefusedError("no_job", f"{path}: the job was not made yet; go on with `sft-guard ft run`")
    if state.status in ENDED:  # nothing moves any more: nobody has to be asked
        return _finished(args, state)
    if args.follow:
        return _finished(args, _job_run(args, path).poll(state, _poll_s(args)))
    return _finished(args, _job_run(args, path, WAITING_S).look(state))


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
    cases = cases_of(KnowledgeBase.open(args.kb).documents, load_templates(args.templates), day(args.date))
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
        except (OSError, *NOT_JSON) as error:
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
    return model, _client(args, path), _caller(WAITING_S)


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


def _caller(give_up_s: float) -> Any:
    from rag.finetune.api import Caller, Patience

    return Caller(SystemClock().now_s, time.sleep, progress, Patience(give_up_s=give_up_s))


def _job_run(args: argparse.Namespace, path: Path, give_up_s: float = PATIENT_S) -> Any:
    from rag.finetune.jobs import JobRun

    return JobRun(_client(args, path), _caller(give_up_s), path, progress, time.sleep)


def _poll_s(args: argparse.Namespace) -> float:
    if not 0.01 <= args.poll_s <= 3600:
        raise ConfigError("--poll-s", args.poll_s, "write 0.01 to 3600 seconds")
    return float(args.poll_s)


def day(given: str | None) -> str:
    """An ISO day, today (UTC) by default. Raises ConfigError: no day."""
    if given is None:
        return datetime.fromtimestamp(SystemClock().wall_s(), UTC).date().isoformat()
    try:
        return datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError as error:
        raise ConfigError("--date", given, "write a day such as 2026-03-31") from error


def cost_lines(result: dict[str, Any]) -> list[str]:
    """What a check found, for a person."""
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
