"""Mistakes of a first day with the program: each is one line that says where, what and the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from guard.cli import main
from guard.commands.common import needs_extra
from guard.doctor import examine
from guard.settings import load_settings
from slo.errors import RefusedError
from tests.log_kit import START_S, write_log
from tests.monitoring_kit import free_port
from tests.slo_builders import make_exchange


def said(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """The one line of a command that fails as it should."""
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_an_admin_address_without_a_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("foo", "127.0.0.1:8801", "ftp://127.0.0.1"):
        told = said(capsys, ["release", "status", "--admin", address])
        assert f"--admin: got {address!r}; write http://host:port" in told


class _Locked(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(401)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def test_no_token_says_which_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SFT_GUARD_TOKEN", raising=False)
    with HTTPServer(("127.0.0.1", 0), _Locked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        error = said(capsys, ["release", "drill", "--admin", f"http://127.0.0.1:{server.server_port}"])
        server.shutdown()
    assert "needs a token: export SFT_GUARD_TOKEN" in error


def test_alerts_build_says_which_addresses_are_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    build = ["alerts", "build", "--slo", str(tmp_path / "slo.yaml"), "--out", str(tmp_path / "out"), "--json"]
    capsys.readouterr()
    assert main(build) == 0
    said = capsys.readouterr()
    examples = json.loads(said.out.splitlines()[-1])["examples"]
    assert examples[0] == "pages go to http://127.0.0.1:9911/pager, an example; --pager-url names yours"
    assert [line.split("; ")[1].split()[0] for line in examples] == [
        "--pager-url", "--ticket-url", "--guard-url", "--alertmanager",
    ]  # fmt: skip
    assert all(f"sft-guard: {line}\n" in said.err for line in examples)
    assert main([*build, "--pager-url", "http://pager.example/hook", "--guard-url", "http://127.0.0.1:8801"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out.splitlines()[-1])["examples"]) == 2
    assert "pager-url" not in said.err
    assert "http://pager.example/hook" in (tmp_path / "out" / "alertmanager.yml").read_text()


def test_a_rule_file_that_is_not_there_says_what_writes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("guard.commands.lora_rules._documents", lambda _directory: {})
    error = said(capsys, ["lora", "rules", "apply", "--rules", str(tmp_path / "none.yaml"), "--kb", "kb"])
    assert "or make one with `sft-guard lora rules suggest`" in error
    assert "init" not in error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'peft'", name="peft"), "peft is not installed; pip install"),
        (ImportError("\nAutoModel requires the PyTorch library\nbut"), "AutoModel requires the PyTorch library; pip"),
    ],
    ids=["module", "words"],
)
def test_a_missing_library_is_named_with_its_extra(error: ImportError, words: str) -> None:
    def run(_args: Namespace) -> int:
        raise error

    with pytest.raises(RefusedError, match=words) as told:
        needs_extra("lora", run)(Namespace())
    assert str(told.value).endswith("pip install 'sft-guard[lora]'")


def test_a_part_of_the_program_that_is_missing_is_no_extra() -> None:
    def run(_args: Namespace) -> int:
        raise ModuleNotFoundError("No module named 'lora.gone'", name="lora.gone")

    with pytest.raises(ModuleNotFoundError):
        needs_extra("lora", run)(Namespace())


def test_an_adapter_that_is_not_sealed_needs_no_cryptography() -> None:
    """Commands on plain adapters run where only what they use is installed."""
    code = (
        "import sys; sys.modules['cryptography'] = None; import lora.registering, lora.answering, lora.serving.catalog"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


def test_init_says_which_file_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    assert f"{tmp_path / 'guard.yaml'} exists; --force" in said(capsys, ["init", "--dir", str(tmp_path)])


def test_init_writes_nothing_for_a_name_that_would_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = said(capsys, ["init", "--dir", str(tmp_path / "new"), "--service", "My Bot"])
    assert "--service: got 'My Bot'; write lower-case letters" in error
    assert not (tmp_path / "new").exists()


def test_check_reads_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    path = tmp_path / "guard.yaml"
    path.write_text(path.read_text().replace("plan: default", "plan: 20% for"))
    capsys.readouterr()
    assert main(["check", str(path)]) == 2
    assert f"{path}: release.plan[0]: got '20% for'; write stages such as" in capsys.readouterr().out


def test_doctor_says_connection_refused(tmp_path: Path) -> None:
    main(["init", "--dir", str(tmp_path)])
    path = tmp_path / "guard.yaml"
    address = f"http://127.0.0.1:{free_port()}"
    path.write_text(path.read_text().replace("http://127.0.0.1:8810", address).replace("all-MiniLM-L6-v2 ", "none "))
    (found,) = [f for f in examine(load_settings(path), token_present=True) if f.subject == "upstream v1.0.0"]
    assert (found.state, found.text) == ("fault", f"{address}/v1/models: Connection refused")


def test_places_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    slo = str(tmp_path / "slo.yaml")
    assert "name a directory" in said(capsys, ["alerts", "build", "--slo", slo, "--out", slo])
    export = ["slo", "export", "--to", "openslo", "--slo", slo, "--out", str(tmp_path / "none" / "x.yaml")]
    assert "its directory must exist" in said(capsys, export)


def test_the_address_of_the_runbooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    command = ["dashboards", "build", "--slo", str(tmp_path / "slo.yaml"), "--out", str(tmp_path / "g")]
    assert "--runbook-url: got 'wiki'" in said(capsys, [*command, "--runbook-url", "wiki"])
    assert not (tmp_path / "g").exists()


def test_a_report_is_markdown_or_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", "daily", "--log", str(tmp_path), "--out", str(tmp_path / "day.pdf")])
    assert stop.value.code == 2
    assert "write a name that ends in .md or .html" in capsys.readouterr().err


def test_a_log_without_exchanges_cost_nothing_that_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    log = write_log(tmp_path / "empty.jsonl", [])
    assert "no usable exchange" in said(capsys, ["cost", "report", "--log", str(log)])


def test_a_rule_about_a_whole_file_does_not_print_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    path = tmp_path / "guard.yaml"
    path.write_text(path.read_text().replace("stable: v1.0.0", "stable: v2").replace("keep: 30d", "keep: 30 days"))
    assert said(capsys, ["doctor", "-c", str(path)]) == (
        "sft-guard: guard.yaml: exchange_log.keep: got '30 days'; write a duration such as 90s, 10m, 1h, 1h30m or 30d\n"
    )
    path.write_text(path.read_text().replace("keep: 30 days", "keep: 30d"))
    assert said(capsys, ["doctor", "-c", str(path)]) == (
        "sft-guard: guard.yaml: release.stable is `v2`, which is not in versions (v1.0.0)\n"
    )


def test_days_of_a_report_are_days(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cost", "report", "--log", "x", "--days", "0"])
    assert "write a number of days above 0, such as 7" in capsys.readouterr().err


class TestReplay:
    @pytest.fixture
    def command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
        pytest.importorskip("duckdb")
        main(["init", "--dir", str(tmp_path)])
        capsys.readouterr()
        rows = [make_exchange(n, wall_s=START_S + 60.0 * n) for n in range(2000)]
        log = write_log(tmp_path / "log.jsonl", rows)
        return ["slo", "replay", "--slo", str(tmp_path / "slo.yaml"), "--log", str(log), "--rule", "http-errors"]

    def test_a_rule_that_saw_too_little_is_named(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "note: unknown for more than half of the time" in out
        assert "http-errors; lengthen the window or lower min_events" in out

    def test_pictures_of_any_span_come_without_warnings(
        self, command: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        pytest.importorskip("matplotlib")
        for hours in (0.2, 1.0, 2.0, 3.0, 6.0):
            mark = f"{START_S + 36000}/{START_S + 36000 + 3600 * hours}"
            main([*command, "--mark", mark, "--plot", str(tmp_path / "plots")])
        assert [str(w.message) for w in recwarn if w.category is UserWarning] == []

    def test_incidents_from_a_file_that_is_not_there(
        self, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = said(capsys, [*command, "--incidents", str(tmp_path / "none.json")])
        assert "none.json: No such file or directory; name a JSON file or the guard's state directory" in error


@pytest.mark.parametrize("command", ["show", "postmortem"])
def test_an_id_of_any_form_is_asked_for_as_one_id(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with HTTPServer(("127.0.0.1", 0), _Locked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        error = said(
            capsys, ["incident", command, "{'id': 'inc 1'}/..", "--admin", f"http://127.0.0.1:{server.server_port}"]
        )
        server.shutdown()
    assert "needs a token" in error


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    good = {"id": "good", "question": "Leave?", "contexts": ["14 days of leave."], "answer": "14 days of leave."}
    rows.write_bytes(b'{"id": "bad", "question": "\xff\xfe"}\n' + json.dumps(good).encode())
    assert main(["grade", str(rows), "--json"]) == 1
    told = capsys.readouterr()
    assert [json.loads(line)["id"] for line in told.out.splitlines()] == ["good"]
    assert told.err.startswith("sft-guard: line 1: not JSON (")
    assert told.err.count("\n") == 1

    main(["init", "--dir", str(tmp_path)])
    config = tmp_path / "guard.yaml"
    config.write_text(config.read_text() + "admin: {token_file: token}\n")
    (tmp_path / "token").write_bytes(b"\xff" * 32)
    told_of_token = said(capsys, ["serve", "-c", str(config)])
    assert "admin.token_file" in told_of_token
    assert "it is not text" in told_of_token

    (tmp_path / "labelled.jsonl").write_bytes(b"\xff\n\xfe\n")
    assert main(["cost", "advise", "--evaluation-set", str(tmp_path / "labelled.jsonl"), "--json"]) in (0, 1)
    assert '"2 samples"' in capsys.readouterr().out
