"""What every command shares: help style, JSON output, reading input."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from slo.errors import RefusedError

Groups = Any  # argparse's subparsers action has no public type
Run = Callable[[argparse.Namespace], int]
_OURS = frozenset({"guard", "slo", "lora", "rag", "registry", "exporters", "alerts", "dashboards"})


def program_version() -> str:
    """Version of the installed program."""
    try:
        return version("sft-guard")
    except PackageNotFoundError:
        return "0+source"


def add_command(groups: Groups, name: str, run: Run, help_text: str, example: str) -> argparse.ArgumentParser:
    """A command with `--json` and an example under `--help`."""
    parser: argparse.ArgumentParser = groups.add_parser(
        name,
        help=help_text,
        description=help_text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = getattr(groups, "of_group", None)
    if group is not None and group.epilog is None:  # the first of its commands stands for it
        group.epilog = parser.epilog
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.set_defaults(run=run)
    return parser


def add_group(groups: Groups, name: str, help_text: str) -> Groups:
    """A command that only holds subcommands."""
    parser = groups.add_parser(
        name, help=help_text, description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands: Groups = parser.add_subparsers(dest=f"{name}_command", metavar="COMMAND", required=True)
    commands.of_group = parser
    return commands


def needs_extra(extra: str, run: Run) -> Run:
    """`run`, with one clear line instead of a traceback when a library of an optional extra is not installed."""

    def with_cure(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except ImportError as error:
            # A library that misses another one says so in its own words, and not always as ModuleNotFoundError.
            what = f"{error.name} is not installed"
            if not isinstance(error, ModuleNotFoundError) or not error.name:
                what = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            elif error.name.split(".")[0] in _OURS:
                raise  # not a library: the program itself is incomplete, and no extra mends that
            raise RefusedError("missing_extra", f"{what}; pip install 'sft-guard[{extra}]'") from error

    return with_cure


def emit(args: argparse.Namespace, result: Any, text: str) -> None:
    """Print for machines (`--json`) or for people."""
    if args.json:
        sys.stdout.write(to_json(result) + "\n")
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def to_json(result: Any) -> str:
    """One line of JSON; non-ASCII text stays readable."""
    return msgspec.json.encode(result).decode()


def login() -> str:
    """Name of the operating system's user, for cards and audit logs; `unknown` where there is none (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def progress(text: str) -> None:
    """Tell a person what is going on; machines read standard output."""
    print(text, file=sys.stderr, flush=True)
