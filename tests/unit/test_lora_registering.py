"""Adapters in the registry: lineage, evaluation, the gate before Staging, and the baseline's `current` similarity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from lora.adapter_files import adapter_hash
from lora.evaluation import content_sha256
from lora.registering import SIMILARITY, prepare, read_evaluation, with_current
from registry.model import Stage
from registry.store import RegistryStore
from slo.artefact import from_json, sealed, to_json
from slo.baselines import load_baseline
from slo.errors import DataError, RefusedError
from slo.spec import parse_slo
from slo.thresholds import Known, limit_for
from tests.lora_kit import WALL_S, adapter_directory, adapter_files

FIGURES = {"count": 120, "similarity": 0.91, "accuracy": 0.8, "high_quality": 0.85, "poor": 0.02, "hallucinated": 0.01}
CARD = {
    "trained_by": "ann", "base": {"name": "tiny"}, "ended_wall_s": WALL_S, "data": {"card": {"data_sha256": "ab12"}},
    "settings": {"learning_rate": 2e-4, "epochs": 4, "row_count": 393},
}  # fmt: skip


def evaluation(passed: bool = True, **more: Any) -> dict[str, Any]:
    reasons = [] if passed else ["average similarity 41.0%, at least 85% for internal FAQ"]
    content = {
        "version": 1, "passed": passed, "summary": FIGURES, "sides": {"adapter": FIGURES}, "embedder": "static",
        "decision": {"passed": passed, "scenario": "internal-kb", "minimum": 0.85, "reasons": reasons,
                     "decided_on": "adapter"},
        "set": {"sha256": "cd34", "data_sha256": "ab12"}, "rows": [], "made_wall_s": WALL_S,
        "model": {"base": "tiny", "adapter_sha256": adapter_hash(adapter_files())}, **more,
    }  # fmt: skip
    return {**content, "sha256": content_sha256(content)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as training and evaluation leave it."""
    adapter_directory(tmp_path / "run" / "adapter")
    (tmp_path / "run" / "run_card.json").write_text(json.dumps(CARD))
    written(tmp_path / "run", evaluation())
    return tmp_path / "run"


def written(run: Path, found: dict[str, Any]) -> None:
    (run / "evaluation.json").write_text(json.dumps(found))


def registered(run: Path, *more: str) -> int:
    place = f"sqlite:///{run.parent}/registry.sqlite"
    return main(["lora", "register", str(run), "--name", "hr-rules", "--registry", place, "--commit", "3fe2",
                 "--actor", "bob", "--json", *more])  # fmt: skip


def store_of(run: Path) -> RegistryStore:
    return RegistryStore(f"sqlite:///{run.parent}/registry.sqlite")


def test_what_it_was_made_of_and_what_it_is_worth(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert registered(run, "--stage") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["version"], said["stage"], said["passed"]) == (f"lora+{WALL_S:.0f}", "Staging", True)
    store = store_of(run)
    version = store.version("hr-rules", said["version"])
    assert version.stage is Stage.STAGING
    assert version.meta["adapter_sha256"] == adapter_hash(adapter_files())
    assert (version.meta["artifact_type"], version.meta["base_model"], version.meta["sealed"]) == (
        "LoRAAdapter", "tiny", False,
    )  # fmt: skip
    lineage = version.lineage
    assert (lineage.created_by, lineage.data_hash, lineage.git_commit) == ("ann", "ab12", "3fe2")
    assert lineage.parameters["learning_rate"] == 2e-4
    (kept,) = store.evaluations("hr-rules", said["version"])
    assert (kept.name, kept.result["similarity"], kept.result["passed"]) == ("lora-eval", 0.91, True)
    assert kept.result["evaluation_sha256"] == evaluation()["sha256"]
    assert registered(run, "--stage") == 0  # again: the same version, one evaluation
    assert len(store.versions("hr-rules")) == 1
    assert len(store.evaluations("hr-rules", said["version"])) == 1


def test_a_failed_gate_keeps_it_out_of_staging_whoever_asks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(run, evaluation(passed=False))
    assert registered(run, "--stage", "--baseline", str(run / "baseline.json")) == 1
    assert not (run / "baseline.json").exists()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["stage"], said["passed"]) == ("None", False)
    registry = ["--registry", f"sqlite:///{run.parent}/registry.sqlite", "--actor", "eve"]
    assert main(["registry", "transition", "hr-rules", said["version"], "Staging", *registry]) == 2
    line = capsys.readouterr().err.strip()
    assert "lora-eval failed, Staging is closed to it: average similarity 41.0%, at least 85%" in line
    assert "\n" not in line
    written(run, evaluation())
    assert registered(run, "--stage") == 0  # a better evaluation of the same adapter opens it


