"""How many answers are checked per second on one core, tier by tier: `python -m bench.throughput`.

Each tier runs in a process of its own, pinned to one core, over the same made-up traffic (`bench.rag_traffic`):
answers of 250 tokens with 3 contexts of 300, 80 % English, 20 % Chinese. `cold`: no context is ever seen twice.
`usual`: contexts come from 500 documents, the k-th most asked about 1/k as often as the first, after 600 exchanges that
are not timed. Times are CPU seconds of the process, so that others on the machine count less; on a core of its own they
are seconds. An exchange is what the check worker does with one: read both bodies, all checks, redaction of what may be
stored. `verdict p99` is the time from the end of an answer to its findings when answers come at random at 70 % of the
highest rate (the measured service times through one queue). `--proxy`: the latency of the proxy while a check worker
runs at full load, against without.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rag_traffic import Turn, turns
from guard.checks.spec import CheckSpec
from guard.ports import ContextSource, ExchangeText, Route

ROOT = Path(__file__).resolve().parent.parent
ROUTE = Route("ask", "/ask", "json", ContextSource(body_path="contexts"))
LOAD_RATIO = 0.7
USUAL_DOCUMENTS = 500
WARM_COUNT = 600


@dataclass(frozen=True, slots=True)
class TierRow:
    """What is measured. count: exchanges, fewer where one takes long."""

    title: str
    spec: CheckSpec
    count: int
    kind: str = "suite"


TIERS = {
    "rules": TierRow("rules and zero-hit alone", CheckSpec(embedder="none"), 4000, "rules"),
    "words": TierRow("all checks, words and combiner", CheckSpec(embedder="none"), 1500),
    "static": TierRow("+ static embedding (default)", CheckSpec(), 1500),
    "minilm": TierRow("similarity by MiniLM", CheckSpec(embedder="all-MiniLM-L6-v2"), 60),
    "detector": TierRow("detector model alone (2 layers)", CheckSpec(embedder="none"), 60, "detector"),
}


def main() -> int:
    """Print one table; `--one` is a tier in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiers", default=",".join(TIERS), help="of: " + ", ".join(TIERS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of exchanges")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that is used")
    parser.add_argument("--profile", action="store_true", help="where the time of a tier goes")
    parser.add_argument("--proxy", action="store_true", help="added latency with the checks at full load")
    parser.add_argument("--rounds", type=int, default=7, help="of --proxy, three measurements each; six at least")
    parser.add_argument("--one", choices=list(TIERS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(TIERS[asked.one], asked)))
        return 0
    if asked.proxy:
        from bench.throughput_proxy import compare

        return compare(asked.rounds, asked.seed)
    head = f"{'tier':<34}{'traffic':<8}{'answers':>8}{'per s':>8}{'p50 ms':>8}{'p99 ms':>8}"
    head += f"{'verdict p99 ms':>16}{'RSS MB':>8}"
    print(f"one core ({asked.core}), seed {asked.seed}, {time.strftime('%Y-%m-%d')}\n{head}")
    for name in asked.tiers.split(","):
        command = [sys.executable, "-m", "bench.throughput", "--one", name, "--scale", str(asked.scale)]
        command += ["--seed", str(asked.seed), "--core", str(asked.core)] + (["--profile"] if asked.profile else [])
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if run.returncode:
            print(f"{TIERS[name].title:<34}not measured (see above)")
            continue
        for row in json.loads(run.stdout.splitlines()[-1]):
            print(
                f"{TIERS[name].title:<34}{row['traffic']:<8}{row['count']:>8}{row['per_s']:>8.0f}{row['p50_ms']:>8.2f}"
                f"{row['p99_ms']:>8.2f}{row['verdict_p99_ms']:>16.1f}{row['rss_mb']:>8.0f}"
            )
    return 0


