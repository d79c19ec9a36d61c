"""serve and demo: the long-running commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from guard.commands.common import Groups, add_command, emit
from guard.settings import load_settings
from slo.errors import ConfigError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    serve = add_command(groups, "serve", run_serve, "run the sidecar", "sft-guard serve -c guard.yaml")
    serve.add_argument("-c", "--config", type=Path, default=Path("guard.yaml"), help="the configuration")
    about = "everything embedded: knowledge base, answer path, guard, admin listener"
    demo = add_command(groups, "demo", run_demo, about, "sft-guard demo --incident --seed 1")
    scenario = demo.add_mutually_exclusive_group()
    scenario.add_argument("--incident", action="store_true", help="a bad release is started, found and rolled back")
    scenario.add_argument("--no-incident", action="store_true", help="the same run with a healthy release")
    demo.add_argument("--seed", type=int, default=1, help="seed of users, arrivals and faults")
    demo.add_argument("--rate", type=float, default=20.0, help="requests per second of the simulated users")
    demo.add_argument("--max-seconds", type=float, default=240.0, help="give up after this long")
    demo.add_argument("--keep", type=Path, help="keep state, logs and configuration in this directory")
    demo.add_argument("--data-port", type=int, help="data listener of the playground; default 8800")
    demo.add_argument("--admin-port", type=int, help="admin listener of the playground; default 8801")
    demo.add_argument("--answer-port", type=int, help="answer path of the playground; default 8810")


_PORTS = {"data_port": 8800, "admin_port": 8801, "answer_port": 8810}


def run_serve(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reloads."""
    settings = load_settings(args.config)
    from guard.app import serve

    def ready(data: str, admin: str) -> None:
        urls = {"data": f"http://{data}", "admin": f"http://{admin}"}
        emit(args, urls, f"sft-guard: serving on {urls['data']} (admin {urls['admin']})")

    return serve(settings, ready)


def run_demo(args: argparse.Namespace) -> int:
    """The playground, or one scripted-by-nobody incident."""
    from guard import demo

    ports = {"data_port": args.data_port, "admin_port": args.admin_port, "answer_port": args.answer_port}
    if not (args.incident or args.no_incident):
        from guard.demo.stage import run_playground

        chosen = {name: default if ports[name] is None else ports[name] for name, default in _PORTS.items()}
        return run_playground(**chosen, keep=args.keep, ready=lambda urls, text: emit(args, urls, text))
    for name, port in ports.items():
        if port is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(flag, port, "leave it out: a run with or without an incident takes ports that are free")
    result = demo.run(seed=args.seed, incident=args.incident, rate=args.rate, max_s=args.max_seconds, keep=args.keep)
    emit(args, result.to_json(), result.summary())
    return 0 if result.as_expected else 1
