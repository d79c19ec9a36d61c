"""What the image is made of, and what is known against it: dist/sbom.cdx.json and a look-up of every pinned wheel, of
those that only build it too.

Exit 0 nothing known, 1 a known vulnerability, 2 the tools failed. Where no vulnerability service answers, each package
is named as not looked up: that is no clean bill of health.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "deploy" / "requirements.lock"
BUILD_LOCK = ROOT / "deploy" / "build.lock"
SBOM = ROOT / "dist" / "sbom.cdx.json"
TIMEOUT_S = 300.0


def _tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / name
    command = [str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603


def judge(found: Sequence[dict[str, object]]) -> tuple[list[str], list[str], int]:
    """Return lines about vulnerable packages, names that were not looked up, and how many were."""
    bad: list[str] = []
    for one in found:
        for known in one.get("vulns", ()) or ():  # type: ignore[attr-defined]
            cure = ", ".join(known["fix_versions"]) or "no version without it"
            bad.append(f"{one['name']} {one['version']}: {known['id']}; cure: {cure}")
    skipped = [str(one["name"]) for one in found if "skip_reason" in one]
    return bad, skipped, len(found) - len(skipped)


def main() -> int:
    """Write the bill of materials, look every wheel up, print what was found."""
    SBOM.parent.mkdir(exist_ok=True)
    about = ("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application")
    written = ("--output-reproducible", "--of", "JSON", "--validate", "-o", str(SBOM))
    made = _tool("cyclonedx-py", "requirements", str(LOCK), *about, *written)
    if made.returncode:
        sys.stderr.write(f"audit: no bill of materials: {made.stderr.strip()[-500:]}\n")
        return 2
    count = len(json.loads(SBOM.read_text(encoding="utf-8"))["components"])
    sys.stdout.write(f"audit: {SBOM.relative_to(ROOT)}: {count} components\n")
    locks = [word for lock in (LOCK, BUILD_LOCK) for word in ("--requirement", str(lock))]
    told = _tool("pip-audit", *locks, "--no-deps", "--disable-pip", "--format", "json")
    try:
        found = json.loads(told.stdout)["dependencies"]
    except (ValueError, KeyError):
        sys.stdout.write(f"audit: SKIPPED: no vulnerability service: {told.stderr.strip()[-300:]}\n")
        return 0
    bad, skipped, looked = judge(found)
    sys.stdout.writelines(f"audit: {line}\n" for line in bad)
    if skipped:
        sys.stdout.write(f"audit: SKIPPED: {len(skipped)} of {len(found)} could not be looked up: {skipped[0]}, ...\n")
    sys.stdout.write(f"audit: {looked} looked up, {len(bad)} known vulnerabilities\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
