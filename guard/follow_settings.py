"""From settings to what the check worker follows."""

from __future__ import annotations

from guard.checks.spec import FollowSpec
from guard.following.intents_file import Intent, load_intents
from guard.settings import Settings


def follow_spec(settings: Settings) -> FollowSpec:
    """What is told by many exchanges, as the worker is asked to."""
    checks = settings.file.checks
    return FollowSpec(
        intents_path=str(settings.resolve(checks.intents)) if checks.intents else "",
        state_dir=str(settings.state_dir),
        drift_embedder=checks.drift.embedder,
        drift_learn=checks.drift.learn,
        drift_window=checks.drift.window,
        examples=settings.file.exchange_log.text != "none",
    )


def intents_of(settings: Settings) -> tuple[Intent, ...]:
    """The key intents. Raises ConfigError: intents.yaml is wrong."""
    path = settings.file.checks.intents
    return load_intents(settings.resolve(path)) if path else ()
