"""lora train: an adapter from a data set, in a process of its own."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, emit, login, needs_extra, progress
from rag.probing import probe_model
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError, RefusedError

DEFAULT_BASE = "Qwen/Qwen2.5-1.5B-Instruct"
EXAMPLE = "sft-guard lora train --data data --base Qwen/Qwen2.5-1.5B-Instruct --out run"


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    train = add_command(lora, "train", run_train, "train an adapter on a data set", EXAMPLE)
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="what `lora dataset` wrote")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="log, checkpoints, card, plots, adapter")
    train.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="model by name or path (default %(default)s)"
    )
    train.add_argument("--resume", action="store_true", help="go on with the newest checkpoint of --out")
    train.add_argument("--offline", action="store_true", help="ask no hub for the model")
    train.add_argument("--device", default="auto", help="auto, cpu or cuda")
    train.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    how = train.add_argument_group("how it is trained (defaults of the practice)")
    how.add_argument(
        "--rate", dest="learning_rate", type=float, default=2e-4, help="learning rate (default %(default)s)"
    )
    how.add_argument("--schedule", default="cosine", help="cosine, linear or constant (default %(default)s)")
    about = "steps (default 30, in short runs 15 %% of the steps)"
    how.add_argument("--warmup", dest="warmup_steps", type=int, metavar="STEPS", help=about)
    how.add_argument("--epochs", type=float, default=4.0, help="default %(default)s")
    how.add_argument("--batch", type=int, default=4, metavar="ROWS", help="rows at once (default %(default)s)")
    how.add_argument("--accumulate", type=int, default=2, metavar="N", help="batches a step (default %(default)s)")
    how.add_argument("--max-length", type=int, default=192, metavar="TOKENS", help="default %(default)s")
    how.add_argument("--max-grad-norm", type=float, default=1.0, help="default %(default)s")
    how.add_argument("--weight-decay", type=float, default=0.01, help="default %(default)s")
    how.add_argument("--patience", type=int, default=3, help="evaluations without progress; 0 never stops (default 3)")
    about = "share by which the eval loss must fall to be progress (default %(default)s)"
    how.add_argument("--min-improvement", type=float, default=0.01, metavar="SHARE", help=about)
    how.add_argument("--seed", type=int, default=0, help="of weights, order of the rows and dropout")
    how.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="more checkpoints than one an epoch")
    how.add_argument("--log-every", type=int, metavar="STEPS", help="a log row is the mean of so many (default 10)")
    how.add_argument("--compile", action="store_true", help="torch.compile: for long runs on a GPU, costs a minute")
    how.add_argument("--layout", default="auto", help="auto, padded or packed (auto: packed on a GPU)")
    shape = train.add_argument_group("the adapter")
    shape.add_argument("--rank", type=int, help="default 16; 8 below 100 rows, 32 from 10,000")
    shape.add_argument("--alpha", type=int, help="default twice the rank")
    shape.add_argument("--dropout", type=float, default=0.05, help="default %(default)s")
    shape.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj", metavar="NAMES", help="default %(default)s")
    shape.add_argument("--dora", action="store_true", help="weights as direction and size (peft)")
    shape.add_argument("--4bit", dest="four_bit", action="store_true", help="base in 4 bits (GPU, bitsandbytes)")
    told = train.add_argument_group("who is told")
    told.add_argument("--textfile", type=Path, metavar="FILE.prom", help="sft_train_* for node_exporter")
    told.add_argument("--otlp", metavar="URL", help="sft_train_* to an OpenTelemetry receiver (extra otel)")
    told.add_argument("--otlp-protocol", default="http", choices=("http", "grpc"), help="how it is sent")
    told.add_argument("--no-plots", action="store_true", help="draw no pictures")
    train.set_defaults(run=needs_extra("lora", run_train))


def run_train(args: argparse.Namespace) -> int:
    """Train; exit 1 when the loss became no number."""
    plan = _plan(args)
    rows, data = _data(args.data)
    _check_out(args)
    import torch

    from lora.training.encode import cut_words, encode_rows
    from lora.training.model import device_of, load_base, load_tokenizer, parameter_counts, with_adapter

    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError("--threads", args.threads, "write a number from 1")
        torch.set_num_threads(args.threads)
    device = device_of(args.device)
    probe_model(args.base)
    tokenizer = load_tokenizer(args.base, offline=args.offline)
    encoded, notes = {}, []
    for name, pairs in rows.items():
        try:
            encoded[name] = encode_rows(tokenizer, pairs, plan.max_length)
        except DataError as error:
            raise DataError(f"{args.data / name}.jsonl: {error}") from error
        if words := cut_words(encoded[name], plan.max_length):
            notes.append(f"{name}: {words}")
            progress(f"sft-guard: {notes[-1]}")
    plan = plan.resolved(len(rows["train"]))
    base = load_base(args.base, device, four_bit=plan.four_bit, offline=args.offline)
    _check_context(base, encoded)
    model = with_adapter(base, plan)
    trained, parameters = parameter_counts(model)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)

    from lora.training.record import held

    with held(args.out):
        return _trained(args, plan, encoded, data, notes, base, model, device, pad_id, (trained, parameters))


def _trained(
    args: argparse.Namespace,
    plan: Any,
    encoded: dict[str, Any],
    data: dict[str, Any],
    notes: list[str],
    base: Any,
    model: Any,
    device: Any,
    pad_id: int,
    sizes: tuple[int, int],
) -> int:
    """Train, with the card written before and after."""
    from lora.training.checkpoint import CONFIG, WEIGHTS
    from lora.training.loop import Training, best_of
    from lora.training.record import ADAPTER, base_of, environment, hashes, write_card

    clock = SystemClock()
    facts: dict[str, Any] = {
        "who": login(), "began_wall_s": clock.wall_s(), "base": base_of(args.base, base), "data": data,
        "settings": _settings(plan, len(encoded["train"])), "environment": environment(device), "notes": notes,
    }  # fmt: skip
    from guard.commands.lora_training_report import TrainingReport
    from lora.training.card import JSON, STOPPED, run_card

    report = TrainingReport(
        args, clock, device_name=facts["environment"]["device"],
        on_begin=lambda: write_card(args.out, run_card(**facts)),
    )  # fmt: skip
    training = Training(
        model, encoded["train"], encoded["validation"], plan, pad_id=pad_id, report=report, out=args.out,
        data_sha256=data["sha256"], base=_base_id(facts["base"]), compiled=args.compile, now_s=clock.now_s,
    )  # fmt: skip
    try:
        result = training.run()
    except KeyboardInterrupt:
        if report.begun:
            write_card(args.out, run_card(**facts, status=STOPPED, ended_wall_s=clock.wall_s()))
            progress(f"go on with --resume --out {args.out}")
        report.close()
        raise
    except BaseException:
        report.close()
        raise
    report.close()
    kept = best_of(result, args.out)
    files: dict[str, str] = {}
    if kept is not None and result.ended != "diverged":
        _keep(kept, args.out / ADAPTER, (WEIGHTS, CONFIG))
        files = {name: digest for name, digest in hashes(args.out / ADAPTER).items() if name != JSON}
    found = {**result.as_dict(), "trained_parameters": sizes[0], "parameters": sizes[1]}
    made = run_card(**facts, status=result.ended, ended_wall_s=clock.wall_s(), result=found, files=files)
    write_card(args.out, made)
    if files:  # it goes with the adapter, wherever that goes: which base it was trained on is told from it
        _keep(args.out, args.out / ADAPTER, (JSON,))
    plots = [] if args.no_plots else _plots(args.out)
    emit(args, {"out": str(args.out), "plots": plots, **made}, "\n".join(_lines(args.out, made, plots)))
    return 1 if result.ended == "diverged" else 0


def _plan(args: argparse.Namespace) -> Any:
    from lora.training.plan import TrainPlan

    given = {field.name: getattr(args, field.name) for field in fields(TrainPlan)}
    given["targets"] = tuple(part.strip() for part in args.targets.split(",") if part.strip())
    return TrainPlan(**given)


def _settings(plan: Any, row_count: int) -> dict[str, Any]:
    from lora.training.card import settings_of

    return settings_of(plan.as_dict(), row_count)


def _data(directory: Path) -> tuple[dict[str, list[tuple[str, str]]], dict[str, Any]]:
    """(question, answer) of training and validation, and what the card says of them."""
    from lora.dataset_files import CARD, check_files, read_rows

    made = check_files(directory) if (directory / CARD).exists() else {}
    rows, digest, files = {}, sha256(), {}
    for name in ("train", "validation"):
        path = directory / f"{name}.jsonl"
        rows[name] = [(row.question, row.answer) for row in read_rows(path)]
        content = path.read_bytes()
        digest.update(content)
        files[path.name] = sha256(content).hexdigest()
        if not rows[name]:
            raise DataError(f"{path}: no row; a set for training needs rows here, see sft-guard lora dataset --split")
    data = {
        "directory": str(directory), "sha256": digest.hexdigest(),
        "rows": {name: len(found) for name, found in rows.items()},
        "files": files,
        "card": {name: made[name] for name in ("data_sha256", "source", "seed", "replayed") if name in made},
    }  # fmt: skip
    return rows, data


def _check_context(base: Any, encoded: dict[str, Any]) -> None:
    limit = int(getattr(base.config, "max_position_embeddings", 0) or 0)
    longest = max(len(row.ids) for rows in encoded.values() for row in rows)
    if limit and longest > limit:
        cure = f"a row has {longest} tokens, the base model reads {limit}; write at most that"
        raise ConfigError("--max-length", longest, cure)


def _base_id(base: dict[str, Any]) -> str:
    """What a base is known by on resuming: its weights; its path may change."""
    return str(base.get("weights_sha256") or f"{base['name']} {base['commit']}".strip())


def _check_out(args: argparse.Namespace) -> None:
    from lora.training.card import JSON

    if (args.out / JSON).exists() and not args.resume:
        raise RefusedError("exists", f"{args.out} holds a run; go on with it by --resume, or name a new directory")


def _keep(source: Path, adapter: Path, names: tuple[str, ...]) -> None:
    try:
        adapter.mkdir(parents=True, exist_ok=True)
        for name in names:
            beside = adapter / f".{name}"
            shutil.copyfile(source / name, beside)
            beside.replace(adapter / name)
    except OSError as error:
        cure = "make room, then go on by --resume"
        raise DataError(f"{adapter}: cannot be written ({error.strerror}); {cure}") from error


def _plots(out: Path) -> list[str]:
    from guard.lora_plots import plot_run
    from lora.runlog import read_run

    try:
        return [str(path) for path in plot_run(read_run(out), out)]
    except RefusedError as error:
        progress(f"sft-guard: {error}")
        return []


def _lines(out: Path, made: dict[str, Any], plots: list[str]) -> list[str]:
    result = made["result"]
    how = {"finished": "trained", "early": "stopped early (no more progress by size)", "diverged": "DIVERGED"}
    lines = [
        f"{how[result['ended']]}: {result['steps']} steps, {result['epochs']:.1f} epochs, {result['train_s']:.1f} s, "
        f"{result['tokens_per_s']:.0f} tokens/s, {result['peak_bytes'] / 2**30:.2f} GiB"
    ]
    if result["best_eval_loss"] is not None:
        lines.append(f"best eval loss {result['best_eval_loss']:.3f} at step {result['best_step']}")
    if made["adapter"]:
        lines.append(f"wrote {out}/adapter; look at the run with: sft-guard lora diagnose {out}")
    else:
        lines.append(f"the loss became no number, no adapter was kept; see sft-guard lora diagnose {out}")
    return [*lines, *(f"wrote {path}" for path in plots)]
