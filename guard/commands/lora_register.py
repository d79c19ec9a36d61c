"""lora register: lineage and evaluation of an adapter in the registry; a failed gate keeps it out of Staging."""

from __future__ import annotations

import argparse
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, emit, needs_extra
from guard.commands.registry import actor_of, add_registry_options, ask_registry
from slo.clock import SystemClock
from slo.errors import ConfigError


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    example = (
        "sft-guard lora register run --name hr-rules --stage --baseline baseline.json\n"
        "  sft-guard lora register run --name hr-rules --sealed hr-rules@v3 --vault vault --keys keys.json --stage"
    )
    about = "lineage and evaluation of an adapter in the registry; exit 1 when --stage was asked and its gate failed"
    parser = add_command(lora, "register", run_register, about, example)
    parser.add_argument("run_path", type=Path, metavar="RUN", help="directory with run_card.json and evaluation.json")
    parser.add_argument("--name", required=True, help="model in the registry")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="default: RUN/adapter, or RUN where that is none")
    parser.add_argument("--evaluation", type=Path, metavar="FILE", help="default: RUN/evaluation.json")
    about = "fewest questions of an evaluation that opens Staging (default 30)"
    parser.add_argument("--min-rows", type=int, metavar="N", help=about)
    about = "rules that will stand behind it; where it was judged with rules, they must be these"
    parser.add_argument("--rules", type=Path, metavar="FILE", help=about)
    parser.add_argument("--stage", action="store_true", help="None -> Staging, where its evaluation has passed")
    about = "baseline.json whose `current` similarity it becomes; made when there is none"
    parser.add_argument("--baseline", type=Path, metavar="FILE", help=about)
    parser.add_argument("--owner", default="", help="of the model, when it is new there")
    parser.add_argument("--description", default="", help="of the version")
    parser.add_argument("--commit", help="git commit of what made it; default: of the working directory")
    parser.add_argument("--actor", default=None, help="who does it; default: the user that is logged in")
    add_registry_options(parser)
    sealed = parser.add_argument_group("an adapter that lies sealed in a vault")
    sealed.add_argument(
        "--sealed", metavar="NAME@VERSION", help="instead of --adapter; it is opened in memory to check"
    )
    sealed.add_argument("--vault", type=Path, metavar="DIR", help="directory of the sealed versions")
    sealed.add_argument("--keys", type=Path, metavar="FILE", help="key ring that opens it")
    sealed.add_argument("--access", type=Path, metavar="FILE", help="users and roles of the vault")
    sealed.add_argument("--vault-token-env", metavar="NAME", help="environment variable with your token of the vault")
    parser.set_defaults(run=needs_extra("lora", run_register))


def run_register(args: argparse.Namespace) -> int:
    """Register; exit 1 when Staging was asked for and the gate has failed."""
    from lora.registering import register as register_adapter
    from lora.registering import result_of
    from registry.model import EVIDENCE, Stage

    ready = _ready(args)
    actor, now_wall_s = actor_of(args), SystemClock().wall_s()
    say = {"owner": args.owner, "actor": actor, "description": args.description, "wall_s": now_wall_s}

    async def work(port: Any) -> tuple[Any, str]:
        """The version, and the stage it is in now."""
        made = await register_adapter(port, ready, args.name, **say)
        if not (args.stage and ready.passed) or made.stage is not Stage.NONE:
            return made, made.stage.value
        await port.transition(args.name, made.version, Stage.STAGING, actor=actor, detail="its evaluation has passed")
        return made, Stage.STAGING.value

    made, stage = ask_registry(args, work)
    said = result_of(ready)
    result = {"model": args.name, "version": made.version, "stage": stage, "artifact_url": made.artifact_url,
              "adapter_sha256": ready.adapter_sha256, "passed": ready.passed, "evaluation": said}  # fmt: skip
    lines = [f"registered {args.name} {made.version} ({stage}): {made.artifact_url}"]
    if not ready.passed:
        evidence = said[EVIDENCE]
        assert isinstance(evidence, list)
        lines.append(f"gate failed, Staging stays closed to it: {'; '.join(evidence)}")
    if args.baseline and ready.passed:
        result["baseline"] = _current(args.baseline, ready, now_wall_s)
        lines.append(f"{args.baseline}: current similarity is {said['similarity']:.1%} of {said['count']}")
    emit(args, result, "\n".join(lines))
    return 1 if args.stage and not ready.passed else 0


def _ready(args: argparse.Namespace) -> Any:
    from lora.register_gate import MIN_ROWS
    from lora.registering import Sealed, prepare
    from rag.provenance import git_commit

    commit = git_commit() if args.commit is None else args.commit
    if args.min_rows is not None and args.min_rows < 1:
        raise ConfigError("--min-rows", args.min_rows, "write a number from 1")
    gate: dict[str, Any] = {"min_rows": args.min_rows or MIN_ROWS, "rules_sha256": _rules_sha256(args.rules)}
    if args.sealed:
        from guard.commands.lora_vault import split_label, vault_of

        for option, value in (("--vault", args.vault), ("--keys", args.keys)):
            if value is None:
                raise ConfigError(option, "nothing", "a sealed adapter is opened with it")
        name, version = split_label(args.sealed)
        vault = vault_of(argparse.Namespace(**{**vars(args), "token_env": args.vault_token_env}))
        opened, manifest = vault.open(name, version), vault.verify(name, version)
        place = Sealed(name, version, opened.content_sha256, manifest.key_id)
        return prepare(args.run_path, opened.files, sealed=place, evaluation=args.evaluation, commit=commit, **gate)
    adapter = args.adapter or (args.run_path / "adapter" if (args.run_path / "adapter").is_dir() else args.run_path)
    return prepare(args.run_path, None, adapter=adapter, evaluation=args.evaluation, commit=commit, **gate)


def _rules_sha256(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError("--rules", str(path), f"cannot be read ({error.strerror}); check the path") from error


def _current(path: Path, ready: Any, now_wall_s: float) -> str:
    """Write the evaluation into the baseline; its hash."""
    from lora.registering import with_current
    from slo.baselines import load_baseline, save_baseline

    save_baseline(with_current(load_baseline(path) if path.exists() else None, ready, now_wall_s), path)
    return load_baseline(path).sha256
