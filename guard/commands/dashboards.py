"""dashboards: Grafana JSON from the SLO file."""

from __future__ import annotations

import argparse
from pathlib import Path

from alerts.names import alert_names
from guard.commands.common import Groups, add_command, add_group, emit
from slo.errors import ConfigError
from slo.spec import load_slo_file
from slo.types import Slo


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    dashboards = add_group(groups, "dashboards", "Grafana dashboards")
    build = add_command(dashboards, "build", run_build, "write dashboards and provisioning files from the SLO file",
                        "sft-guard dashboards build --slo slo.yaml --out grafana")  # fmt: skip
    build.add_argument("--slo", type=Path, default=Path("slo.yaml"), help="the rules")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="files of the same name are replaced")
    build.add_argument("--runbook-url", default="", metavar="URL", help="where the runbook pages of the alerts are")
    build.add_argument("--installed-at", default="/var/lib/grafana/dashboards", metavar="PATH",
                       help="where Grafana will find DIR (default %(default)s)")  # fmt: skip


def run_build(args: argparse.Namespace) -> int:
    """Write every file."""
    from dashboards.build import files, write

    if args.runbook_url and not args.runbook_url.startswith(("http://", "https://")):
        raise ConfigError("--runbook-url", args.runbook_url, "write http(s)://host/path")
    slos = load_slo_file(args.slo).objectives
    made = files(slos, runbooks=_runbooks(slos), runbook_url=args.runbook_url, installed_at=args.installed_at)
    write(made, args.out)
    emit(args, {"out": str(args.out), "files": sorted(made)}, "\n".join(f"wrote {args.out / name}" for name in made))
    return 0


def _runbooks(slos: tuple[Slo, ...]) -> dict[str, str]:
    """Page of each objective's alert, as `alerts build` writes it."""
    return {slo: f"{alert}.md" for slo, alert in alert_names(slo.name for slo in slos).items()}
