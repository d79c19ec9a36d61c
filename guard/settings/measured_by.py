"""The part of guard.yaml that decides what is measured: a baseline of another one is no baseline."""

from __future__ import annotations

from pathlib import Path

import msgspec

from guard.settings.loading import Settings
from slo.codec import text_hash

_WHAT_IS_CHECKED = {"enabled", "embedder", "grounding_threshold", "pii"}


def measuring_hash(settings: Settings) -> str:
    """Hash over routes, checks and their rules; versions, limits and addresses may change without a new baseline.

    A rules file that cannot be read has a hash of its own: nothing collected with it is comparable.
    """
    file = settings.file
    rules = _text(settings, file.checks.rules) if file.checks.rules is not None else ""
    routes = [route.model_dump(mode="json") for route in file.routes]
    checks = file.checks.model_dump(mode="json", include=_WHAT_IS_CHECKED)
    if file.checks.embedder == "endpoint" and file.embeddings is not None:
        checks["embeddings"] = [file.embeddings.url, file.embeddings.model]
    more = [_text(settings, file.checks.calibration)] if file.checks.calibration is not None else []
    more += [file.checks.transformer] if file.checks.transformer != "none" else []
    more += [tier.model_dump_json() for tier in (file.checks.detector, file.checks.judge) if tier is not None]
    return text_hash(msgspec.json.encode([routes, checks, rules, *more], order="sorted").decode())


def _text(settings: Settings, path: Path) -> str:
    """Of a file that decides; unreadable: the checks tell of it, here it only has to differ."""
    try:
        return settings.resolve(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return f"unreadable: {type(error).__name__}"
