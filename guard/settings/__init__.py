"""guard.yaml and the environment: read once, checked once, frozen.

`load_settings(path)` returns a `Settings`; every error is a ConfigError with file, path, value and cure. Durations are
written as `10m`, shares as `10%` or `0.1`, sizes as `64MiB`; inside they are seconds, ratios and bytes.

    fields -> traffic | release | measuring -> file -> loading
"""

from guard.settings.fields import parse_origin, split_host_port
from guard.settings.file import GuardFile
from guard.settings.loading import (
    UNSET,
    Settings,
    child_environment,
    environment_value,
    guard_json_schema,
    load_settings,
    load_without_secrets,
)

__all__ = [
    "UNSET",
    "GuardFile",
    "Settings",
    "child_environment",
    "environment_value",
    "guard_json_schema",
    "load_settings",
    "load_without_secrets",
    "parse_origin",
    "split_host_port",
]
