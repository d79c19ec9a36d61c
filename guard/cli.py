"""Entry point: parse, call one function, print, exit. 0 ok, 1 negative result, 2 usage or environment."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from guard.commands import common
from slo.errors import ConfigError, GuardError

EPILOG = """\
examples:
  sft-guard init --preset support-faq --dir .      write guard.yaml and slo.yaml
  sft-guard check                                  check them
  sft-guard serve                                  run the guard
  sft-guard demo --incident                        watch a bad release being found and rolled back
"""

_GROUPS = (
    "setup",
    "serving",
    "measure",
    "alerts",
    "release",
    "knowledge",
    "registry",
    "finetune",
    "routing",
    "cost",
    "dashboards",
    "cache",
    "report",
    "lora",
    "embedder",
    "combiner",
)
"""Modules of `guard.commands`, in the order of the help."""

_CURES = (
    (FileNotFoundError, "check the path; its directory must exist"),
    ((FileExistsError, NotADirectoryError), "a file is in the way; name a directory"),
    (IsADirectoryError, "name a file in it"),
    (PermissionError, "choose a place that may be used, or change its rights"),
)
"""What helps against mistakes with paths that no command has words of its own for."""


def build_parser(only_serve: bool = False) -> argparse.ArgumentParser:
    """The whole command line; each group registers its own commands.

    only_serve: the sidecar runs for weeks and needs nothing of the other commands, which are 2 MB.
    """
    parser = argparse.ArgumentParser(
        prog="sft-guard",
        description="Observability and SLO guard sidecar for question-answering bots.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sft-guard {common.program_version()}")
    groups = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in ("serving",) if only_serve else _GROUPS:
        importlib.import_module(f"guard.commands.{name}").register(groups)
    return parser


def _readable(args: argparse.Namespace) -> None:
    """Words that are not UTF-8 reach no model and no file; paths may hold any bytes and are of another type.

    Raises:
        ConfigError: which argument it is.
    """
    for name, value in vars(args).items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ConfigError(name, value, "this is not UTF-8; check the terminal's encoding") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Expected errors are one line on standard error, never a traceback."""
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser(only_serve=list(words[:1]) == ["serve"])
    args, unknown = parser.parse_known_args(words)
    if unknown:
        # argparse would name neither the command nor a cure, and print the usage of the whole program.
        command = " ".join(filter(None, [args.command, getattr(args, f"{args.command}_command", None)]))
        parser.exit(2, f"sft-guard {command}: unknown: {' '.join(unknown)}; see sft-guard {command} --help\n")
    try:
        _readable(args)
        return int(args.run(args) or 0)
    except ConfigError as error:
        for one in (error, *error.more):
            print(f"sft-guard: {one}", file=sys.stderr)
        return 2
    except GuardError as error:
        print(f"sft-guard: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away (| head); there is nobody left to tell.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("sft-guard: stopped", file=sys.stderr)
        return 130
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        cure = next((f"; {text}" for kind, text in _CURES if isinstance(error, kind)), "")
        print(f"sft-guard: {place}{error.strerror or error}{cure}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
