"""`lora serve` as a process: keys from the environment, roles, a stream that outlives SIGTERM; mistakes in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from guard.cli import main
from lora.access import Role, issue_token
from lora.keys import load_ring
from tests.lora_kit import adapter_directory, ring_of, vault_of
from tests.lora_models import quiet, tiny_adapter, tiny_base, tiny_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter in a vault, and people with roles."""
    quiet()
    place = tmp_path_factory.mktemp("serve")
    base = tiny_base(place / "base")
    adapter = tiny_adapter(base, tiny_dataset(2).train, place / "plain", epochs=1)
    vault_of(place, ring_of(place)).seal(adapter, "hr-rules", "v1")
    return place


def start(place: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "guard.cli", "lora", "serve", "--base", str(place / "base"),
         "--port", "0", "--threads", "1", "--json", *words],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,  # noqa: TID251
    )  # fmt: skip


def test_roles_decide_and_a_stream_outlives_the_signal(place: Path) -> None:
    access = place / "access.json"
    tokens = {role: issue_token(access, role.value, role) for role in (Role.KEYHOLDER, Role.RELEASER, Role.VIEWER)}
    ring = (place / "keys.json").read_text()
    words = ("--adapter", "hr=sealed:hr-rules@v1", "--vault", str(place / "vault"), "--keys-env", "RING",
             "--access", str(access), "--token-env", "VAULT_TOKEN")  # fmt: skip

    refused = start(place, *words, RING=ring, VAULT_TOKEN=tokens[Role.VIEWER])
    out, said = refused.communicate(timeout=120)
    assert (refused.returncode, out) == (2, "")
    assert "viewer is viewer; `open` needs the role releaser; this was recorded" in said
    assert "Traceback" not in said

    server = start(place, *words, RING=ring, VAULT_TOKEN=tokens[Role.RELEASER])
    try:
        assert server.stdout is not None
        assert server.stderr is not None
        url = json.loads(server.stdout.readline())["url"]
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        body = {"model": "hr", "stream": True, "max_tokens": 150, "temperature": 1.5, "seed": 3,
                "messages": [{"role": "user", "content": "Mailbox?"}]}  # fmt: skip
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            first = response.readline()
            server.send_signal(signal.SIGTERM)
            rest = response.read()
        assert first.startswith(b"data: ")
        assert rest.endswith(b"data: [DONE]\n\n")
        out, said = server.communicate(timeout=120)
        assert (server.returncode, out) == (0, "")
        assert "Traceback" not in said
    finally:
        server.kill()
    entries, problem = vault_of(place, load_ring(place / "keys.json")).audit()
    assert problem is None
    assert [(e.user, e.result) for e in entries if e.deed == "open"] == [("viewer", "refused"), ("releaser", "ok")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "/nowhere"], "/nowhere: no such directory"),
        (["--base", "{place}/base", "--adapter", "hr"], "write NAME=DIR or NAME=sealed:NAME@VERSION"),
        (["--base", "{place}/base", "--adapter", "hr={place}/nowhere"], "name the directory of an adapter"),
        (["--base", "{place}/base", "--adapter", "hr={place}/other"], "does not fit the base model"),
        (["--base", "{place}/base", "--adapter", "hr=sealed:hr-rules@v1"], "start the server with --vault and --keys"),
        (["--base", "{place}/base", "--adapter", "base={place}/plain"], "it is the base model"),
        (["--base", "{place}/base", "--keys", "keys.json"], "name the --vault, too"),
        (["--base", "{place}/base", "--vault", "vault"], "give --keys or --keys-env"),
        (["--base", "{place}/base", "--batch", "0"], "--batch: got 0; give a number from 1"),
        (["--base", "{place}/base", "--temperature", "nan"], "--temperature"),
        (["--base", "{place}/base", "--temperature", "inf"], "--temperature"),
        (["--base", "{place}/base", "--threads", "-1"], "--threads: got -1"),
        (["--base", "{place}/base", "--admin-token-env", "SHORT"], "use at least 16"),
        (["--base", "{place}/base", "--api-key-env", "MISSING"], "set that environment variable"),
        (["--base", "{place}/base", "--port", "99999"], "choose a free port"),
    ],
    ids=["base", "adapter-form", "adapter-missing", "adapter-other", "no-vault", "name-taken", "keys-alone",
         "vault-alone", "batch", "temperature", "hot", "threads", "short-token", "no-key", "port"],
)  # fmt: skip
def test_a_mistake_is_one_line(
    place: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", "short")
    monkeypatch.delenv("MISSING", raising=False)
    if not (place / "other").exists():
        adapter_directory(place / "other")
        config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"]}
        (place / "other" / "adapter_config.json").write_text(json.dumps(config))
    code = main(["lora", "serve", *(["--port", "0"] if "--port" not in words else []),
                 *(word.format(place=place) for word in words)])  # fmt: skip
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loading ")]
    assert code == 2
    assert len(lines) == 1, lines
    assert said in lines[0]
