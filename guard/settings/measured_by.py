"""The part of guard.yaml that decides what is measured: a baseline of another one is no baseline."""

from __future__ import annotations

import msgspec

from guard.settings.loading import Settings
from slo.codec import text_hash

_WHAT_IS_CHECKED = {"enabled", "embedder", "grounding_threshold", "pii"}


def measuring_hash(settings: Settings) -> str:
    """Hash over routes, checks and their rules; versions, limits and addresses may change without a new baseline.

    A rules file that cannot be read has a hash of its own: nothing collected with it is comparable.
    """
    file = settings.file
    rules = ""
    if file.checks.rules is not None:
        try:
            rules = settings.resolve(file.checks.rules).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            rules = f"unreadable: {type(error).__name__}"  # the checks tell of it; here it only has to differ
    routes = [route.model_dump(mode="json") for route in file.routes]
    checks = file.checks.model_dump(mode="json", include=_WHAT_IS_CHECKED)
    return text_hash(msgspec.json.encode([routes, checks, rules], order="sorted").decode())
