"""kb profile, gate, pack, verify, register: what a knowledge base goes through before it serves."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, emit, progress
from guard.commands.kb_files import add_key, key_of
from guard.commands.registry import add_registry_options, ask_registry
from slo.errors import ConfigError


def register(kb: Groups) -> None:
    """Add the commands of this module to the group `kb`."""
    profile = add_command(kb, "profile", run_profile, "what its rows, or those of files, look like",
                          "sft-guard kb profile --kb kb")  # fmt: skip
    profile.add_argument("--kb", type=Path, metavar="DIR", help="directory of the knowledge base")
    profile.add_argument("--jsonl", type=Path, action="append", default=[], metavar="FILE", help="rows not added yet")
    profile.add_argument("--chunk", default="none", help="cut the rows of --jsonl as `kb add` would")
    profile.add_argument("--against", type=Path, metavar="DIR", help="compare with this one; exit 1 past a limit")

    gate = add_command(kb, "gate", run_gate, "decide on what was staged: rows, profile and golden questions",
                       "sft-guard kb gate --kb kb --golden golden.jsonl --promote")  # fmt: skip
    gate.add_argument("--kb", type=Path, required=True, metavar="DIR", help="directory of the knowledge base")
    gate.add_argument("--candidate", type=Path, metavar="DIR", help="another knowledge base; default: what was staged")
    gate.add_argument("--golden", type=Path, metavar="FILE",
                      help='lines {"question": ..., "doc_id" | "doc_ids" | "contains": ...}')  # fmt: skip
    gate.add_argument(
        "--mode", choices=("hybrid", "embedding", "bm25"), default="hybrid", help="how questions are asked"
    )
    gate.add_argument("--embedder", help="name, path, or none (BM25 only); default: the one it was made with")
    gate.add_argument("--promote", action="store_true", help="make it current when it is accepted")
    gate.add_argument("--force", action="store_true", help="with --promote: although it is refused")
    gate.add_argument("--discard", action="store_true", help="throw away what was staged, without a decision")
    gate.add_argument("--report", type=Path, metavar="FILE", help="write the report (Markdown) there too")
    limits = gate.add_argument_group("limits")
    for name, _, about in _LIMITS:
        limits.add_argument(f"--max-{name}", type=_ratio, metavar="RATIO", help=about)

    pack = add_command(kb, "pack", run_pack, "one file of it: the same content, the same checksum",
                       "sft-guard kb pack --kb kb --out faq-kb.tar.gz")  # fmt: skip
    pack.add_argument("--kb", type=Path, required=True, metavar="DIR", help="directory of the knowledge base")
    pack.add_argument("--out", type=Path, required=True, metavar="FILE", help="archive to write")
    verify = add_command(kb, "verify", run_verify, "read a pack from end to end, unpacking nothing",
                         "sft-guard kb verify faq-kb.tar.gz --checksum sha256:...")  # fmt: skip
    verify.add_argument("pack", type=Path, help="archive made by `kb pack`")
    verify.add_argument("--checksum", default="", help="sha256:... that it must have")
    named = add_command(kb, "register", run_register, "register a pack as a new version",
                        "sft-guard kb register faq-kb.tar.gz --name faq-kb --kb kb")  # fmt: skip
    named.add_argument("pack", type=Path, help="archive made by `kb pack`")
    named.add_argument("--name", required=True, help="model in the registry")
    named.add_argument("--kb", type=Path, metavar="DIR", help="where it was packed: the gate's decision goes along")
    named.add_argument("--owner", default="", help="of the model, when it is new there")
    named.add_argument("--description", default="", help="of the version")
    named.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="such as chunking=500/80")
    named.add_argument("--commit", help="git commit of what made it; default: of the working directory")
    named.add_argument("--actor", default=None, help="who does it; default: the user that is logged in")
    add_registry_options(named)
    for parser in (profile, gate, pack, named):
        add_key(parser)


_LIMITS = (
    ("bad-rows", "bad_ratio", "share of malformed, empty and damaged rows (default 0.02)"),
    ("duplicates", "duplicate_ratio", "share of rows that repeat another (default 0.02)"),
    ("near-duplicates", "near_ratio", "share of rows nearly like another (default 0.1)"),
    ("centroid-shift", "centroid_shift", "of all rows, 1 - cosine (default 0.2)"),
    ("vector-shift", "vector_shift", "of the mean vector, 1 - cosine (default 0.1)"),
    ("language-shift", "language_shift", "share of rows that change language (default 0.2)"),
    ("recall-drop", "recall_drop", "of recall@3 against the current generation (default 0.02)"),
    ("zero-hit-rise", "zero_hit_rise", "against the current generation (default 0.02)"),
)


def _ratio(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is no ratio; write a number from 0 to 1")
    return value


def run_profile(args: argparse.Namespace) -> int:
    """Print a profile; with --against, exit 1 when a limit is passed."""
    from rag import gate_commands

    if (args.kb is None) == (not args.jsonl):
        raise ConfigError("kb profile", "neither or both", "name --kb DIR or --jsonl FILE")
    result, text = gate_commands.kb_profile(args.kb, args.jsonl, args.chunk, args.against, key=key_of(args))
    emit(args, result, text)
    return 1 if result.get("accepted") is False else 0


def run_gate(args: argparse.Namespace) -> int:
    """Decide; exit 1 when it is refused."""
    from rag import gate_commands

    if args.discard:
        if args.promote or args.candidate:
            raise ConfigError("--discard", "with --promote or --candidate", "it throws away what was staged, alone")
        gate_commands.kb_discard(args.kb)
        emit(args, {"discarded": True}, "what was staged is gone; the current generation was not touched")
        return 0
    if args.promote and args.candidate:
        raise ConfigError("--promote", str(args.candidate), "only what was staged with `kb add --stage` is promoted")
    given = {field: getattr(args, f"max_{name}".replace("-", "_")) for name, field, _ in _LIMITS}
    result, text = gate_commands.kb_gate(
        args.kb,
        candidate=args.candidate,
        golden=args.golden,
        mode=args.mode,
        embedder=args.embedder,
        limits={field: value for field, value in given.items() if value is not None},
        promote=args.promote,
        force=args.force,
        report=args.report,
        key=key_of(args),
        progress=progress,
    )
    emit(args, result, text)
    return 0 if result["accepted"] else 1


def run_pack(args: argparse.Namespace) -> int:
    """Pack it."""
    from rag import gate_commands

    result = gate_commands.kb_pack(args.kb, args.out, key=key_of(args))
    emit(args, result, _lines(result, ("artifact_url", "checksum", "bytes", "kb_version", "doc_count", "notes")))
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Verify a pack; exit 1 when it is refused."""
    from rag import gate_commands

    result = gate_commands.kb_verify(args.pack, args.checksum)
    emit(args, result, _lines(result, ("verified", "reason", "checksum", "members", "kb_version", "doc_count")))
    return 0 if result["verified"] else 1


def run_register(args: argparse.Namespace) -> int:
    """Register a pack."""
    from rag import gate_commands

    params = {}
    for item in args.param:
        name, equals, value = item.partition("=")
        if not (equals and name):
            raise ConfigError("--param", item, "write NAME=VALUE")
        params[name] = value
    ready = gate_commands.prepare(args.pack, args.kb, params, args.commit, key=key_of(args))
    actor = args.actor or getpass.getuser()
    result: dict[str, Any] = ask_registry(
        args, lambda port: gate_commands.register(port, ready, args.name, args.owner, args.description, actor)
    )
    emit(args, result, _lines(result, ("model", "version", "stage", "artifact_url", "checksum", "gate", "note")))
    return 0


def _lines(result: dict[str, Any], names: Iterable[str]) -> str:
    def words(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return "\n".join(f"{name:14} {words(result[name])}" for name in names if result.get(name) not in (None, "", [], ()))
