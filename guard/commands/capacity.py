"""baseline capacity: how much the service can take, by an open-loop load test."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.commands.common import Groups, add_command, emit, progress, to_json
from guard.settings import environment_value
from slo.capacity import Criteria, Plan, Step
from slo.errors import ConfigError, DataError, RefusedError
from slo.spec import parse_duration_s

if TYPE_CHECKING:
    from guard.capacity.aim import Aim
    from guard.capacity.open_loop import Shape
    from guard.capacity.search import Outcome

EXAMPLE = (
    "sft-guard baseline capacity http://127.0.0.1:8800/v1/chat/completions \\\n"
    "      --rate-from 1 --rate-to 250 --out capacity.json --plot capacity.png"
)


def register(baseline: Groups) -> None:
    """Add the command to the group `baseline`."""
    about = "find the capacity limit by an open-loop load test: the knee, and the limits for {limit: X, factor: 0.7}"
    parser = add_command(baseline, "capacity", run, about, EXAMPLE)
    parser.add_argument("url", metavar="URL", help="where questions are POSTed; loopback unless --allow-host names it")
    parser.add_argument("--rate-from", type=float, default=1.0, metavar="R", help="first rate, requests/s (default 1)")
    parser.add_argument("--rate-to", type=float, default=500.0, metavar="R", help="highest rate (default 500)")
    parser.add_argument("--growth", type=float, default=1.5, help="factor from one rate to the next (default 1.5)")
    parser.add_argument("--step", default="10s", help="length of one step (default 10s)")
    parser.add_argument("--max-requests", type=int, default=5000, help="most requests of one step (default 5000)")
    parser.add_argument("--budget", default="5m", help="the whole test ends after this long (default 5m)")
    parser.add_argument("--timeout", default="30s", help="an answer later than this failed (default 30s)")
    parser.add_argument("--p95-bound", type=float, metavar="MS", help="bound on P95; default 5 x the lightest step's")
    parser.add_argument(
        "--arrivals", choices=("poisson", "uniform"), default="poisson", help="how requests follow each other"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (default 1)")
    parser.add_argument("--allow-host", action="append", default=[], metavar="HOST", help="may be loaded, too")
    parser.add_argument("--body", type=Path, metavar="FILE", help="JSON body; {n} becomes the question's number")
    parser.add_argument("--model", default="default", help="model of the default question")
    parser.add_argument("--stream", action="store_true", help="ask for a stream and wait for its end")
    parser.add_argument("--token-env", metavar="NAME", help="environment variable with a bearer token")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all steps as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write latency against rate as PNG")


def run(args: argparse.Namespace) -> int:
    """Load, find the knee, write. Exit 1 when not even the lightest rate was sustained."""
    from guard.capacity.aim import take_aim
    from guard.capacity.open_loop import Shape
    from guard.capacity.search import as_json

    plan, budget_s = _plan(args), _seconds("--budget", args.budget)
    shape = Shape(
        step_s=_seconds("--step", args.step), timeout_s=_seconds("--timeout", args.timeout),
        max_count=args.max_requests, min_count=min(100, args.max_requests), poisson=args.arrivals == "poisson",
    )  # fmt: skip
    if args.p95_bound is not None and args.p95_bound <= 0:
        raise ConfigError("--p95-bound", args.p95_bound, "write milliseconds above 0")
    criteria = Criteria(p95_bound_s=None if args.p95_bound is None else args.p95_bound / 1000)
    aim = take_aim(args.url, args.allow_host)
    body, token = _body(args), _token(args)
    progress(f"loading {aim.url} ({', '.join(aim.addresses)}) from {plan.from_per_s:g} to {plan.to_per_s:g} requests/s")
    outcome = asyncio.run(_load(aim, body, token, args, plan, criteria, shape, budget_s))
    result = as_json(outcome, args.url, shape, args.seed)
    if args.out:
        _write(args.out, to_json(result))
    _draw(outcome, args)
    emit(args, result, _text(result))
    return 0 if outcome.knee.rate_per_s is not None else 1


async def _load(
    aim: Aim, body: bytes, token: str, args: argparse.Namespace, plan: Plan, criteria: Criteria, shape: Shape,
    budget_s: float,
) -> Outcome:  # fmt: skip
    from guard.capacity.asking import Asker
    from guard.capacity.search import search

    async with Asker(aim, body, stream=args.stream, token=token) as asker:
        return await search(
            asker.ask, plan, criteria, shape, budget_s=budget_s, seed=args.seed, on_step=_tell
        )  # fmt: skip


def _tell(step: Step, why: str) -> None:
    p95 = "-" if step.p95_s is None else f"{step.p95_s * 1000:.4g} ms"
    good = f"{step.goodput_per_s:.4g}/s good"
    progress(f"  {step.rate_per_s:8.4g}/s  {step.sent_count:6d} sent  {good}  P95 {p95}  {why or 'sustained'}")


def _plan(args: argparse.Namespace) -> Plan:
    if not 0 < args.rate_from <= args.rate_to <= 100_000:
        raise ConfigError(
            "--rate-from/--rate-to", f"{args.rate_from:g}/{args.rate_to:g}", "write 0 < from <= to <= 100000 requests/s"
        )
    if not 1.05 <= args.growth <= 10:
        raise ConfigError("--growth", args.growth, "write a factor between 1.05 and 10")
    if args.max_requests < 10:
        raise ConfigError("--max-requests", args.max_requests, "write at least 10; fewer say nothing about a P95")
    return Plan(args.rate_from, args.rate_to, args.growth)


def _seconds(place: str, text: str) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise ConfigError(place, text, "write a duration such as 10s or 5m") from error
    if seconds <= 0:
        raise ConfigError(place, text, "write a duration above 0")
    return seconds


def _body(args: argparse.Namespace) -> bytes:
    from guard.capacity.asking import checked_body, default_body

    if args.body is None:
        return default_body(args.model, args.stream)
    return checked_body(args.body.read_bytes(), str(args.body))


def _token(args: argparse.Namespace) -> str:
    if not args.token_env:
        return ""
    token = environment_value(args.token_env)
    if not token:
        raise ConfigError("--token-env", args.token_env, "set that environment variable")
    return token


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place with --out"
        ) from error


def _draw(outcome: Outcome, args: argparse.Namespace) -> None:
    """The picture, if wished; without matplotlib one line says so and the numbers are there all the same."""
    if not args.plot:
        return
    from guard.capacity.plot import plot

    try:
        plot(outcome, args.url, args.plot)
    except RefusedError as error:
        progress(f"sft-guard: {error}")


def _text(result: dict[str, Any]) -> str:
    knee, rate, latency = result["knee"], result["rate_limit"], result["latency_limit"]
    if knee["rate_per_s"] is None:
        return f"no knee: {knee['reason']}"
    head = "knee" if knee["reached"] else "at least (knee not reached)"
    lines = [f"{head}: {knee['rate_per_s']:g} requests/s with P95 {knee['p95_ms']:g} ms", f"  {knee['reason']}"]
    lines.append(
        f"rate:    limit {rate['limit_per_s']:g}/s x {rate['factor']:g} = {rate['threshold_per_s']:g}/s per instance"
    )
    if latency:
        lines.append(
            f"latency: limit {latency['limit_ms']:g} ms x {latency['factor']:g} = {latency['threshold_ms']:g} ms"
        )
        lines.append(f"  {latency['yaml']}" if latency["usable"] else f"  do not use it: {latency['why']}")
    return "\n".join(lines)
