"""Which code made something."""

from __future__ import annotations

import shutil
import subprocess


def git_commit() -> str:
    """Commit of the working directory, "" where there is none."""
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        done = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
