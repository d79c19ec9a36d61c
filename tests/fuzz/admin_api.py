"""Asks the admin listener everything its OpenAPI allows and much that it does not: `python -m tests.fuzz.admin_api`.

Schemathesis reads /openapi.json of a running guard and makes requests of it, good and bad ones, with the token. Found
is any 5xx, and any status, media type or body that the reference does not promise. Needs the `fuzz` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.rig import TOKEN, Bare
from tests.faults.stub_servers import http_server, model, port_of

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def program() -> str | None:
    """Schemathesis, beside this interpreter or on the path."""
    beside = Path(sys.executable).with_name("schemathesis")
    return str(beside) if beside.exists() else shutil.which("schemathesis")


async def examined(examples: int, seed: int) -> tuple[int, str]:
    """(exit code of schemathesis, what it printed)."""
    command = program()
    assert command is not None
    with tempfile.TemporaryDirectory(prefix="sft-guard-api-") as directory:
        server = await http_server(model)
        async with Bare(Path(directory)).before(port_of(server), extra="cache: {ttl: 1h}\n") as guard:
            for number in range(30):
                await guard.ask(number)
            url = f"http://127.0.0.1:{guard.admin_port}"
            said, worst = "", 0
            # Coverage leaves the token out on purpose, and after five of those the door is closed for a minute: last.
            for phases in ("fuzzing,stateful", "coverage"):
                process = await asyncio.create_subprocess_exec(
                    command, "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}",
                    "--checks", CHECKS, "--phases", phases, "--max-examples", str(examples), "--seed", str(seed),
                    "--no-color", "--workers", "1",
                    cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip
                printed, _ = await process.communicate()
                said += printed.decode(errors="replace")
                worst = max(worst, process.returncode or 0)
            _, health = await guard.admin("GET", "/healthz")
            assert health["status"] in ("ok", "degraded")
        server.close()
    return worst, said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.admin_api", description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=200, help="requests per operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if program() is None:
        print("tests.fuzz: Schemathesis is missing; install it with: pip install 'sft-guard[fuzz]'", file=sys.stderr)
        return 2
    code, printed = asyncio.run(examined(args.examples, args.seed))
    print(printed)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
