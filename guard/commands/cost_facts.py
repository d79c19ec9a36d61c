"""What the system knows of itself for `cost advise`: read from guard.yaml, slo.yaml and a running guard."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard.commands.admin_call import call_admin
from guard.commands.common import progress
from guard.release.plan import parse_plan
from guard.settings import Settings, load_without_secrets
from slo.economics.advice import Facts
from slo.errors import ConfigError, GuardError
from slo.spec import load_slo_file

_CLASSES = {"hallucination": "sft_quality_hallucination_", "latency": "sft_perf_latency_", "cost": "sft_cost_"}
"""What must be watched, and how its indicators begin."""


def gather(args: argparse.Namespace) -> Facts:
    """Return the facts; what cannot be found stays None and is asked for.

    Raises:
        ConfigError: a file that was named cannot be used.
    """
    known: dict[str, Any] = {
        "recall_ratio": args.recall,
        "quality_ratio": args.quality,
        "fte": args.fte,
        "privacy_reviewed": args.privacy_reviewed,
        "red_team": args.red_team,
        "pipeline_as_code": args.pipeline_as_code,
        "evaluation_rows": _rows(args.evaluation_set) if args.evaluation_set else None,
    }
    if args.config:
        known |= _configured(load_without_secrets(args.config)[0])
    if args.config or args.admin:
        known["drill_mttr_s"] = _last_drill(args)
    return Facts(**known)


def _rows(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _configured(settings: Settings) -> dict[str, Any]:
    file = settings.file
    plan = file.release.plan
    stages = len(parse_plan(plan).stages) if isinstance(plan, str) else len(plan)
    found: dict[str, Any] = {
        "stage_count": stages,
        "lineage": all(_described(v.model_dump()) for v in file.versions.values()),
        "cost_per_tenant": file.exchange_log.enabled,
        "pii_masked": file.checks.enabled and file.checks.pii and file.exchange_log.text != "full",
    }
    if file.slo is not None:
        names = [o.indicator for o in load_slo_file(settings.resolve(file.slo)).objectives]
        found["watched"] = tuple(c for c, prefix in _CLASSES.items() if any(n.startswith(prefix) for n in names))
    return found


def _described(version: Mapping[str, Any]) -> bool:
    """A version that says at least what model and what knowledge base or prompt it is made of."""
    return bool(version["model"]) and any(version[part] for part in ("adapter", "kb", "prompt"))


def _last_drill(args: argparse.Namespace) -> float | None:
    """Seconds of the newest drill; None when none was run, when it did not pass, or when the guard cannot be asked."""
    try:
        rows = call_admin(args, "GET", "/api/v1/incidents")["incidents"]
        drills = [row for row in rows if row["kind"] == "drill"]
        if not drills:
            return None
        last = max(drills, key=lambda row: row["opened_wall_s"])
        mttr_s = last["mttr_s"]
        if mttr_s is None:
            progress(f"sft-guard: the last drill ({last['id']}) did not pass: `sft-guard release drill` runs another")
            return None
    except GuardError as error:
        progress(f"sft-guard: the last drill is not known: {error}")
        return None
    except (KeyError, TypeError) as error:
        raise ConfigError(
            "--admin", args.admin, f"that is not an admin listener of this program ({error!r})"
        ) from error
    return float(mttr_s)
