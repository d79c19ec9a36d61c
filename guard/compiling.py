"""Compiles the data path, or takes the machine code away: `python -m guard.compiling build|remove|state`.

What it is for and who looks after it being up to date: `guard.compiled`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from guard.compiled import MODULES, ROOT, SHARED, SUFFIX, digests, record_of, source_of, state

GROUP = SHARED.removesuffix("__mypyc")
PACKAGES = ("guard", "exporters", "alerts", "dashboards", "slo", "registry", "rag", "lora")
_SETUP = f"""
import sys
from mypyc.build import mypycify
from setuptools import setup
files = sys.argv[3:]
del sys.argv[3:]
setup(name={GROUP!r}, packages=[], ext_modules=mypycify(["--config-file=mypy.ini", *files], group_name={GROUP!r}))
"""
_MYPY = "[mypy]\nplugins = pydantic.mypy\nignore_missing_imports = True\n"


def build(root: Path = ROOT) -> list[Path]:
    """Compile in a directory of its own, then put the results beside the sources; returns the files.

    Raises:
        SystemExit: no compiler, no mypy, or it did not compile; with the cure.
    """
    if shutil.which("gcc") is None and "CC" not in os.environ:  # noqa: TID251 - the compiler's own variable
        raise SystemExit("guard.compiling: no gcc here: install the Debian packages gcc and libc6-dev (or set CC)")
    if importlib.util.find_spec("mypyc") is None:
        raise SystemExit("guard.compiling: no mypy here: pip install mypy -c constraints.txt")
    with tempfile.TemporaryDirectory(prefix="sft-guard-compile-") as directory:
        place = Path(directory)
        for package in PACKAGES:
            leave = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(root / package, place / package, ignore=leave)
        (place / "setup.py").write_text(_SETUP, encoding="utf-8")
        (place / "mypy.ini").write_text(_MYPY, encoding="utf-8")
        files = [str(source_of(module, place).relative_to(place)) for module in MODULES]
        command = [sys.executable, "setup.py", "build_ext", "--inplace", *files]
        done = subprocess.run(  # noqa: S603 - this interpreter and our own files
            command, cwd=place, capture_output=True, text=True, check=False
        )
        made = [file.relative_to(place) for file in place.rglob(f"*{SUFFIX}") if "build" not in file.parts]
        if done.returncode or len(made) != len(MODULES) + 1:
            raise SystemExit(f"guard.compiling: not compiled; the last words:\n{(done.stdout + done.stderr)[-2000:]}")
        remove(root)
        written = {"suffix": SUFFIX, "modules": digests(MODULES, place), "files": sorted(map(str, made))}
        _record({**written, "suffix": "an unfinished build"}, root)  # until all is there the sources run
        for file in made:
            shutil.copy2(place / file, root / file)
        _record(written, root)
    return [root / file for file in made]


def _record(written: Mapping[str, object], root: Path) -> None:
    new = record_of(root).with_suffix(".new")
    new.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    new.replace(record_of(root))


def remove(root: Path = ROOT) -> int:
    """Take the machine code away, the record last: while some is missing the sources run. Returns their count."""
    made = [root / f"{SHARED}{SUFFIX}", *(source_of(module, root).with_suffix(SUFFIX) for module in MODULES)]
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # a damaged record: known names
        made += [root / name for name in json.loads(record_of(root).read_bytes())["files"]]
    there = [file for file in dict.fromkeys(made) if file.exists()]
    for file in there:
        file.unlink()
    record_of(root).unlink(missing_ok=True)
    return len(there)


def main() -> int:
    """`python -m guard.compiling build|remove|state`."""
    parser = argparse.ArgumentParser(prog="python -m guard.compiling", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "what", choices=("build", "remove", "state"), help="compile, go back to the sources, or say which runs"
    )
    what = parser.parse_args().what
    if what == "build":
        print(f"{len(build())} files; the data path {state()[1]}")
    elif what == "remove":
        print(f"{remove()} files removed; the data path runs from its sources")
    else:
        print(f"the data path {state()[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
