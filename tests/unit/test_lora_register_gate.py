"""The register's gate: no evaluation of a handful, none of rows that were trained, none without its rules."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from guard.commands.lora_serve import _needs_rules
from lora.adapter_files import adapter_hash
from lora.register_gate import MIN_ROWS, doubts, rules_of
from lora.rule_file import RuleFile
from registry.model import Stage
from slo.errors import ConfigError
from tests.lora_kit import adapter_files
from tests.unit.test_lora_registering import CARD, FIGURES, evaluation, registered, run, store_of, written

__all__ = ["run"]  # the fixture

RULES = json.dumps({"topics": [{"name": "laptop", "question": ["laptop"], "answer": ["laptop"], "kb_id": "d1"}]})
OTHER = RULES.replace("laptop", "phone")
AFTER = "adapter, after rules"


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def with_rules(text: str = RULES, **more: Any) -> dict[str, Any]:
    decision = {"passed": True, "scenario": "internal-kb", "minimum": 0.85, "reasons": [], "decided_on": AFTER}
    rules = {"file": "rules.yaml", "sha256": digest(text)}
    return evaluation(decision=decision, rules=rules, sides={"adapter": FIGURES, AFTER: FIGURES}, **more)


def said_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return said


@pytest.mark.parametrize(("count", "opens"), [(1, False), (MIN_ROWS - 1, False), (MIN_ROWS, True), (None, False)])
def test_an_evaluation_of_a_handful_opens_nothing(count: int | None, opens: bool) -> None:
    few = evaluation(sides={"adapter": {**FIGURES, "count": count}})
    found = doubts(few, CARD)
    assert bool(found) is not opens
    assert opens or f"{count} questions were asked, at least 30" in found[0]


def test_the_register_refuses_a_handful_unless_somebody_says_how_many_are_enough(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(run, evaluation(sides={"adapter": {**FIGURES, "count": 1}}))
    assert registered(run, "--stage") == 1
    said = said_of(capsys)
    assert (said["stage"], said["passed"]) == ("None", False)
    assert "1 questions were asked, at least 30" in said["evaluation"]["evidence"][0]
    registry = ["--registry", f"sqlite:///{run.parent}/registry.sqlite", "--actor", "eve"]
    assert main(["registry", "transition", "hr-rules", said["version"], "Staging", *registry]) == 2
    assert "Staging is closed to it: 1 questions were asked" in capsys.readouterr().err
    assert registered(run, "--stage", "--min-rows", "0") == 2
    assert "--min-rows: got 0" in capsys.readouterr().err
    assert registered(run, "--stage", "--min-rows", "1") == 0
    said = said_of(capsys)
    assert (said["stage"], said["evaluation"]["min_rows"]) == ("Staging", 1)  # who lowers it leaves a trace


def test_rows_of_the_training_open_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"train.jsonl": "aa11", "validation.jsonl": "bb22"}
    (run / "run_card.json").write_text(json.dumps({**CARD, "data": {**CARD["data"], "files": files}}))
    for asked, opens in (("aa11", False), ("bb22", False), ("cd34", True)):
        written(run, evaluation(set={"sha256": asked, "data_sha256": "ab12"}))
        assert registered(run, "--stage") == (0 if opens else 1)
        evidence = said_of(capsys)["evaluation"].get("evidence", [])
        assert opens or "of its own training; evaluate on rows that it has not seen" in evidence[0]


def test_trained_questions_under_another_name_are_found_while_the_file_is_there(run: Path) -> None:
    def row(number: int) -> str:
        messages = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a"}]
        return json.dumps({"messages": messages, "rule": "", "group": "", "style": "", "lang": "en", "kind": "refusal"})

    from lora.registering import prepare

    data = run.parent / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(row(n) + "\n" for n in range(50)), encoding="utf-8")
    about = {"directory": str(data), "files": {"train.jsonl": sha256((data / "train.jsonl").read_bytes()).hexdigest()}}
    (run / "run_card.json").write_text(json.dumps({**CARD, "data": {**CARD["data"], **about}}))
    written(run, evaluation(rows=[{"question": f"q{n}"} for n in range(40)]))
    ready = prepare(run, None, adapter=run / "adapter")
    assert (ready.passed, ready.doubts[0][:33]) == (False, "40 of its 40 questions were train")
    written(run, evaluation(rows=[{"question": f"q{n}"} for n in range(48, 148)]))  # 2 of 100
    assert prepare(run, None, adapter=run / "adapter").passed
    (data / "train.jsonl").write_text("changed", encoding="utf-8")
    written(run, evaluation(rows=[{"question": f"q{n}"} for n in range(40)]))
    assert prepare(run, None, adapter=run / "adapter").passed  # nobody can tell any more


def test_an_adapter_judged_with_rules_is_registered_with_them_or_not_staged(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, other = tmp_path / "rules.yaml", tmp_path / "other.yaml"
    rules.write_text(RULES)
    other.write_text(OTHER)
    written(run, with_rules())
    assert registered(run, "--stage") == 1
    assert "name the file with --rules" in said_of(capsys)["evaluation"]["evidence"][0]
    assert registered(run, "--stage", "--rules", str(other)) == 1
    assert f"judged with the rules {digest(RULES)[:12]}, not with" in said_of(capsys)["evaluation"]["evidence"][0]
    assert registered(run, "--stage", "--rules", str(tmp_path / "none.yaml")) == 2
    assert registered(run, "--stage", "--rules", str(rules)) == 0
    capsys.readouterr()
    (version,) = store_of(run).versions("hr-rules")
    assert (version.stage, version.meta["rules_sha256"]) == (Stage.STAGING, digest(RULES))
    assert doubts(evaluation(), CARD, rules_sha256=digest(OTHER))[0].startswith("it was judged without rules")
    assert (rules_of(evaluation()), rules_of(with_rules())) == ("", digest(RULES))


def test_rules_in_force_are_those_that_the_model_was_judged_with_also_after_a_change(tmp_path: Path) -> None:
    place, said = tmp_path / "rules.yaml", []
    place.write_text(RULES)
    with pytest.raises(ConfigError, match="the model behind them was judged with 000000000000"):
        RuleFile(place, said.append, only="0" * 64)
    with pytest.raises(ConfigError, match="was judged without rules"):
        RuleFile(place, said.append, only="")
    rules = RuleFile(place, said.append, only=digest(RULES))
    place.write_text(OTHER + "\n")
    rules.look()
    assert (rules.sha256, len(said)) == (digest(RULES), 1)
    assert "change refused" in said[0]
    assert "evaluate it with these" in rules.note


def test_kb_serve_refuses_other_rules_than_the_evaluation_names(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(run, with_rules())
    (tmp_path / "rules.yaml").write_text(OTHER)
    kb = str(tmp_path / "kb")
    assert main(["kb", "init", "--kb", kb]) == 0
    capsys.readouterr()
    serve = [
        "kb",
        "serve",
        "--kb",
        kb,
        "--model-url",
        "http://127.0.0.1:9/v1",
        "--evaluation",
        f"{run}/evaluation.json",
    ]
    assert main(serve) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"was judged with the rules {digest(RULES)[:12]}; name that file" in line
    assert main([*serve, "--rules", str(tmp_path / "rules.yaml")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"these rules are {digest(OTHER)[:12]}, the model behind them was judged with {digest(RULES)[:12]}" in line


def test_lora_serve_says_that_it_does_not_apply_the_rules_it_was_judged_with(run: Path) -> None:
    files = adapter_files()
    written(run, with_rules())
    assert f"judged with the rules {digest(RULES)[:12]}, which are not applied here" in _needs_rules(
        str(run / "adapter"), files
    )
    written(run, evaluation())
    assert _needs_rules(str(run / "adapter"), files) == ""
    written(run, with_rules(model={"adapter_sha256": adapter_hash({**files, "adapter_config.json": b"{}"})}))
    assert _needs_rules(str(run / "adapter"), files) == ""  # of another one
    assert _needs_rules("sealed:hr-rules@v1", files) == ""
