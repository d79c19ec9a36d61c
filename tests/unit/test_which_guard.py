"""Two guards on one host: which one a command asks, what it says about that, and when it wants a token."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from guard.cli import main
from tests.monitoring_kit import free_port


class _Guard(ThreadingHTTPServer):
    """Answers with its own name; remembers who came with what token."""

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.name, self.seen = name, list[tuple[str, str]]()
        self.private = False
        self.elsewhere = ""
        self.url = f"http://127.0.0.1:{self.server_port}"

    def config(self, directory: Path, more: str = "") -> Path:
        directory.mkdir(exist_ok=True)
        path = directory / "guard.yaml"
        path.write_text(f"service: {self.name}\nlisten: {{admin: '127.0.0.1:{self.server_port}'}}\n{more}")
        return path


class _Answer(BaseHTTPRequestHandler):
    server: _Guard

    def do_GET(self) -> None:
        token = self.headers.get("authorization", "")
        self.server.seen.append((self.command, token))
        if self.server.elsewhere:
            self.send_response(302)
            self.send_header("location", self.server.elsewhere)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        refused = (self.command == "POST" or self.server.private) and token != f"Bearer {self.server.name}-token"
        row = {"id": "inc-1", "kind": "rollback", "title": self.server.name}
        said = {"error": {"type": "unauthorized", "message": "the token is wrong"}} if refused else {"incidents": [row]}
        if self.command == "POST" and not refused:
            said = {"message": f"{self.server.name} did it"}
        body = json.dumps(said).encode()
        self.send_response(401 if refused else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Guard, _Guard, _Guard]]:
    for name in ("SFT_GUARD_TOKEN", "SFT_GUARD_ADMIN", "A_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    made = _Guard("a"), _Guard("b"), _Guard("c")
    for guard in made:
        Thread(target=guard.serve_forever, daemon=True).start()
    yield made
    for guard in made:
        guard.shutdown()
        guard.server_close()


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["incident", "list", *words]) == 0
    said = capsys.readouterr()
    return said.out.split()[-1], said.err.strip()


def test_the_first_that_is_named_decides(
    guards: tuple[_Guard, _Guard, _Guard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    a, b, c = guards
    there = str(b.config(tmp_path / "there"))
    monkeypatch.setattr("guard.commands.admin_call.DEFAULT_ADMIN", c.url)
    assert asked(capsys) == ("c", f"sft-guard: asked {c.url} (the default: no --admin, -c, SFT_GUARD_ADMIN or "
                                  "./guard.yaml)")  # fmt: skip
    a.config(tmp_path)
    assert asked(capsys) == ("a", f"sft-guard: asked {a.url} (listen.admin of ./guard.yaml)")
    monkeypatch.setenv("SFT_GUARD_ADMIN", c.url)
    assert asked(capsys) == ("c", f"sft-guard: asked {c.url} (SFT_GUARD_ADMIN)")
    assert asked(capsys, "-c", there) == ("b", f"sft-guard: asked {b.url} (listen.admin of {there})")
    assert asked(capsys, "-c", there, "--admin", a.url) == ("a", f"sft-guard: asked {a.url} (--admin)")


def test_reading_wants_no_secret_and_sends_none(
    guards: tuple[_Guard, _Guard, _Guard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    a, b, _ = guards
    hooks = (
        "webhooks: [{name: pager, url_env: NOT_SET_HERE}]\nroutes: of yesterday\n"  # not what a reader stumbles over
    )
    a.config(tmp_path, "admin: {token_env: A_TOKEN}\n" + hooks)
    assert asked(capsys)[0] == "a"
    monkeypatch.setenv("A_TOKEN", "a-token")
    assert asked(capsys)[0] == "a"
    assert a.seen == [("GET", "")] * 2
    a.private = True
    assert asked(capsys)[0] == "a"
    assert a.seen[2:] == [("GET", ""), ("GET", "Bearer a-token")]
    b.private = True
    assert main(["incident", "list", "--admin", b.url]) == 2
    said = capsys.readouterr().err
    assert f"{b.url}/api/v1/incidents needs a token: export SFT_GUARD_TOKEN" in said
    assert said.count("\n") == 1
    assert ("GET", "Bearer a-token") not in b.seen  # the token of ./guard.yaml is for its own guard


def test_changing_takes_the_token_of_the_guard_that_is_asked(
    guards: tuple[_Guard, _Guard, _Guard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    a, b, c = guards
    a.config(tmp_path, "admin: {token_env: A_TOKEN}\n")
    monkeypatch.setenv("SFT_GUARD_TOKEN", "c-token")
    change = ["release", "pause"]
    assert main(change) == 2
    said = capsys.readouterr().err
    assert "export A_TOKEN with the token" in said
    assert "(listen.admin of ./guard.yaml)" in said
    monkeypatch.setenv("A_TOKEN", "a-token")
    assert main(change) == 0
    assert "a did it" in capsys.readouterr().out
    assert main([*change, "--admin", c.url]) == 0
    assert "c did it" in capsys.readouterr().out
    assert a.seen[-1] == ("POST", "Bearer a-token")
    assert c.seen == [("POST", "Bearer c-token")]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "token").write_text("b-token\n")
    there = b.config(tmp_path / "there", "admin: {token_file: token}\n")
    assert main([*change, "-c", str(there)]) == 0
    assert main([*change, "-c", str(there), "--token-env", "A_TOKEN"]) == 2
    assert f"the token is wrong; so says {b.url} (listen.admin of {there})" in capsys.readouterr().err
    (tmp_path / "there" / "token").unlink()
    assert main([*change, "-c", str(there)]) == 2
    assert "admin.token_file: got" in capsys.readouterr().err


def test_a_token_is_shown_to_no_proxy_and_after_no_redirect(
    guards: tuple[_Guard, _Guard, _Guard], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, proxy = guards
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("SFT_GUARD_TOKEN", "a-token")
    assert asked(capsys, "--admin", a.url)[0] == "a"
    assert main(["release", "pause", "--admin", a.url]) == 0
    a.elsewhere = b.url
    capsys.readouterr()
    for command in (["release", "pause"], ["incident", "list"]):
        assert main([*command, "--admin", a.url]) == 2
        said = capsys.readouterr().err
        assert "answers 302; it sends elsewhere, which is not followed" in said
        assert said.count("\n") == 1
    assert (b.seen, proxy.seen) == ([], [])


def test_what_is_no_guard_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SFT_GUARD_TOKEN", "a-token")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def other_protocol() -> None:
            for answer in (b"-ERR unknown command\r\n", b"HTTP/1.1 500 oh\r\ncontent-length: 90\r\n\r\nhalf"):
                with listening.accept()[0] as connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = Thread(target=other_protocol, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for words in ("no answer over HTTP (-ERR unknown command)", "/api/v1/release answers 500; see its log"):
            assert main(["release", "status", "--admin", url]) == 2
            said = capsys.readouterr().err
            assert words in said
            assert said.count("\n") == 1
        thread.join(10)
    for wrong in ("http://[::1", "http://127.0.0.1:port", "http://", "ftp://127.0.0.1:8801"):
        assert main(["release", "status", "--admin", wrong]) == 2
        assert f"--admin: got {wrong!r}; write http://host:port" in capsys.readouterr().err


def test_a_guard_yaml_that_does_not_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SFT_GUARD_ADMIN", raising=False)
    for text, words in (
        ("listen: {admin: '127.0.0.1:0'}\n", "./guard.yaml: listen.admin: got '127.0.0.1:0'; the guard chose a port"),
        ("listen: {admin: nowhere}\n", "./guard.yaml: listen.admin: got 'nowhere'; write host:port"),
        ("listen: 8801\n", "./guard.yaml: listen: got 8801; "),
        ("- a list\n", "./guard.yaml: got ['a list']"),
    ):
        Path("guard.yaml").write_text(text)
        assert main(["release", "status"]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.endswith("or name the guard by --admin\n")
        assert said.count("\n") == 1
    assert main(["release", "status", "-c", "elsewhere.yaml"]) == 2
    assert "elsewhere.yaml" in capsys.readouterr().err
    monkeypatch.setenv("SFT_GUARD_ADMIN", f"127.0.0.1:{free_port()}")
    assert main(["release", "status"]) == 2
    assert "SFT_GUARD_ADMIN: got '127.0.0.1:" in capsys.readouterr().err
