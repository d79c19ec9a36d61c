"""`python -m bench.cache [--workload] [--release] [--semantic] [--stampede] [--zipf]`; without a choice, all."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.report_section import write_section

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("workload", "release", "semantic", "stampede", "zipf")


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "cache-release.png", help="picture of --release")
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared" / "data", help="public evaluation sets")
    parser.add_argument(
        "--bench-dir", type=Path, default=ROOT.parent / "shared" / "bench", help="kit with the upstream"
    )
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of --zipf")
    parser.add_argument("--write", action="store_true", help="write the section of docs/accuracy.md (--semantic)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    chosen = [part for part in PARTS if getattr(args, part)] or list(PARTS)
    results: dict[str, Any] = {"seed": args.seed}
    if "workload" in chosen:
        from bench.cache import workload

        results["workload"] = workload.main(args.seed)
    if "release" in chosen:
        from bench.cache import release

        results["release"] = release.main(args.seed, args.out)
    if "semantic" in chosen:
        from bench.cache import semantic

        results["semantic"] = semantic.main(args.data_dir)
        if args.write and "skipped" not in results["semantic"]:
            write_section("cache judgement", semantic.judgement_text(results["semantic"]))
    if "stampede" in chosen or "zipf" in chosen:
        from bench.cache import served

        results |= served.main(args, [part for part in ("stampede", "zipf") if part in chosen])
    if args.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
