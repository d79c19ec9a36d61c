"""lora serve: adapters over one base model, OpenAI-compatible; sealed ones without plaintext on the disk."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.commands.common import Groups, add_command, emit, login, needs_extra, progress
from guard.settings import environment_value
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lora.serving.app import Authorise
    from lora.serving.catalog import OpenSealed
    from lora.serving.run import ServeConfig

PORT = 8830
FAQ_TOKENS, ARTICLE_TOKENS = 100, 500
TOKEN_CHARACTERS_MIN = 16


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    example = (
        "sft-guard lora serve --base Qwen/Qwen2.5-1.5B-Instruct --adapter hr-v3=run/adapter\n"
        "  sft-guard lora serve --base base --adapter hr-v4=sealed:hr-rules@v4 --vault vault --keys keys.json"
    )
    about = "answer from a base model and its adapters, OpenAI-compatible"
    serve = add_command(lora, "serve", run_serve, about, example)
    serve.add_argument("--base", required=True, metavar="MODEL", help="path or name of the base model")
    serve.add_argument("--name", help="under which the base is asked; default: the last part of --base")
    about = "an adapter and the model name under which it is asked; any number of times"
    serve.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=DIR|NAME=sealed:NAME@VERSION", help=about
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=PORT, help=f"port to listen on (default {PORT}, 0 a free one)")
    serve.add_argument("--service", default="lora-serve", help="value of the label `service` of the metrics")
    serve.add_argument("--threads", type=int, help="processor threads of the model; default: all")
    _guards(serve.add_argument_group("inference guards, for what a request leaves open"))
    _limits(serve.add_argument_group("limits"))
    _rights(serve.add_argument_group("rights and sealed adapters"))
    serve.set_defaults(run=needs_extra("lora", run_serve))


def _guards(group: Any) -> None:
    about = f"tokens of an answer (default {FAQ_TOKENS}, for questions and answers; {ARTICLE_TOKENS} suits articles)"
    group.add_argument("--max-tokens", type=int, default=FAQ_TOKENS, metavar="N", help=about)
    about = f"tokens of an answer, whoever asks for more (default {ARTICLE_TOKENS})"
    group.add_argument("--max-tokens-limit", type=int, default=ARTICLE_TOKENS, metavar="N", help=about)
    group.add_argument("--temperature", type=float, default=0.1, help="0 is greedy (default 0.1)")
    group.add_argument("--repetition-penalty", type=float, default=1.3, help="1 is off (default 1.3)")
    group.add_argument("--no-repeat-ngram", type=int, default=3, metavar="N", help="0 is off (default 3)")


def _limits(group: Any) -> None:
    group.add_argument("--batch", type=int, default=8, metavar="N", help="answers at a time (default 8)")
    about = "tokens that all answers under way may hold (default 32768)"
    group.add_argument("--batch-tokens", type=int, default=32_768, metavar="N", help=about)
    group.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests that may wait (default 64), then 429"
    )
    group.add_argument("--timeout", type=float, default=60.0, metavar="S", help="of a request (default 60 s)")
    about = "for what is under way when the server is told to stop (default 25 s)"
    group.add_argument("--drain", type=float, default=25.0, metavar="S", help=about)


def _rights(group: Any) -> None:
    group.add_argument("--vault", type=Path, metavar="DIR", help="directory of the sealed versions")
    group.add_argument("--keys", type=Path, metavar="FILE", help="key ring, mode 600")
    group.add_argument("--keys-env", metavar="NAME", help="environment variable that holds the key ring instead")
    group.add_argument("--access", type=Path, metavar="FILE", help="users and roles of the vault")
    group.add_argument("--token-env", metavar="NAME", help="environment variable with the server's token of the vault")
    about = "environment variable with the token of the routes that load and unload; without it they are off"
    group.add_argument("--admin-token-env", metavar="NAME", help=about)
    about = "directory under which adapters loaded at run time may lie; without it only sealed ones are loaded"
    group.add_argument("--adapter-root", type=Path, metavar="DIR", help=about)
    group.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key that questions need")


def run_serve(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from guard.lora_metrics import metrics_of
    from lora.serving.catalog import Sources
    from lora.serving.run import Surroundings, serve
    from rag.probing import noted

    config = _config(args)
    may_ask = _bearer(_secret("--api-key-env", args.api_key_env), open_without=True)
    may_load = _bearer(_secret("--admin-token-env", args.admin_token_env), open_without=False)
    if args.host not in ("127.0.0.1", "::1", "localhost") and not args.api_key_env:
        progress(f"listening on {args.host} without --api-key-env: whoever reaches the port may ask")
    around = Surroundings(
        Sources(_opener(args), args.adapter_root, _look_for(args.base), isolated=noted(progress)),
        may_ask,
        may_load,
        metrics_of(args.service),
        progress,
    )

    def ready(url: str, service: Any) -> None:
        names = sorted(service.models)
        emit(args, {"url": url, "models": names}, f"serving {', '.join(names)} on {url}/v1")
        sys.stdout.flush()

    serve(config, around, ready)
    return 0


def _config(args: argparse.Namespace) -> ServeConfig:
    from lora.guards import Guards
    from lora.serving.catalog import NAME
    from lora.serving.run import ServeConfig
    from lora.serving.waiting import Limits

    for flag, value, least in (
        ("--max-tokens", args.max_tokens, 1),
        ("--max-tokens-limit", args.max_tokens_limit, 1),
        ("--batch", args.batch, 1),
        ("--batch-tokens", args.batch_tokens, 1),
        ("--queue", args.queue, 0),
        ("--timeout", args.timeout, 0.001),
        ("--drain", args.drain, 0),
        ("--temperature", args.temperature, 0),
        ("--no-repeat-ngram", args.no_repeat_ngram, 0),
        ("--repetition-penalty", args.repetition_penalty, 1),
        ("--threads", 1 if args.threads is None else args.threads, 1),
    ):
        if not value >= least or value == float("inf"):
            raise ConfigError(flag, value, f"give a number from {least:g}")
    adapters: dict[str, str] = {}
    for said in args.adapter:
        name, equals, source = said.partition("=")
        if not equals or not source or not NAME.fullmatch(name) or name in adapters:
            raise ConfigError("--adapter", said, "write NAME=DIR or NAME=sealed:NAME@VERSION, each name once")
        adapters[name] = source
    return ServeConfig(
        base=args.base,
        name=args.name or Path(args.base).name,
        adapters=adapters,
        host=args.host,
        port=args.port,
        guards=Guards(args.max_tokens, args.repetition_penalty, args.no_repeat_ngram, args.temperature),
        max_tokens=max(args.max_tokens_limit, args.max_tokens),
        limits=Limits(args.queue, args.batch, args.batch_tokens),
        timeout_s=args.timeout,
        drain_s=args.drain,
        threads=args.threads,
    )


def _opener(args: argparse.Namespace) -> OpenSealed | None:
    """Opens sealed adapters for the server's own token, or for the one a person sends along."""
    if args.vault is None:
        for flag, value in (("--keys", args.keys), ("--keys-env", args.keys_env), ("--access", args.access)):
            if value is not None:
                raise ConfigError(flag, str(value), "name the --vault, too")
        return None
    from lora.access import load_access
    from lora.keys import load_ring, parse_ring
    from lora.vault import Vault

    if (args.keys is None) == (args.keys_env is None):
        raise ConfigError("--keys", "nothing" if args.keys is None else str(args.keys), "give --keys or --keys-env")
    if args.keys is not None:
        ring = load_ring(args.keys)
    else:
        ring = parse_ring((_secret("--keys-env", args.keys_env) or "").encode(), args.keys_env)
    own = _secret("--token-env", args.token_env)

    def open_sealed(name: str, version: str, token: str | None) -> Any:
        # The access file is read each time: a right that was taken away counts at once.
        person = load_access(args.access).person(own if token is None else token, login())
        return Vault(args.vault, ring, person, SystemClock().wall_s).open(name, version)

    return open_sealed


