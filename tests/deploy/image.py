"""The image without a container: `python -m tests.deploy.image` does what the build stage of deploy/Dockerfile says.

Its RUN and COPY lines one after the other in a temporary directory that stands for `/opt/sft-guard` and the working
directory; packages of the system are taken as installed. Then the program is asked whether it is whole.
Needs a package index, gcc and about a minute.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/opt/sft-guard"
RUNS_COMPILED = (
    "import guard.app, guard.listener; from guard import compiled; print(compiled.state()[1]); "
    "assert compiled.state()[0] and guard.listener.__file__.endswith('.so')"
)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(word, rest) of each instruction of the first stage."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    stage = lines.split("\nFROM ")[1]
    for line in re.sub(r"\\\n", " ", stage).splitlines()[1:]:
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest


def tracked() -> list[str]:
    """The build context: what is in the repository and not ignored."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [
        name for name in listed.stdout.split("\0") if name.partition("/")[0] not in ignored and (ROOT / name).is_file()
    ]


def copied(rest: str, work: Path) -> None:
    """COPY sources... target, of files or of the whole context."""
    *sources, target = rest.split()
    for source in tracked() if sources == ["."] else sources:
        to = work / source if sources == ["."] else work / target / (Path(source).name if target.endswith("/") else "")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / source, to)


def main() -> int:
    """0: the image would be whole."""
    with tempfile.TemporaryDirectory(prefix="sft-guard-image-") as directory:
        prefix, work = Path(directory) / "prefix", Path(directory) / "src"
        work.mkdir()
        arguments = ""
        for word, rest in instructions((ROOT / "deploy" / "Dockerfile").read_text()):
            print(word, rest, flush=True)
            if word == "ARG":
                arguments += f"{rest}; "
            elif word == "COPY":
                copied(rest, work)
            elif word == "RUN" and "apt-get" not in rest:
                command = arguments + rest.replace(PREFIX, str(prefix)).replace(
                    "python -m venv", f"{sys.executable} -m venv"
                )
                if subprocess.run(["sh", "-ec", command], cwd=work, check=False).returncode:
                    return 1
        shutil.rmtree(work)
        for command in (["sft-guard", "--version"], ["python", "-c", RUNS_COMPILED]):
            done = subprocess.run([prefix / "bin" / command[0], *command[1:]], cwd=directory, check=False)
            if done.returncode:
                return 1
        left = sorted(path.name for path in (prefix / "lib/python3.11/site-packages").glob("*.dist-info"))
        tools = [name for name in left if re.match(r"(pip|setuptools|mypy|librt|pathspec|ast_serialize)[-_]", name)]
        size = sum(path.stat().st_size for path in prefix.rglob("*") if path.is_file() and not path.is_symlink())
        print(f"{len(left)} packages, {size / 1e6:.0f} MB; left of the tools: {', '.join(tools) or 'nothing'}")
        sources = {path.stem for path in prefix.rglob("guard/*.py")}
        made = {path.name.partition(".")[0] for path in prefix.rglob("guard/__pycache__/*.pyc")}
        missing = sources - made
        print(f"without bytecode: {', '.join(sorted(missing)) or 'nothing'}")
        return 1 if tools or not left or missing or not made else 0


if __name__ == "__main__":
    sys.exit(main())
