"""Doctor's lines on contexts, drift, intents, probes and the state directory."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from guard.checks.drift import Reference
from guard.cli import main
from guard.doctor import Diagnosis, _state, _token_cure
from guard.examine_files import examine_files
from guard.settings import load_settings
from slo.types import CheckResult, Finding
from tests.log_kit import write_log
from tests.slo_builders import make_exchange


@pytest.fixture
def config(tmp_path: Path) -> Path:
    main(["init", "--dir", str(tmp_path)])
    return tmp_path / "guard.yaml"


def lines(config: Path) -> dict[str, tuple[str, str, str]]:
    return {subject: (state, text, cure) for state, subject, text, cure in examine_files(load_settings(config))}


def route_of(config: Path) -> str:
    return load_settings(config).routes[0].name


def test_contexts_are_tried_on_the_last_answers(config: Path) -> None:
    route = route_of(config)
    state, text, _ = lines(config)[f"contexts of {route}"]
    assert state == "ok"
    assert "no answer in the exchange log yet" in text
    seen, unseen = (
        replace(make_exchange(), route=route, findings=(Finding("zero_hit", result, None, ""),))
        for result in (CheckResult.PASS, CheckResult.SKIPPED)
    )
    log = config.parent / "state" / "exchanges" / "a.jsonl"
    log.parent.mkdir(parents=True)
    for known, state, words in ((10, "ok", "found in 10 of the last 10"), (3, "warn", "found in 3 of the last 10"),
                                (0, "fault", "found in 0 of the last 10")):  # fmt: skip
        write_log(log, [seen] * known + [unseen] * (10 - known))
        found = lines(config)[f"contexts of {route}"]
        assert found[0] == state
        assert words in found[1]
        assert (state == "ok") == (found[2] == "")


def test_a_route_without_contexts_is_told(config: Path) -> None:
    text = config.read_text()
    start = text.index("    contexts:")
    config.write_text(text[:start] + text[text.index("\n", start) + 1 :])
    state, text, cure = lines(config)[f"contexts of {route_of(config)}"]
    assert (state, "no answer of this route is checked" in text, "body: PATH" in cure) == ("warn", True, True)


def test_drift_intents_and_probes(config: Path) -> None:
    assert lines(config)["drift"][:2] == ("ok", "no reference: it is learnt from the first questions of stable")
    here = config.parent
    route = route_of(config)
    (here / "intents.yaml").write_text("intents: [{name: leave, examples: [how much leave, leave days]}]")
    (here / "probes.yaml").write_text("probes: [{question: a, documents: [d1]}, {question: b, reference: c}]")
    (here / "ref.json").write_bytes(msgspec.json.encode(Reference("hashed", 40, (1.0, 0.0))))
    checks = (
        f"\nchecks:\n  embedder: none\n  intents: intents.yaml\n  drift: {{reference: ref.json}}\n"
        f"  probes: {{file: probes.yaml, route: {route}, every: 10s, per_hour: 100}}\n"
    )
    config.write_text(config.read_text().partition("\nchecks:")[0] + checks)
    found = lines(config)
    assert found["intents"][:2] == ("ok", "1 intents, 2 examples in intents.yaml")
    assert found["probes"][0] == "warn"
    assert (
        "2 questions in probes.yaml: 1 by document, 1 by answer; one release alone needs 720 requests"
        in (found["probes"][1])
    )
    assert found["drift"][0] == "warn"
    assert "compared with 40 questions in ref.json, read by hashed: few" in found["drift"][1]
    for name in ("intents.yaml", "probes.yaml", "ref.json"):
        (here / name).unlink()
    assert [lines(config)[subject][0] for subject in ("intents", "probes", "drift")] == ["fault"] * 3


def test_doctor_goes_on_without_the_secrets_and_says_which(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("BOT_TOKEN", "HOOK_SECRET", "HOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    more = "\nadmin: {token_env: BOT_TOKEN}\nwebhooks:\n  - {name: pager, url_env: HOOK_URL, secret_env: HOOK_SECRET}\n"
    config.write_text(config.read_text().replace("embedder: static", "embedder: none") + more)
    capsys.readouterr()
    assert main(["doctor", "-c", str(config), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    said = [f["text"] for f in findings if f["subject"] == "environment"]
    assert said == [
        f"{name} is not set in this shell ({place}): `serve` would not start from it"
        for name, place in (("BOT_TOKEN", "admin.token_env"), ("HOOK_SECRET", "webhooks[0].secret_env"),
                            ("HOOK_URL", "webhooks[0].url_env"))
    ]  # fmt: skip
    subjects = {f["subject"] for f in findings}
    assert "upstream v1.0.0" in subjects
    assert not subjects & {"admin token", "webhook pager"}
    assert main(["check", str(config), "--json"]) == 2
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [e["value"] for e in told["errors"]] == ["'BOT_TOKEN'", "'HOOK_SECRET'", "'HOOK_URL'"]
    assert [d["kind"] for d in told["checked"]] == ["slo"]  # the files that it names are checked all the same
    config.write_text(config.read_text() + "nonsense: 1\n")
    assert main(["doctor", "-c", str(config)]) == 2


def test_a_state_directory_that_cannot_be_is_named(config: Path) -> None:
    def said(value: Path) -> Diagnosis:
        head, _, tail = config.read_text().partition("state_dir: ")
        config.write_text(f"{head}state_dir: {value}\n{tail.partition(chr(10))[2]}")
        return next(iter(_state(load_settings(config))))

    if "state_dir: " not in config.read_text():
        config.write_text(config.read_text() + "\nstate_dir: state\n")
    (config.parent / "file").write_text("x")
    below = config.parent / "file" / "state"
    found = said(below)
    assert found.state == "fault"
    assert found.text == f"guard.yaml: state_dir: {below} cannot be created: {below.parent} is a file, not a directory"
    assert said(below.parent).text == f"guard.yaml: state_dir: {below.parent} is a file, not a directory"
    (config.parent / "gone").symlink_to(config.parent / "nowhere")
    assert said(config.parent / "gone").text.endswith("is a link that leads nowhere")
    found = said(Path("/proc/sft-guard-state"))
    assert "cannot be created in /proc: " in found.text
    assert "write /proc (chown, chmod)" in found.cure
    (config.parent / "open").mkdir(mode=0o755)
    (config.parent / "open").chmod(0o755)
    assert said(config.parent / "open").text.endswith("open to other users")


@pytest.mark.parametrize(
    ("mode", "owner", "cure"),
    [
        (0o600, 10001, ""),
        (0o640, 10001, "chmod 600 %s"),
        (0o644, 10001, "chmod 600 %s"),
        (0o440, 0, ""),  # a secret of Kubernetes: of root, for the group of the pod; the guard cannot change it
        (0o444, 0, "let its owner run: chmod o= %s"),
    ],
)
def test_a_token_that_its_owner_shares_with_our_group_is_no_fault(mode: int, owner: int, cure: str) -> None:
    found = os.stat_result((0o100000 | mode, 1, 1, 1, owner, 10001, 48, 0, 0, 0))
    assert _token_cure(found, 10001) == cure