def _look_for(base: str) -> Callable[[str, Mapping[str, bytes]], None]:
    """Tells of an adapter that was trained on another base; the base is hashed once, when there is an adapter."""
    from lora.other_base import other_base
    from lora.weights import weights_sha256

    known = cache(weights_sha256)

    def look(source: str, files: Mapping[str, bytes]) -> None:
        if note := other_base(files, base, known(base)):
            progress(f"{source}: {note}")
        if note := _needs_rules(source, files):
            progress(f"{source}: {note}")

    return look


def _needs_rules(source: str, files: Mapping[str, bytes]) -> str:
    """That an adapter was judged with rules behind it, which are not applied here; "" when it was not, or nobody knows.

    Its evaluation lies in it, or beside its directory, where `lora eval --out RUN` leaves it.
    """
    from lora.adapter_files import adapter_hash
    from lora.register_gate import rules_of
    from lora.registering import read_evaluation
    from lora.runlog import EVALUATION

    place = Path(source)
    for path in (place / EVALUATION, place.parent / EVALUATION) if place.is_dir() else ():
        try:
            found = read_evaluation(path)
        except DataError:  # none there, or it says nothing that can be believed
            continue
        model = found.get("model")
        of = model.get("adapter_sha256") if isinstance(model, dict) else None
        if of == adapter_hash(files) and (wanted := rules_of(found)):
            return (
                f"it was judged with the rules {wanted[:12]}, which are not applied here; let `sft-guard kb serve "
                f"--rules FILE --evaluation {path}` ask it"
            )
    return ""


def _secret(flag: str, name: str | None) -> str | None:
    if name is None:
        return None
    value = environment_value(name)
    if not value:
        raise ConfigError(flag, name, "set that environment variable")
    return value


def _bearer(secret: str | None, *, open_without: bool) -> Authorise:
    """Who has the token; five wrong ones in a minute from one address, and none is looked at for a while."""
    from guard.admin.access import FailureThrottle, TokenCheck
    from lora.serving.app import Denied

    if secret is not None and len(secret) < TOKEN_CHARACTERS_MIN:
        raise ConfigError("token", f"{len(secret)} characters", f"use at least {TOKEN_CHARACTERS_MIN}")
    check = TokenCheck(secret) if secret is not None else None
    throttle, clock = FailureThrottle(), SystemClock()

    def authorise(request: Any) -> None:
        if check is None:
            if open_without:
                return
            raise Denied(403, "loading is off: start the server with --admin-token-env")
        address, now_s = (request.client.host if request.client else ""), clock.now_s()
        wait_s = throttle.wait_s(address, now_s)
        if wait_s > 0.0:
            raise Denied(429, "too many wrong tokens", int(wait_s) + 1)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not check.accepts(token.strip().encode("utf-8", "replace")):
            throttle.failed(address, now_s)
            raise Denied(401, "this needs `Authorization: Bearer <token>`")

    return authorise
