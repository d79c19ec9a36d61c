"""Commands as a person types them: exit codes, one clear line for a mistake, JSON for machines."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from guard.cli import build_parser, main
from guard.reference import commands_page
from slo.clock import SystemClock
from slo.codec import encode_exchange
from slo.spec import PRESETS
from slo.types import Exchange, Outcome

SUBCOMMANDS = [
    ["init"], ["serve"], ["demo"], ["doctor"], ["check"], ["grade"], ["baseline", "collect"], ["baseline", "show"],
    ["baseline", "capacity"], ["slo", "explain"], ["slo", "replay"], ["slo", "tune"], ["release", "status"],
    ["release", "start"], ["release", "promote"], ["release", "abort"], ["release", "rollback"], ["release", "drill"],
    ["incident", "list"], ["incident", "show"], ["incident", "postmortem"], ["kb", "init"], ["kb", "add"],
    ["kb", "search"], ["kb", "serve"], ["registry", "serve"],
    ["cache", "stats"], ["cache", "inspect"], ["cache", "purge"],
    ["combiner", "train"], ["combiner", "show"],
]  # fmt: skip


@pytest.mark.parametrize("command", SUBCOMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "example:" in text
    assert "--json" in text


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_what_init_writes_is_what_check_accepts(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--preset", preset, "--dir", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path / "guard.yaml"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {c["kind"] for c in result["checked"]} == {"guard", "slo"}
    assert main(["slo", "explain", "--slo", str(tmp_path / "slo.yaml")]) == 0


def test_init_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slo.yaml").write_text("mine")
    assert main(["init", "--dir", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "slo.yaml").read_text() == "mine"
    assert not (tmp_path / "guard.yaml").exists()


def test_check_shows_every_error_of_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    guard, slo = tmp_path / "guard.yaml", tmp_path / "slo.yaml"
    guard.write_text(guard.read_text().replace("mode: recommend", "mode: auto").replace("keep: 30d", "keep: soon"))
    slo.write_text(slo.read_text().replace("window: 1h", "window: 1x", 1))
    capsys.readouterr()
    assert main(["check", str(guard), str(slo)]) == 2
    text = capsys.readouterr().out
    assert "release.mode" in text
    assert "exchange_log.keep" in text
    assert "1x" in text


def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "-c", str(tmp_path / "none.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "sft-guard init" in error
    assert "Traceback" not in error


def test_the_schema_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema", "guard"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "guard.yaml"
    assert main(["check", "--schema", "slo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["title"] == "slo.yaml"


def test_doctor_names_the_fault_and_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    guard = tmp_path / "guard.yaml"
    guard.write_text(guard.read_text().replace("127.0.0.1:8810", "127.0.0.1:9"))  # nobody listens on discard
    capsys.readouterr()
    assert main(["doctor", "-c", str(guard), "--json"]) == 1
    found = {f["subject"]: f for f in json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]}
    assert found["upstream v1.0.0"]["state"] == "fault"
    assert "start it" in found["upstream v1.0.0"]["cure"]
    assert found["guard.yaml"]["state"] == "ok"
    assert found["embedder"]["state"] in ("ok", "warn")


def test_doctor_says_which_languages_the_semantic_cache_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", "--dir", str(tmp_path)])
    guard = tmp_path / "guard.yaml"
    text = guard.read_text()
    assert "\ncache:\n" in text
    section = '\ncache:\n  semantic: {routes: [chat], tenants: ["*"], embedder: none}\n'
    guard.write_text(text.replace("\ncache:\n", section))
    capsys.readouterr()
    main(["doctor", "-c", str(guard), "--json"])
    found = {f["subject"]: f for f in json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]}
    assert found["semantic cache"]["state"] == "warn"
    assert "English: refused" in found["semantic cache"]["text"]
    assert "other languages: refused" in found["semantic cache"]["text"]
    guard.write_text(guard.read_text().replace("routes: [chat], tenants", "routes: [chatt], tenants"))
    assert main(["check", str(guard)]) == 2
    assert "cache.semantic.routes: `chatt`" in capsys.readouterr().out


def test_cache_commands_without_a_guard_are_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["stats"], ["inspect", "3fa1c09b"], ["purge", "--all"]):
        assert main(["cache", *words, "--admin", "http://127.0.0.1:9"]) == 2
        error = capsys.readouterr().err
        assert "http://127.0.0.1:9" in error
        assert "Traceback" not in error
    with pytest.raises(SystemExit):
        main(["cache", "purge", "--admin", "http://127.0.0.1:9"])
    assert "--document" in capsys.readouterr().err


def test_a_release_command_without_a_guard_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", "status", "--admin", "http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_grade_reads_lines_and_keeps_going(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    context = "Employees receive 14 days of annual leave per year. Unused days expire on 31 March."
    lines = [
        json.dumps({"id": "good", "question": "Leave?", "contexts": [context], "answer": "You get 14 days of leave."}),
        "{torn",
        json.dumps({"id": "bad", "question": "Leave?", "contexts": [context], "answer": "You get 30 days of leave."}),
    ]
    rows.write_text("\n".join(lines), encoding="utf-8")
    assert main(["grade", str(rows), "--json"]) == 1
    captured = capsys.readouterr()
    results = {r["id"]: r for r in map(json.loads, captured.out.splitlines())}
    assert results["good"]["hallucinated"] is False
    assert results["bad"]["hallucinated"] is True
    assert 0.0 <= results["good"]["score"] < results["bad"]["score"] <= 1.0
    assert "2" in captured.err  # the line number of the torn one


def test_a_line_in_another_encoding_is_one_bad_line_to_grade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.dumps(
        {"id": "a", "question": "Leave?", "contexts": ["Leave is 14 days."], "answer": "14 days."}
    ).encode()
    latin = '{"id": "b", "question": "caf\xe9"}'.encode("latin-1")
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + row + b"\n" + latin + b"\n" + row.replace(b'"a"', b'"c"'))
    assert main(["grade", str(tmp_path / "rows.jsonl"), "--json"]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == ["a", "c"]
    assert captured.err.startswith("sft-guard: line 2: not JSON")


@pytest.mark.parametrize("option", ["--k", "--context-tokens"])
def test_a_number_of_documents_that_would_answer_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["kb", "init", "--kb", str(tmp_path / "kb")]) == 0
    assert main(["kb", "serve", "--kb", str(tmp_path / "kb"), "--embedder", "none", option, "0"]) == 2
    assert capsys.readouterr().err.startswith(f"sft-guard: {option}: got 0; write 1 or more")


def test_a_baseline_is_collected_shown_and_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--dir", str(tmp_path)]) == 0
    log, out = tmp_path / "exchanges-1.jsonl", tmp_path / "baseline.json"
    start_s = SystemClock().wall_s() - 8 * 3600
    rows = [
        Exchange(f"e{n}", start_s + n * 20, "chat", "r1", "stable", Outcome.OK, 200, duration_s=0.2, cost_usd=0.001)
        for n in range(1200)
    ]
    log.write_bytes(b"\n".join(map(encode_exchange, rows)) + b"\n{torn\n")
    command = ["baseline", "collect", "-c", str(tmp_path / "guard.yaml"), "--log", str(log), "--out", str(out)]
    assert main(command) == 2
    assert "7 days" in capsys.readouterr().err
    assert main([*command, "--force", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert (result["exchange_count"], result["forced"], result["lines_left_out"]) == (1200, True, 1)
    assert "1201" in captured.err  # the line that was left out
    assert main(["baseline", "show", str(out)]) == 0
    assert main(["slo", "explain", "--slo", str(tmp_path / "slo.yaml"), "--baseline", str(out)]) == 0
    assert main([*command, "--force", "--release", "other"]) == 2
    assert main([*command, "--force", "--window", "5x"]) == 2
    assert "write a duration" in capsys.readouterr().err
    out.write_text(out.read_text().replace("1200", "1201"))
    assert main(["baseline", "show", str(out)]) == 2


def test_readme_commands_are_commands() -> None:
    root = Path(__file__).resolve().parents[2]
    text = "\n".join((root / page).read_text(encoding="utf-8") for page in ("README.md", "docs/getting-started.md"))
    lines = [line.split("#")[0].split()[1:] for line in text.splitlines() if line.startswith(".venv/bin/sft-guard")]
    assert len(lines) >= 8
    for words in lines:
        build_parser().parse_args(words)  # exits when a word is unknown


def test_an_unknown_flag_names_the_command_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["kb", "init", "--kb", "kb", "--bogus"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "sft-guard kb init: unknown: --bogus; see sft-guard kb init --help\n"


def test_the_demo_names_the_flag_of_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["demo", "--keep", str(tmp_path), "--data-port", port]) == 2
    assert capsys.readouterr().err.startswith(f"sft-guard: demo --data-port: got '{port}'; Address already in use")


def test_a_question_that_is_not_utf8_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kb", "search", "--kb", str(tmp_path), "q\udcff"]) == 2
    assert (
        capsys.readouterr().err
        == "sft-guard: query: got 'q\\udcff'; this is not UTF-8; check the terminal's encoding\n"
    )


@pytest.mark.parametrize("group", ["kb", "registry", "ft", "route", "baseline", "lora", "release"])
def test_every_group_has_help_with_an_example(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([group, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  sft-guard {group} " in capsys.readouterr().out


def test_ports_of_the_playground_are_not_dropped_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--incident", "--admin-port", "9901"]) == 2
    assert capsys.readouterr().err.startswith("sft-guard: --admin-port: got 9901; leave it out")


def test_a_file_to_grade_that_is_not_there_is_named_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "/nonexistent"]) == 2
    assert "name a file of JSON lines" in capsys.readouterr().err


def test_an_embedder_that_cannot_be_had_is_told_also_when_nothing_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.commands.embedder_status", lambda name: (False, "torch is not installed"))
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    add = ["kb", "add", "--kb", str(tmp_path / "kb"), "--jsonl", str(tmp_path / "rows.jsonl"), "--json"]
    assert main(["kb", "init", "--kb", str(tmp_path / "kb")]) == 0
    assert main(add) == 0
    capsys.readouterr()
    assert main([*add, "--embedder", "all-MiniLM-L6-v2"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["added"], said["notes"]) == (0, ["torch is not installed"])


def test_the_page_of_commands_shows_what_help_shows() -> None:
    page = commands_page()
    assert "default, short, or `20% for 2h`" in page
    assert "%%" not in page
    assert "%(" not in page


def test_rules_behind_a_model_are_checked_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("topics: [{name: vpn, question: [vpn], answer: [vpn], kb_id: it-vpn}]\n")
    assert main(["check", str(rules)]) == 0
    assert "answer rules" in capsys.readouterr().out
    rules.write_text("topics: [{name: vpn, question: ['(a+)+'], answer: [vpn], kb_id: it-vpn}]\n")
    assert main(["check", str(rules)]) == 2
    assert "rules.yaml: topics[0].question" in capsys.readouterr().out


def test_rules_are_explained_to_machines_by_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--dir", str(tmp_path)])
    capsys.readouterr()
    assert main(["slo", "explain", "--slo", str(tmp_path / "slo.yaml"), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["objectives"]}
    p99, similarity = rows["p99"], rows["similarity"]
    assert (p99["limit"], p99["unit"], p99["window_s"], p99["for_s"]) == (1.8, "seconds", 3600.0, 600.0)
    assert (p99["action"], p99["limit_source"], p99["unknown"]) == ("rollback", "agreement 2000 ms - 200 ms", "")
    assert similarity["limit"] is None
    assert "sft-guard baseline collect" in similarity["unknown"]
