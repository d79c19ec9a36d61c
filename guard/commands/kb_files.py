"""kb remove, compact, diff, info, sign, import, export: what is done to a knowledge base as a whole."""

from __future__ import annotations

import argparse
from pathlib import Path

from guard.commands.common import Groups, add_command, emit
from guard.settings import environment_value
from slo.errors import ConfigError

KEY_ENV = "SFT_GUARD_KB_KEY"


def register(kb: Groups) -> None:
    """Add the commands of this module to the group `kb`."""
    about = "delete documents by doc_id, or all that came from a file; found no more at once"
    remove = add_command(kb, "remove", run_remove, about, "sft-guard kb remove --kb kb rule-07 handbook")
    remove.add_argument("names", nargs="*", metavar="NAME", help="doc_id, or name of a file without its ending")
    about = "put all segments together, drop deleted texts and old generations"
    compact = add_command(kb, "compact", run_compact, about, "sft-guard kb compact --kb kb --keep 1")
    compact.add_argument("--keep", type=int, default=5, metavar="N", help="generations that stay (default 5)")
    about = "what changed between two knowledge bases or generations"
    diff = add_command(kb, "diff", run_diff, about, "sft-guard kb diff kb@3 kb")
    diff.add_argument(
        "before", metavar="DIR[@GENERATION]", help="knowledge base, and generation if not the current one"
    )
    diff.add_argument("after", metavar="DIR[@GENERATION]", help="what to compare with it")
    info = add_command(kb, "info", run_info, "version, generations, segments, signature", "sft-guard kb info --kb kb")
    about = "sign the pointer with the key, or write it unsigned when there is no key"
    sign = add_command(kb, "sign", run_sign, about, f"{KEY_ENV}=... sft-guard kb sign --kb kb")
    about = "write kb.jsonl, kb.index, mappings.json and kb_meta.json"
    export = add_command(kb, "export", run_export, about, "sft-guard kb export --kb kb --out layout")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write")
    about = "make a knowledge base of kb.jsonl, kb.index, mappings.json and kb_meta.json"
    imported = add_command(kb, "import", run_import, about, "sft-guard kb import --kb kb --layout layout")
    imported.add_argument("--layout", type=Path, required=True, metavar="DIR", help="directory in the four-file layout")
    imported.add_argument("--embedder", help="checks that the vectors are its own (default: all-MiniLM-L6-v2)")
    for parser in (remove, compact, info, sign, export, imported):
        parser.add_argument("--kb", type=Path, required=True, metavar="DIR", help="directory of the knowledge base")
    for parser in (remove, compact, diff, info, sign, export, imported):
        add_key(parser)


def add_key(parser: argparse.ArgumentParser) -> None:
    """The option that names the key of the pointer's signature."""
    parser.add_argument(
        "--key-env", default=KEY_ENV, metavar="NAME", help=f"environment variable with the signing key ({KEY_ENV})"
    )


def key_of(args: argparse.Namespace) -> bytes | None:
    """The signing key, or None when its variable is not set."""
    key = environment_value(args.key_env)
    if key is None and args.key_env != KEY_ENV:
        raise ConfigError("--key-env", args.key_env, "set that environment variable")
    return key.encode() if key else None


def roles_in(text: str) -> list[str]:
    """Roles written with commas, as in x-guard-roles."""
    return [role.strip().casefold() for role in text.split(",") if role.strip()]


def run_remove(args: argparse.Namespace) -> int:
    """Delete documents; exit 1 when a name is not known."""
    from rag import kb_commands

    result = kb_commands.kb_remove(args.kb, args.names, key=key_of(args))
    missing = result["missing"]
    lines = [f"removed {result['removed']}; kb_version {result['kb_version']}, {result['doc_count']} documents"]
    lines += [f"not there: {name}" for name in missing] if isinstance(missing, list) else []
    emit(args, result, "\n".join(lines))
    return 1 if missing else 0


def run_compact(args: argparse.Namespace) -> int:
    """Merge and clean."""
    from rag import kb_commands

    result = kb_commands.kb_compact(args.kb, args.keep, key=key_of(args))
    text = f"{result['segments_before']} segments are {result['segments']}; generations kept: {result['generations']}"
    emit(args, result, text)
    return 0


def run_diff(args: argparse.Namespace) -> int:
    """Print what changed; exit 1 when something did."""
    from rag import kb_commands

    result = kb_commands.kb_diff(args.before, args.after, key=key_of(args))
    lines = [", ".join(f"{name} {result[name]}" for name in ("added", "removed", "changed", "same"))]
    for sign, name in (("+", "added_ids"), ("-", "removed_ids"), ("~", "changed_ids")):
        ids = result[name]
        lines += [f"{sign} {doc_id}" for doc_id in ids] if isinstance(ids, list) else []
    fields = result["fields"]
    lines += (
        [f"{name}: {values[0]} -> {values[1]}" for name, values in fields.items()] if isinstance(fields, dict) else []
    )
    emit(args, result, "\n".join(lines))
    return 1 if result["added"] or result["removed"] or result["changed"] else 0


def run_info(args: argparse.Namespace) -> int:
    """Print what is there."""
    from rag import kb_commands

    result = kb_commands.kb_info(args.kb, key=key_of(args))
    emit(args, result, "\n".join(f"{name}: {value}" for name, value in result.items()))
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Sign the pointer."""
    from rag import kb_commands

    result = kb_commands.kb_sign(args.kb, key=key_of(args))
    done = "signed" if result["signed"] else f"unsigned (no key in {args.key_env})"
    emit(args, result, f"generation {result['generation']}: pointer {done}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write the four files."""
    from rag import kb_commands

    result = kb_commands.kb_export(args.kb, args.out, key=key_of(args))
    files = result["files"]
    emit(args, result, "\n".join(files) if isinstance(files, list) else "")
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Read the four files."""
    from rag import kb_commands

    result = kb_commands.kb_import(args.layout, args.kb, embedder=args.embedder, key=key_of(args))
    notes = result["notes"]
    lines = [f"made {args.kb}: kb_version {result['kb_version']}, {result['doc_count']} documents"]
    emit(args, result, "\n".join([*lines, *(notes if isinstance(notes, list) else [])]))
    return 0