def test_rolling_back_to_a_version_whose_gate_failed_wants_a_word(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert registered(run, "--stage") == 0
    version = json.loads(capsys.readouterr().out.splitlines()[-1])["version"]
    store = store_of(run)
    store.create_version("hr-rules", "next", actor="ann", lineage=store.version("hr-rules", version).lineage)
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        store.transition("hr-rules", "next", stage, actor="ann")
    written(run, evaluation(passed=False))
    assert registered(run) == 0  # evaluated again, and found too weak
    back = ["registry", "transition", "hr-rules", "next", "Staging", "--rollback-to", version, "--reason", "at night",
            "--registry", f"sqlite:///{run.parent}/registry.sqlite", "--actor", "eve"]  # fmt: skip
    capsys.readouterr()
    assert main(back) == 2
    line = capsys.readouterr().err.strip()
    assert "lora-eval failed, Production is closed to it" in line
    assert line.endswith("mend it and evaluate again, or repeat with force, which the audit will say")
    assert store.version("hr-rules", "next").stage is Stage.PRODUCTION
    assert main([*back, "--force"]) == 0
    assert store.version("hr-rules", version).stage is Stage.PRODUCTION
    last = store.audit(1)[0]
    assert (last.actor, last.action) == ("eve", "rollback")
    assert last.detail.startswith("forced, version")
    assert last.detail.endswith("; at night")


def test_not_evaluated_is_not_passed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "evaluation.json").unlink()
    assert registered(run) == 0
    assert registered(run, "--stage") == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["evaluation"]["evidence"] == ["it was not evaluated; run sft-guard lora eval"]
    assert store_of(run).version("hr-rules", said["version"]).stage is Stage.NONE


def test_an_evaluation_of_another_adapter_or_a_changed_one_is_refused(run: Path) -> None:
    written(run, evaluation(model={"adapter_sha256": "0" * 64}))
    with pytest.raises(RefusedError) as caught:
        prepare(run, None, adapter=run / "adapter")
    assert caught.value.reason == "other_adapter"
    for model in ({"base": "tiny", "adapter": "", "adapter_sha256": ""}, {"answers": {"file": "good.jsonl"}}):
        written(run, evaluation(model=model))  # of the base alone, or of answers from anywhere
        with pytest.raises(RefusedError, match="does not say which adapter it is of"):
            prepare(run, None, adapter=run / "adapter")
    (run / "run_card.json").write_text(json.dumps({**CARD, "adapter": {"adapter_model.safetensors": "0" * 64}}))
    written(run, evaluation())
    with pytest.raises(RefusedError, match="is of other weights"):
        prepare(run, None, adapter=run / "adapter")
    written(run, {**evaluation(passed=False), "passed": True})
    with pytest.raises(DataError, match="not what its hash says"):
        read_evaluation(run / "evaluation.json")
    written(run, {"rows": []})
    with pytest.raises(DataError, match="not an evaluation"):
        read_evaluation(run / "evaluation.json")


def test_a_sealed_adapter_is_registered_without_plaintext_on_disk(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = ["--vault", str(run.parent / "vault"), "--keys", str(run.parent / "keys.json")]
    assert main(["lora", "key", "--keys", vault[3]]) == 0
    assert main(["lora", "seal", str(run / "adapter"), "--as", "hr-rules@v3", *vault]) == 0
    for path in (run / "adapter").iterdir():
        path.unlink()
    (run / "adapter").rmdir()
    assert registered(run, "--sealed", "hr-rules@v3", *vault, "--stage") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["artifact_url"] == "vault://hr-rules@v3"
    meta = store_of(run).version("hr-rules", said["version"]).meta
    assert meta["sealed"] is True
    assert meta["adapter_sha256"] == adapter_hash(adapter_files())
    assert len(str(meta["content_sha256"])) == 64
    assert registered(run, "--sealed", "hr-rules@v3") == 2
    assert "--vault" in capsys.readouterr().err


SLO = """
service: hr-bot
objectives:
  - {name: similarity, indicator: sft_quality_similarity_score, window: 1h, threshold: {current: mean, factor: 0.9},
     action: rollback}
"""


def test_the_evaluation_is_the_current_value_of_the_rule(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.91 x 0.9 = 0.819, from the evaluation alone and beside collected traffic."""
    place = run / "baseline.json"
    assert registered(run, "--stage", "--baseline", str(place)) == 0
    (slo,) = parse_slo(SLO).objectives
    baseline = load_baseline(place)
    assert baseline.forced
    limit = limit_for(slo, Known(baseline.created_wall_s + 60, baseline, embedder="static"))
    assert limit.value == pytest.approx(0.819)
    assert "evaluation set of" in limit.source
    assert registered(run, "--baseline", str(place)) == 0  # the same evaluation again is one value
    assert len([m for m in load_baseline(place).measured if m.indicator == SIMILARITY]) == 1


def test_similarities_of_two_embedders_are_no_one_scale(run: Path) -> None:
    ready = prepare(run, None, adapter=run / "adapter")
    made = with_current(None, ready, WALL_S)
    again = from_json(to_json(sealed(made)), "baseline.json")
    assert again.measured[0].value == 0.91
    written(run, evaluation(embedder="all-MiniLM-L6-v2"))
    with pytest.raises(RefusedError, match="evaluate with --embedder static"):
        with_current(made, prepare(run, None, adapter=run / "adapter"), WALL_S)


def test_what_is_no_adapter_is_not_registered(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "evaluation.json").unlink()
    (run / "empty").mkdir()
    assert registered(run, "--adapter", str(run / "empty")) == 2
    assert "adapter_model.safetensors' is missing" in capsys.readouterr().err
    (run / "adapter" / "evil.py").write_text("import os")
    assert registered(run) == 2
    assert "may not be in an adapter" in capsys.readouterr().err
