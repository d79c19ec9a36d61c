"""slo import, slo export: objectives to and from OpenSLO and Sloth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, emit, progress
from slo.errors import ConfigError
from slo.metric_names import INDICATORS
from slo.strict_yaml import INIT, read_config

FORMATS = ("openslo", "sloth")


def register(slo: Groups) -> None:
    """Add the commands to the group `slo`."""
    about = "slo.yaml out of OpenSLO v1 or Sloth prometheus/v1; what cannot be taken over is named"
    read = add_command(slo, "import", run_import, about, "sft-guard slo import --from openslo slos.yaml --out slo.yaml")
    read.add_argument("--from", dest="format", choices=FORMATS, required=True, help="form of FILE")
    read.add_argument("file", type=Path, help="the file to read")
    read.add_argument(
        "--as", dest="named", action="append", default=[], metavar="NAME=INDICATOR",
        help="what an SLO measures, when its queries do not say so",
    )  # fmt: skip
    about = "slo.yaml as OpenSLO v1 or Sloth prometheus/v1; what it has no word for is named"
    write = add_command(slo, "export", run_export, about, "sft-guard slo export --to sloth --slo slo.yaml --out f.yaml")
    write.add_argument("--to", dest="format", choices=FORMATS, required=True, help="form to write")
    write.add_argument("--slo", type=Path, default=Path("slo.yaml"), help="the rules")
    for parser in (read, write):
        parser.add_argument("--out", type=Path, required=True, help="the file to write")
        parser.add_argument("--strict", action="store_true", help="exit 1 when anything was left out or kept aside")


def run_import(args: argparse.Namespace) -> int:
    """Write slo.yaml; exit 1 when there was nothing to take over."""
    named = dict(_pair(text) for text in args.named)
    result = _module(args.format).read(read_config(args.file), args.file.name, named)
    if result.count:
        args.out.write_text(result.text, encoding="utf-8")
    answer = {"out": str(args.out) if result.count else None, "objectives": result.count, "left_out": result.left_out}
    lines = [f"left out: {line}" for line in result.left_out]
    lines.append(f"wrote {args.out}: {result.count} objectives" if result.count else "nothing could be taken over")
    _tell(args, answer, lines)
    return 1 if not result.count or (args.strict and result.left_out) else 0


def run_export(args: argparse.Namespace) -> int:
    """Write the other format; exit 1 when no objective can be said in it."""
    result = _module(args.format).export(read_config(args.slo, INIT), args.slo.name)
    if result.count:
        args.out.write_text(result.text, encoding="utf-8")
    answer = {
        "out": str(args.out) if result.count else None, "objectives": result.count, "left_out": result.left_out,
        "kept_aside": result.aside,
    }  # fmt: skip
    lines = [f"left out: {line}" for line in result.left_out] + [f"kept aside: {line}" for line in result.aside]
    lines.append(f"wrote {args.out}: {result.count} objectives" if result.count else "no objective can be said in it")
    _tell(args, answer, lines)
    return 1 if not result.count or (args.strict and (result.left_out or result.aside)) else 0


def _tell(args: argparse.Namespace, answer: dict[str, Any], lines: list[str]) -> None:
    if args.json:
        for line in lines:
            progress(line)
    emit(args, answer, "\n".join(lines))


def _module(name: str) -> Any:
    from slo.interop import openslo, sloth

    return {"openslo": openslo, "sloth": sloth}[name]


def _pair(text: str) -> tuple[str, str]:
    name, equals, indicator = text.partition("=")
    if not equals or indicator not in INDICATORS:
        raise ConfigError("--as", text, f"write NAME=INDICATOR; indicators: {', '.join(INDICATORS)}")
    return name, indicator