def measured(tier: TierRow, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Both kinds of traffic through one tier, in this process, on one core."""
    os.sched_setaffinity(0, {asked.core})
    work = {"suite": suite_work, "rules": rules_work, "detector": detector_work}[tier.kind](tier.spec)
    rows = []
    count = max(20, int(tier.count * asked.scale))
    for traffic, documents in (("cold", 0), ("usual", USUAL_DOCUMENTS)):
        # As in a worker that has run a while: words and patterns are known, and of `usual` the documents in demand.
        warm_count = WARM_COUNT if documents and tier.count > WARM_COUNT else count // 5
        made = list(turns(count + warm_count, asked.seed, document_count=documents))
        for turn in made[:warm_count]:
            work(turn)
        gc.collect()
        with profiling() if asked.profile else nullcontext():
            times_s = [timed(work, turn) for turn in made[warm_count:]]
        ordered = sorted(times_s)
        rows.append({
            "traffic": traffic,
            "count": len(times_s),
            "per_s": len(times_s) / sum(times_s),
            "p50_ms": 1000 * ordered[len(ordered) // 2],
            "p99_ms": 1000 * ordered[int(0.99 * len(ordered))],
            "verdict_p99_ms": 1000 * queued_p99_s(times_s, asked.seed),
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        })  # fmt: skip
    return rows


def timed(work: Callable[[Turn], object], turn: Turn) -> float:
    """Seconds of one exchange."""
    began_s = time.process_time()
    work(turn)
    return time.process_time() - began_s


def queued_p99_s(times_s: list[float], seed: int) -> float:
    """99th percentile of waiting and service when answers come at random at `LOAD_RATIO` of the rate (Lindley)."""
    chance = random.Random(seed)
    gap_s = sum(times_s) / len(times_s) / LOAD_RATIO
    free_at_s = now_s = 0.0
    waits: list[float] = []
    for service_s in times_s * max(1, 20_000 // len(times_s)):
        now_s += chance.expovariate(1.0 / gap_s)
        free_at_s = max(free_at_s, now_s) + service_s
        waits.append(free_at_s - now_s)
    return sorted(waits)[int(0.99 * len(waits))]


def text_of(turn: Turn) -> ExchangeText:
    """Both bodies read, as the worker does it."""
    from guard.wire.dialects import DIALECTS

    return DIALECTS["json"].extract_text(ROUTE, turn.request, turn.response, (), False)


def suite_work(spec: CheckSpec) -> Callable[[Turn], object]:
    """All checks."""
    from guard.checks.suite import CheckSuite, redacted, stored_text
    from guard.checks.worker import load_semantic

    suite = CheckSuite(spec)
    if spec.embedder != "none":
        line, semantic = load_semantic(spec)
        if semantic is None:
            sys.exit(f"bench.throughput: {line}")
        suite.embed_with(semantic)

    def work(turn: Turn) -> object:
        text = text_of(turn)
        findings = redacted(suite.check(text, release="r", arm="stable"))
        return findings, stored_text(text, "redacted")

    return work


def rules_work(spec: CheckSpec) -> Callable[[Turn], object]:
    """The cheapest tier alone."""
    from guard.checks.rules import Rules
    from guard.checks.similarity import check_zero_hit

    rules = Rules()

    def work(turn: Turn) -> object:
        text = text_of(turn)
        return rules.check(text.question, text.answer), check_zero_hit(text.contexts)

    return work


def detector_work(spec: CheckSpec) -> Callable[[Turn], object]:
    """A model of the size of BERT-tiny with chance weights: what windows and process cost, not what it finds."""
    from guard.checks.detector_model import HfDetector
    from guard.checks.detector_spec import DetectorSpec
    from guard.checks.grounding import read_claims
    from tests.tiny_models import chance_model

    with tempfile.TemporaryDirectory() as scratch:
        model = HfDetector(DetectorSpec(str(chance_model(Path(scratch) / "model"))))

    def work(turn: Turn) -> object:
        text = text_of(turn)
        return model.score(text.question, [c.text for c in read_claims(text.answer)[0]], text.contexts or ())

    return work


class profiling:
    """Prints the dearest functions on stderr."""

    def __enter__(self) -> None:
        import cProfile

        self._profile = cProfile.Profile()
        self._profile.enable()

    def __exit__(self, *_: object) -> None:
        import pstats

        self._profile.disable()
        pstats.Stats(self._profile, stream=sys.stderr).sort_stats("tottime").print_stats(22)


if __name__ == "__main__":
    sys.exit(main())
