"""`--json` of a command that serves: where it can be reached, as one object on standard output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from guard.cli import main

pytestmark = pytest.mark.slow

GUARD = """\
service: faq-bot
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
slo: null
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {upstreams: ["http://127.0.0.1:9"]}}
release: {stable: v1}
checks: {enabled: false}
"""


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["serve", "-c", "guard.yaml"], "admin"),
        (["registry", "serve", "--listen", "127.0.0.1:0", "--database", "sqlite:///registry.sqlite"], "url"),
        (["kb", "serve", "--kb", "kb", "--port", "0", "--embedder", "none"], "url"),
    ],
    ids=["serve", "registry serve", "kb serve"],
)
def test_a_server_says_where_it_is(command: list[str], key: str, tmp_path: Path) -> None:
    (tmp_path / "guard.yaml").write_text(GUARD)
    (tmp_path / "note.txt").write_text("Employees receive 14 days of annual leave per year.")
    if command[0] == "kb":
        assert main(["kb", "init", "--kb", str(tmp_path / "kb")]) == 0
        add = ["kb", "add", "--kb", str(tmp_path / "kb"), "--text", str(tmp_path / "note.txt"), "--embedder", "none"]
        assert main(add) == 0
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "guard.cli", *command, "--json"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("{"), f"{line!r}\n{(tmp_path / 'log').read_text()}"
        with urllib.request.urlopen(f"{json.loads(line)[key]}/healthz", timeout=20) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        process.stdout.close()
