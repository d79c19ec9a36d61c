"""A directory like a reader's, where the commands of the pages are run as they stand.

Only addresses are changed: the ports of the pages become free ones, in the text, in the files, and where a command
would take one of them by default.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from guard.cli import build_parser
from slo.clock import SystemClock
from slo.types import Exchange
from tests.docs.pages import ROOT, Block, commands
from tests.e2e.test_demo_run import free_ports
from tests.e2e.test_serve import TOKEN, Model
from tests.log_kit import write_log
from tests.unit.test_slo_baselines import week

PORTS = (8800, 8801, 8810, 8820)
"""Data, admin, answer path, registry, as the pages name them."""
START_LIMIT_S = 90.0
_SERVERS = (("serve",), ("kb", "serve"), ("registry", "serve"), ("demo",))


class Stage:
    """`run` runs a block line by line; servers of it go on in the background until the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SFT_GUARD")},  # noqa: TID251 - for children
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # noqa: TID251
            "SFT_GUARD_TOKEN": TOKEN,
            "REGISTRY_TOKEN": TOKEN,
        }
        (directory / ".venv").mkdir()
        (directory / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        shutil.copytree(ROOT / "deploy", directory / "deploy", ignore=shutil.ignore_patterns("generated"))
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every server."""
        self._stack.close()

    # What the pages take for granted.

    def model(self) -> None:
        """An upstream that answers every question."""
        import http.server

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.ports[8810]), Model)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._stack.callback(server.server_close)
        self._stack.callback(server.shutdown)

    def configuration(self) -> None:
        """guard.yaml and slo.yaml as `init` writes them, with a second version and an admin token."""
        self.shell("sft-guard init --preset support-faq --dir .")
        self.second_version()

    def second_version(self) -> None:
        """What a reader adds to guard.yaml before a release."""
        path = self.directory / "guard.yaml"
        text = path.read_text(encoding="utf-8")
        text = text.replace("# admin: {token_env: SFT_GUARD_TOKEN}", "admin: {token_env: SFT_GUARD_TOKEN}")
        version = '  v1.2.1:\n    upstreams: ["http://127.0.0.1:8810"]\n    model: gpt-4o-mini\n    kb: "2"\n\n'
        path.write_text(text.replace("release:\n", version + "release:\n", 1), encoding="utf-8")

    def log(self) -> None:
        """A healthy week and a day in state/exchanges that ended just now: 400 an hour, 1 in 40 of them bad."""
        directory = self.directory / "state" / "exchanges"
        directory.mkdir(parents=True)
        found = [replace(one, exchange_id=f"{one.exchange_id}{n}") for one in week(8.0) for n in range(10)]
        shift_s = SystemClock().wall_s() - 60.0 - found[-1].wall_s
        moved: list[Exchange] = [replace(one, wall_s=one.wall_s + shift_s) for one in found]
        write_log(directory / "0000000000000-0.jsonl", moved)

    def serve(self) -> None:
        """The guard of guard.yaml."""
        self.model()
        self.shell("sft-guard serve")

    # Running.

    def run(self, block: Block, codes: dict[str, int] | None = None) -> list[str]:
        """Run a block, return what each command wrote on standard output.

        codes: beginning of a command -> its exit code, where that is not 0.
        """
        return [self.shell(line, str(block), codes or {}) for line in commands(block.text)]

    def shell(self, line: str, place: str = "", codes: dict[str, int] | None = None) -> str:
        """Run one line. A directory that it changes into, and a variable that it exports, hold for the next."""
        words = shlex.split(line)
        if words[0] == "cd":
            self.directory = self.directory / words[1]
            return ""
        line = self._moved(line)
        if words[0].endswith("sft-guard") and any(tuple(words[1 : 1 + len(s)]) == s for s in _SERVERS):
            return self._server(line)
        if words[0] == "export":
            name, _, value = line.removeprefix("export ").partition("=")
            told = subprocess.run(["bash", "-c", f"printf %s {value}"], capture_output=True, text=True, check=True)
            self.environment[name] = told.stdout
            return ""
        told = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        wanted = next((code for start, code in (codes or {}).items() if line.startswith(start)), 0)
        assert told.returncode == wanted, (
            f"{place}: {line} ended with {told.returncode}\n{told.stdout[-1500:]}\n{told.stderr[-1500:]}"
        )
        assert "Traceback" not in told.stderr, f"{place}: {line}\n{told.stderr}"
        return told.stdout

    def moved(self, text: str) -> str:
        """The text with the ports of this stage."""
        for port, free in self.ports.items():
            text = re.sub(rf"(127\.0\.0\.1:|0\.0\.0\.0:|--port ){port}\b", rf"\g<1>{free}", text)
        return text

    def _moved(self, text: str) -> str:
        text = self.moved(text)
        for path in self.directory.glob("*.yaml"):
            content = path.read_text(encoding="utf-8")
            moved = re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"127.0.0.1:{self.ports.get(int(m[1]), m[1])}", content)
            if moved != content:
                path.write_text(moved, encoding="utf-8")
        words = shlex.split(text)
        if not words[0].endswith("sft-guard"):
            return text
        return text + "".join(f" {flag} {value}" for flag, value in self._defaults(words))

    def _defaults(self, words: list[str]) -> list[tuple[str, str]]:
        """Addresses that a command takes without being told."""
        parser = build_parser()
        for word in words[1:]:
            groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
            if not groups:
                break
            parser = groups[0].choices[word]
        found = []
        for action in parser._actions:
            flag = action.option_strings[-1] if action.option_strings else ""
            if not flag or any(w.partition("=")[0] == flag for w in words):
                continue
            if flag in {"--admin"} and action.default is None:
                found.append((flag, f"http://127.0.0.1:{self.ports[8801]}"))
            elif isinstance(action.default, str) and re.search(r":(88\d\d)$", action.default):
                port = int(action.default[-4:])
                found.append((flag, action.default[:-4] + str(self.ports.get(port, port))))
            elif action.default in PORTS and flag == "--port":
                found.append((flag, str(self.ports[action.default])))
        return found

    def _server(self, line: str) -> str:
        words = shlex.split(line)
        said = self.directory / f"said-{time.monotonic_ns()}"
        with said.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.directory, env=self.environment, stdout=file, stderr=file
            )
        self._stack.callback(self._stop, process)
        port = self.ports[{"kb": 8810, "registry": 8820}.get(words[1], 8801)]
        end_s = time.monotonic() + START_LIMIT_S
        while True:
            words_said = said.read_text(encoding="utf-8", errors="replace")
            assert process.poll() is None, f"{line}\n{words_said}"
            assert time.monotonic() < end_s, f"{line} does not listen\n{words_said}"
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                time.sleep(0.1)
        return words_said

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(60)

    def ask(self, question: str = "How much leave?") -> str:
        """Ask the guard; the id of the exchange."""
        body = b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % question.encode()
        url = f"http://127.0.0.1:{self.ports[8800]}/v1/chat/completions"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as response:
            response.read()
            return str(response.headers["x-guard-exchange-id"])
