"""What the tests of `deploy/` share: where it lies, a command as a shell runs it, the objects of kustomization.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
GUARD = Path(sys.executable).with_name("sft-guard")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command; its output is text."""
    env = {**os.environ, "SFT_GUARD": str(GUARD), **environment}  # noqa: TID251 - what a shell would have
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, timeout=120)


def needs(program: str, package: str) -> str:
    """Path of a program; skips where it is missing."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not here; Debian package {package}")
    return found


def objects() -> list[dict[str, Any]]:
    """Every object that kustomization.yaml names, for the caller to change."""
    return deepcopy(_read())


@cache
def _read() -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    texts = [(KUBERNETES / name).read_text() for name in kustomization["resources"]]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def one(kind: str) -> dict[str, Any]:
    """The only object of this kind."""
    (found,) = [o for o in objects() if o["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    """Template of the bot's pod."""
    return dict(one("Deployment")["spec"]["template"]["spec"])


def sidecar() -> dict[str, Any]:
    """The guard's container in it."""
    (found,) = [c for c in pod()["initContainers"] if c["name"] == "sft-guard"]
    return dict(found)
