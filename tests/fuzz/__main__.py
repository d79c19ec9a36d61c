"""Fuzzes the parsers of bytes from outside with Atheris: `python -m tests.fuzz --runs 1000000`.

    .venv/bin/python -m tests.fuzz --targets sse,config --runs 100000
    .venv/bin/python -m tests.fuzz --runs 1000000 --jobs 2 --keep   # adds what was found interesting to the corpora

Needs the `fuzz` extra. Each target is a process of its own; an input that breaks it is written to fuzz-findings/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = ROOT / "fuzz-findings"
NAMES = ("sse", "chat_json", "webhook_json", "config", "envelope", "manifest", "baseline")
KEPT_COUNT, KEPT_BYTES = 60, 700
TIMEOUT_S = 20  # of the wall clock; what counts is the second of processor time in `targets.run`


def one(name: str, arguments: list[str]) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["guard", "slo", "rag.storage"]):
        from tests.fuzz import targets

    atheris.Setup(["fuzz", *arguments], lambda data: targets.run(name, data))
    atheris.Fuzz()


def fuzzed(name: str, runs: int, keep: bool) -> dict[str, Any]:
    """Fuzz in a child; what came of it."""
    from tests.fuzz.targets import CORPUS, corpus, seeds

    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        inputs = Path(directory) / "inputs"  # libFuzzer adds what reached something new
        inputs.mkdir()
        for data in [*seeds(name), *(corpus(name) if (CORPUS / f"{name}.txt").exists() else [])]:
            (inputs / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        child = [sys.executable, "-m", "tests.fuzz", "--one", name]
        limits = [
            "-max_len=4096",
            f"-timeout={TIMEOUT_S}",
            "-rss_limit_mb=2048",
            f"-artifact_prefix={FINDINGS}/{name}-",
        ]
        began_s = time.monotonic()
        run = subprocess.run(
            [*child, str(inputs), f"-runs={runs}", "-print_final_stats=1", *limits],
            cwd=ROOT, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        took_s = time.monotonic() - began_s
        done = re.findall(r"(?:stat::number_of_executed_units:|Done) *(\d+)", run.stderr)
        if run.returncode == 0 and keep:
            kept = {file.read_bytes() for file in inputs.iterdir() if file.stat().st_size <= KEPT_BYTES}
            small = sorted(kept, key=lambda data: (len(data), data))
            chosen = sorted({*seeds(name), *small[:: max(1, len(small) // KEPT_COUNT)]}, key=lambda d: (len(d), d))
            CORPUS.mkdir(exist_ok=True)
            (CORPUS / f"{name}.txt").write_text("".join(data.hex() + "\n" for data in chosen), encoding="ascii")
        return {
            "target": name, "runs": int(done[-1]) if done else 0, "seconds": round(took_s), "ok": run.returncode == 0,
            "inputs": len(list(inputs.iterdir())),
            "words": "" if run.returncode == 0 else run.stdout[-3000:] + run.stderr[-1500:],
        }  # fmt: skip


def main() -> int:
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        one(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", default=",".join(NAMES), help="names, comma-separated")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs per target")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write interesting inputs to tests/fuzz/corpus")
    args = parser.parse_args()
    names = args.targets.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"--targets {','.join(sorted(unknown))}: choose of {', '.join(NAMES)}")
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("tests.fuzz: Atheris is missing; install it with: pip install 'sft-guard[fuzz]'", file=sys.stderr)
        return 2
    results = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for result in pool.map(lambda name: fuzzed(name, args.runs, args.keep), names):
            results.append(result)
            state = "ok" if result["ok"] else f"BROKEN\n{result['words']}"
            print(f"{result['target']:13s} {result['runs']} inputs in {result['seconds']} s, {state}", flush=True)
    print(json.dumps([{key: value for key, value in result.items() if key != "words"} for result in results]))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
