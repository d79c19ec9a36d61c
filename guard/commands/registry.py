"""registry: serve it, and ask or change it from the command line."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, TypeVar

from guard.commands.common import Groups, add_command, add_group, emit, progress, to_json
from guard.settings import environment_value, split_host_port
from slo.errors import ConfigError

T = TypeVar("T")
STAGES = ("None", "Staging", "Production", "Archived")
DEFAULT = "http://127.0.0.1:8820"


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    registry = add_group(groups, "registry", "version registry")
    serve = add_command(registry, "serve", run_serve, "serve the version registry over REST",
                        "sft-guard registry serve --listen 127.0.0.1:8820")  # fmt: skip
    serve.add_argument("--listen", default="127.0.0.1:8820", help="host:port")
    serve.add_argument("--database", default="sqlite:///registry.sqlite", help="SQLAlchemy URL")
    serve.add_argument("--token-env", help="environment variable with the bearer token for writes")

    listing = add_command(registry, "list", run_list, "all models and what is in Production",
                          "sft-guard registry list")  # fmt: skip
    show = add_command(registry, "show", run_show, "the versions of a model, or one with lineage and evaluations",
                       "sft-guard registry show faq-kb 2-kb+1750000000")  # fmt: skip
    show.add_argument("model", help="name of the model")
    show.add_argument("version", nargs="?", help="a version or an alias such as champion or previous")
    move = add_command(registry, "transition", run_transition, "move a version to a stage",
                       "sft-guard registry transition faq-kb 2-kb+1750000000 Production")  # fmt: skip
    move.add_argument("model", help="name of the model")
    move.add_argument("version", help="version of it")
    move.add_argument("to_stage", choices=STAGES, help="stage to move to")
    move.add_argument("--rollback-to", metavar="VERSION", help="takes Production in the same step")
    move.add_argument("--force", action="store_true", help="with --rollback-to: although its gate failed")
    move.add_argument("--if-production", metavar="VERSION", help='only while this is in Production ("" for nothing)')
    move.add_argument("--epoch", type=int, help="control epoch that this was decided at; an older one is refused")
    move.add_argument("--reason", default="", help="a word for the audit")
    audit = add_command(registry, "audit", run_audit, "who changed what, newest first",
                        "sft-guard registry audit --model faq-kb")  # fmt: skip
    audit.add_argument("--model", help="only this model")
    audit.add_argument("--limit", type=int, default=50, help="newest entries shown")
    alias = add_command(registry, "alias", run_alias, "list the aliases of a model, set or remove one",
                        "sft-guard registry alias faq-kb candidate 2-kb+1750000000")  # fmt: skip
    alias.add_argument("model", help="name of the model")
    alias.add_argument("alias", nargs="?", help="alias to show or set")
    alias.add_argument("version", nargs="?", help="version of it")
    alias.add_argument("--remove", action="store_true", help="remove the alias")
    alias.add_argument("--expected", metavar="VERSION", help='only while it points to this ("" for nothing)')
    for parser in (move, alias):
        parser.add_argument("--actor", default=None, help="who does it; default: the user that is logged in")
    for parser in (listing, show, move, audit, alias):
        add_registry_options(parser)


def add_registry_options(parser: argparse.ArgumentParser) -> None:
    """Where the registry is, and the token for writes."""
    about = "http(s)://, sqlite:///FILE, postgresql+psycopg://, or mlflow+http(s)://"
    parser.add_argument("--registry", default=DEFAULT, metavar="URL", help=f"{about}; default {DEFAULT}")
    parser.add_argument("--token-env", help="environment variable with its bearer token")


def ask_registry(args: argparse.Namespace, ask: Callable[[Any], Awaitable[T]]) -> T:
    """Open the registry of the options, ask it, close it.

    Raises:
        ConfigError, RefusedError, UpstreamError: in the words of the command line.
    """
    from guard.release.pointer import translated
    from registry.opening import FORMS, open_registry

    token = token_of(args)
    if "://" not in args.registry:
        raise ConfigError("--registry", args.registry, f"write {FORMS}")

    async def run() -> T:
        port = open_registry(args.registry, token=token)
        try:
            return await ask(port)
        finally:
            await port.close()

    with translated():
        return asyncio.run(run())


def token_of(args: argparse.Namespace) -> str | None:
    """The token from the environment variable that was named, None when none was."""
    if not args.token_env:
        return None
    token = environment_value(args.token_env)
    if not token:
        raise ConfigError("--token-env", args.token_env, "set that environment variable")
    return token


def actor_of(args: argparse.Namespace) -> str:
    """Who does it."""
    return args.actor or getpass.getuser()


def run_serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    import uvicorn

    from guard.release.pointer import translated
    from registry.service import create_app
    from registry.store import RegistryStore

    token = token_of(args)
    try:
        host, port = split_host_port(args.listen)
    except ValueError as error:
        raise ConfigError("--listen", args.listen, "write host:port") from error
    if token is None and not _is_loopback(host):
        raise ConfigError("--listen", args.listen, "name the token of writes with --token-env, or listen on 127.0.0.1")
    with translated():
        store = RegistryStore(args.database)
    config = uvicorn.Config(create_app(store, token=token), host=host, port=port, log_level="warning")
    try:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError("--listen", args.listen, f"choose an address that is free ({error.strerror})") from error
    port = sock.getsockname()[1]  # of port 0 the one that was chosen
    progress(f"registry on http://{host}:{port} ({'writes need the token' if token else 'writes need no token'})")
    if args.json:
        emit(args, {"url": f"http://{host}:{port}"}, "")
    uvicorn.Server(config).run(sockets=[sock])
    store.close()
    return 0


def _is_loopback(host: str) -> bool:
    """A name other than localhost may lead anywhere."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run_list(args: argparse.Namespace) -> int:
    """List the models; exit 0 also when there is none."""

    async def ask(port: Any) -> list[dict[str, Any]]:
        return [asdict(m) | {"aliases": await port.aliases(m.name)} for m in await port.models()]

    models = ask_registry(args, ask)
    lines = [f"{m['name']:24} {m['aliases'].get('champion', '-'):28} {m['owner']:12} {m['description']}"
             for m in models]  # fmt: skip
    head = f"{'model':24} {'in Production':28} {'owner':12} description"
    emit(args, {"models": models}, "\n".join([head, *lines]) if lines else "no model is registered")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show a model or one version of it."""
    if args.version:
        return _show_version(args)

    async def ask(port: Any) -> tuple[Any, Any]:
        return await port.versions(args.model), await port.aliases(args.model)

    versions, aliases = ask_registry(args, ask)
    names: dict[str, list[str]] = {}
    for alias, version in aliases.items():
        names.setdefault(version, []).append(alias)
    lines = [
        f"{v.version:28} {v.stage.value:11} {_when(v.created_s)}  {v.lineage.created_by:12} "
        f"{', '.join(names.get(v.version, []))}".rstrip()
        for v in versions
    ]
    result = {"model": args.model, "aliases": aliases, "versions": [asdict(v) for v in versions]}
    emit(args, result, "\n".join(lines) or "no version is registered")
    return 0


def _show_version(args: argparse.Namespace) -> int:
    async def ask(port: Any) -> tuple[Any, Any]:
        version = (await port.aliases(args.model)).get(args.version, args.version)
        return await port.version(args.model, version), await port.evaluations(args.model, version)

    version, evaluations = ask_registry(args, ask)
    lineage = version.lineage
    facts = {
        "stage": version.stage.value,
        "artifact": version.artifact_url,
        "registered": f"{_when(version.created_s)} by {lineage.created_by or 'unknown'}",
        "data": lineage.data_hash,
        "code": lineage.git_commit,
        "grown from": lineage.parent,
        "tags": ", ".join(version.tags),
        **{f"meta {name}": value for name, value in version.meta.items()},
        **{f"parameter {name}": _plain(value) for name, value in lineage.parameters.items()},
    }
    lines = [f"{args.model} {version.version}", *(f"  {k:24} {v}" for k, v in facts.items() if v not in ("", None))]
    lines += [f"  {_when(e.time_s)} {e.name} by {e.actor}: {_plain(dict(e.result))}" for e in evaluations]
    emit(args, asdict(version) | {"evaluations": [asdict(e) for e in evaluations]}, "\n".join(lines))
    return 0


def run_transition(args: argparse.Namespace) -> int:
    """Move a version."""
    from registry.model import Stage

    moves = ask_registry(
        args,
        lambda port: port.transition(
            args.model,
            args.version,
            Stage(args.to_stage),
            actor=actor_of(args),
            rollback_to=args.rollback_to,
            epoch=args.epoch,
            detail=args.reason[:500],
            if_production=args.if_production,
            force=args.force,
        ),
    )
    lines = [f"{m.version}: {m.from_stage.value} -> {m.to_stage.value} ({m.action})" for m in moves]
    emit(args, {"moves": [asdict(m) for m in moves]}, "\n".join(lines))
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """Print the audit."""
    if not 1 <= args.limit <= 1000:
        raise ConfigError("--limit", args.limit, "write a number from 1 to 1000")
    entries = ask_registry(args, lambda port: port.audit(args.limit, args.model))
    lines = [
        f"{_when(e.time_s)}  {e.actor:12} {e.action:14} {e.model} {e.version}  "
        f"{e.from_value} -> {e.to_value}  {e.detail}".rstrip()
        for e in entries
    ]
    emit(args, {"entries": [asdict(e) for e in entries]}, "\n".join(lines) or "nothing was changed yet")
    return 0


def run_alias(args: argparse.Namespace) -> int:
    """List, set or remove."""
    if args.alias is None:
        aliases = ask_registry(args, lambda port: port.aliases(args.model))
    elif args.remove == bool(args.version):
        raise ConfigError("registry alias", args.alias, "name the version it shall point to, or --remove")
    else:
        version = None if args.remove else args.version
        aliases = ask_registry(
            args,
            lambda port: port.set_alias(args.model, args.alias, version, actor=actor_of(args), expected=args.expected),
        )
    lines = [f"{alias:16} {version}" for alias, version in aliases.items()]
    emit(args, {"model": args.model, "aliases": aliases}, "\n".join(lines) or "no alias")
    return 0


def _plain(value: object) -> object:
    return to_json(value) if isinstance(value, dict | list) else value


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
