"""Rules behind the model are part of what answers: their hash is part of the release, and so of every cache key."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from guard.settings.file import GuardFile
from slo.errors import ConfigError


def with_rule_hashes(file: GuardFile, place: str, base_dir: Path) -> GuardFile:
    """The file with the content of each `answer_rules` in its version's policy.

    Raises:
        ConfigError: a rule file cannot be read.
    """
    versions = dict(file.versions)
    for name, version in file.versions.items():
        if version.answer_rules is None:
            continue
        path = base_dir / version.answer_rules
        try:
            found = sha256(path.read_bytes()).hexdigest()[:12]
        except OSError as error:
            raise ConfigError(
                f"{place}: versions.{name}.answer_rules", str(path), f"make it readable ({error.strerror})"
            ) from error
        policy = f"{version.policy}+rules-{found}" if version.policy else f"rules-{found}"
        versions[name] = version.model_copy(update={"policy": policy, "answer_rules": None})
    return file.model_copy(update={"versions": versions}) if versions != file.versions else file
