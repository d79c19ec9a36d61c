"""The data path as machine code keeps every promise of the sources, and an edited source wins."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from guard import compiled, compiling

ROOT = Path(__file__).resolve().parents[2]
_PARTS = (
    "alerts",
    "bench",
    "dashboards",
    "exporters",
    "guard",
    "lora",
    "rag",
    "registry",
    "slo",
    "tests",
    "pyproject.toml",
)


def python(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in the copy, whose packages come before those of the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # noqa: TID251 - a child's
    clean["PYTHONPATH"] = str(place)
    return subprocess.run(
        [sys.executable, *arguments], cwd=place, env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="compiling needs the Debian packages gcc and libc6-dev")
@pytest.mark.skipif(find_spec("mypyc") is None, reason="compiling needs mypy")
def test_the_compiled_path_keeps_the_promises_and_an_edited_source_wins(tmp_path: Path) -> None:
    for part in _PARTS:
        leave = shutil.ignore_patterns("__pycache__", "*.so", "compiled.json")
        given = ROOT / part
        shutil.copytree(given, tmp_path / part, ignore=leave) if given.is_dir() else shutil.copy(given, tmp_path / part)
    built = python(tmp_path, "-m", "guard.compiling", "build")
    assert built.returncode == 0, built.stderr[-2000:]
    where = "import guard.passage, guard.compiled; print(guard.passage.__file__, guard.compiled.state())"
    assert compiled.SUFFIX in python(tmp_path, "-c", where).stdout

    # As an editable install finds packages: each by its name, nothing else beside them.
    editable = f"""import sys
from importlib.machinery import PathFinder
class Finder:
    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [{str(tmp_path)!r}]) if name in {_PARTS!r} else None
sys.meta_path.insert(0, Finder())
import guard.passage
print(guard.passage.__file__)"""
    seen = subprocess.run([sys.executable, "-P", "-c", editable], cwd="/", capture_output=True, text=True, check=False)
    assert compiled.SUFFIX in seen.stdout, seen.stderr[-1000:]

    files = [str(file) for file in sorted((tmp_path / "tests" / "faults").glob("test_path_*.py"))]
    ran = python(tmp_path, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *files)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert " passed" in ran.stdout

    source = tmp_path / "guard" / "split.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    now = python(tmp_path, "-c", where).stdout
    assert "passage.py " in now
    assert "guard.split changed since" in now
    assert python(tmp_path, "-m", "guard.compiling", "remove").stdout.startswith(
        f"{len(compiled.MODULES) + 1} files removed"
    )
    assert not list(tmp_path.glob("guard/*.so"))


def copied(root: Path, written: object) -> Path:
    """A root with the sources of the path and the record of a compilation."""
    for module in compiled.MODULES:
        source = compiled.source_of(module, root)
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text("", encoding="utf-8")
    compiled.record_of(root).write_text(json.dumps(written), encoding="utf-8")
    return root


def whole(**changed: object) -> dict[str, object]:
    """The record of a compilation of empty sources that made no files."""
    empty = hashlib.sha256(b"").hexdigest()
    return {"suffix": compiled.SUFFIX, "modules": dict.fromkeys(compiled.MODULES, empty), "files": [], **changed}


@pytest.mark.parametrize(
    ("written", "runs", "words"),
    [
        (whole(), True, "runs compiled"),
        ("{", False, "cannot be read"),
        ({"suffix": compiled.SUFFIX}, False, "cannot be read"),
        (whole(suffix=".cpython-39.so"), False, "build again"),
        (whole(suffix="an unfinished build"), False, "unfinished"),
        (whole(files=["guard/split.so"]), False, "not whole"),
        (whole(modules={"guard.gone": ""}), False, "another version"),
        (whole(modules=dict.fromkeys(compiled.MODULES, "other")), False, "changed since"),
    ],
    ids=["whole", "damaged", "half", "other-python", "unfinished", "file-missing", "other-version", "edited"],
)
def test_what_is_not_whole_and_up_to_date_means_sources(
    written: object, runs: bool, words: str, tmp_path: Path
) -> None:
    found = compiled.state(copied(tmp_path, written))
    assert found[0] is runs
    assert words in found[1]


def test_removing_takes_what_is_there_whatever_the_record_says(tmp_path: Path) -> None:
    root = copied(tmp_path, "{")
    left = compiled.source_of("guard.split", root).with_suffix(compiled.SUFFIX)
    left.write_bytes(b"")
    assert compiling.remove(root) == 1
    assert not left.exists()
    assert not compiled.record_of(root).exists()
