"""The part of guard.yaml that decides what is measured: a baseline of another one is no baseline."""

from __future__ import annotations

import msgspec

from guard.settings.loading import Settings
from slo.codec import text_hash
from slo.errors import ConfigError

_WHAT_IS_CHECKED = {"enabled", "embedder", "grounding_threshold", "pii"}


def measuring_hash(settings: Settings) -> str:
    """Hash over routes, checks and their rules; versions, limits and addresses may change without a new baseline.

    Raises:
        ConfigError: the rules file cannot be read.
    """
    file = settings.file
    rules = ""
    if file.checks.rules is not None:
        path = settings.resolve(file.checks.rules)
        try:
            rules = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError("checks.rules", str(path), f"make it readable ({error.strerror})") from error
    routes = [route.model_dump(mode="json") for route in file.routes]
    checks = file.checks.model_dump(mode="json", include=_WHAT_IS_CHECKED)
    return text_hash(msgspec.json.encode([routes, checks, rules], order="sorted").decode())
