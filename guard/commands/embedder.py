"""embedder: a small table of word vectors distilled from a transformer."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from guard.commands.common import Groups, add_command, add_group, emit, progress
from slo.errors import ConfigError, DataError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    embedder = add_group(groups, "embedder", "sentence vectors: distil a transformer into a table")
    distil = add_command(
        embedder, "distill", run_distill, "make a static embedder of a transformer (needs the embeddings extra)",
        "sft-guard embedder distill --model all-MiniLM-L6-v2 --dim 256 --out my-static\n"
        "  sft-guard kb add --kb kb --jsonl documents.jsonl --embedder my-static",
    )  # fmt: skip
    distil.add_argument("--model", default="all-MiniLM-L6-v2", help="name or directory (default: %(default)s)")
    distil.add_argument("--dim", type=int, default=256, help="principal components kept (default: %(default)s)")
    distil.add_argument("--latin-only", action="store_true", help="leave out the pieces of other scripts")
    distil.add_argument("--name", help="what its vectors are called by (default: static-MODEL)")
    distil.add_argument("--licence", default="", help="licence of the model, kept beside the table")
    distil.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    distil.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new directory")


def run_distill(args: argparse.Namespace) -> int:
    """Write the table; half a minute for a small model."""
    from rag import distill
    from rag.embedding import DEFAULT_MODEL, INSTALL_LINE, WEIGHTS_SHA256, is_minilm, minilm_directory

    missing = distill.missing_packages()
    if missing:
        raise DataError(f"embedder distill needs {', '.join(missing)}: {INSTALL_LINE}")
    if args.threads < 1:
        raise ConfigError("--threads", args.threads, "write a number of at least 1")
    short = Path(args.model).name
    if is_minilm(args.model):
        directory, source_name, short = minilm_directory(), DEFAULT_MODEL, DEFAULT_MODEL.split("/")[1]
    else:
        directory, source_name = distill.local_source(args.model), short if Path(args.model).is_dir() else args.model
    command = ["sft-guard", "embedder", "distill", "--model", args.model, "--dim", str(args.dim)]
    command += ["--latin-only"] if args.latin_only else []
    command += ["--licence", args.licence] if args.licence else []
    progress(f"distilling {directory}: half a minute for a small model")
    card = distill.distil(
        directory,
        args.out,
        name=args.name or f"static-{short}",
        source_name=source_name,
        dim=args.dim,
        latin_only=args.latin_only,
        licence=args.licence,
        command=f"{shlex.join(command)} --out DIR",
        source_sha256=WEIGHTS_SHA256 if is_minilm(args.model) else "",
        threads=args.threads,
    )
    result = {
        "out": str(args.out), "name": card.name, "dim": card.dim, "tokenizer": card.tokenizer, "files": card.files,
        "source": card.source, "source_sha256": card.source_sha256, "made_with": card.made_with,
    }  # fmt: skip
    size_mb = sum((args.out / file).stat().st_size for file in card.files) / 1e6
    emit(args, result, f"wrote {args.out}: {card.name}, {card.dim} dimensions, {size_mb:.1f} MB\n"
         f"use it by its path: checks: {{embedder: {args.out}}}, or kb add --embedder {args.out}")  # fmt: skip
    return 0
