"""`lora train` as a user runs it: in a process that is killed, with files that are wrong, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from guard.cli import main
from lora.dataset import DataSet, Plan
from lora.dataset_files import write_dataset
from lora.training.record import held
from tests.lora_models import quiet, tiny_base, tiny_dataset

ARGUMENTS = ("--rate", "5e-3", "--epochs", "3", "--threads", "1", "--save-every", "5", "--no-plots")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    place = tmp_path_factory.mktemp("train")
    tiny_base(place / "base")
    data = tiny_dataset(3)
    write(place / "data", DataSet(data.train, data.validation, data.test))
    return place


def write(directory: Path, data: DataSet) -> None:
    write_dataset(directory, data, Plan(seed=1), source={}, phrasings_sha256="", wall_s=0.0, who="ada")


def command(place: Path, out: Path, *more: str) -> list[str]:
    return ["lora", "train", "--data", str(place / "data"), "--base", str(place / "base"), "--out", str(out), "--json",
            *ARGUMENTS, *more]  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def eval_losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row["eval_loss"] for row in rows if "eval_loss" in row]


def test_killed_and_resumed_it_ends_where_the_uninterrupted_run_ends(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, command(place, tmp_path / "whole", "--textfile", str(tmp_path / "train.prom")))
    whole = json.loads(out)
    assert code == 0
    killed = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "guard.cli", *command(place, killed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(killed.glob("checkpoints/step-*")):
            assert child.poll() is None, child.stderr and child.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert json.loads((killed / "run_card.json").read_text())["status"] == "running"
    code, _, said = run(capsys, command(place, killed))
    assert code == 2
    assert "holds a run; go on with it by --resume" in said
    code, out, _ = run(capsys, command(place, killed, "--resume"))
    resumed = json.loads(out)
    assert code == 0
    left = {path.name: path.read_bytes() for path in killed.iterdir() if path.is_file()}
    code, _, said = run(capsys, command(place, killed, "--resume", "--seed", "9"))
    assert code == 2
    assert "was begun otherwise: seed 0 -> 9" in said
    assert {path.name: path.read_bytes() for path in killed.iterdir() if path.is_file()} == left
    assert resumed["result"]["resumed_at"] >= 5
    assert resumed["result"]["steps"] == whole["result"]["steps"]
    # The same processor adds in the same order: not near, the same.
    assert eval_losses(killed) == eval_losses(tmp_path / "whole")
    assert resumed["adapter"] == whole["adapter"]
    check_what_it_left(place, tmp_path / "whole", whole, (tmp_path / "train.prom").read_text())


def check_what_it_left(place: Path, out: Path, card: dict[str, Any], textfile: str) -> None:
    assert card["trained_by"]
    assert card["data"]["rows"]["train"] == card["settings"]["row_count"]
    assert card["base"]["weights_sha256"]
    assert {"torch", "peft", "transformers", "device"} <= card["environment"].keys()
    assert card["result"]["trained_parameters"] < card["result"]["parameters"] / 10
    assert eval_losses(out)[-1] < eval_losses(out)[0]
    assert (out / "RUN.md").read_text().startswith("# Training run")
    assert 'sft_train_running{service="sft-guard-lora",run="whole"} 0' in textfile
    assert f'sft_train_step{{service="sft-guard-lora",run="whole"}} {card["result"]["steps"]}' in textfile


def test_pictures_and_a_resumed_run_that_had_ended(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs the lora extra: pip install 'sft-guard[lora]'")
    arguments = [word for word in command(place, tmp_path / "run", "--epochs", "1") if word != "--no-plots"]
    code, out, _ = run(capsys, arguments)
    made = json.loads(out)
    assert code == 0
    assert [Path(path).name for path in made["plots"]] == ["loss.png", "learning_rate.png", "gradient_norm.png"]
    for path in made["plots"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(capsys, [*arguments, "--resume"])
    assert code == 0
    assert json.loads(out)["adapter"] == made["adapter"]


def test_mistakes_are_one_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(*more: str, data: Path = place / "data") -> str:
        code, _, said = run(capsys, [*command(place, tmp_path / "out", *more), "--data", str(data)])
        assert code == 2
        assert said.count("\n") == 1
        return said

    assert "there are cosine, linear" in line("--schedule", "polynomial")
    assert "train.jsonl: cannot be read" in line(data=tmp_path / "none")
    assert "there are auto, cpu and cuda" in line("--device", "gpu")
    assert "no tokenizer to load" in line("--base", str(tmp_path), "--offline")
    assert "this model has" in line("--targets", "qkv")
    assert "--4bit needs a GPU" in line("--4bit", "--device", "cpu")
    assert "files that end in .prom" in line("--textfile", str(tmp_path / "x.txt"))
    long = tmp_path / "long"
    long.mkdir()
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "leave " * 400}]}
    for name in ("train", "validation"):
        (long / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert "the base model reads 256" in line("--max-length", "4000", data=long)
    with held(tmp_path / "out"):
        assert "another process trains in" in line()
    changed = tmp_path / "changed"
    write(changed, tiny_dataset(2))
    (changed / "train.jsonl").write_bytes((changed / "train.jsonl").read_bytes() + b"\n")
    assert "not what data_card.json says" in line(data=changed)


def test_the_log_of_a_run_that_goes_astray_is_diagnosed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "astray"
    astray = command(place, out, "--rate", "1e9", "--warmup", "0", "--max-grad-norm", "1e9")
    assert run(capsys, astray)[0] == 1
    assert not (out / "adapter").exists()
    code, said, _ = run(capsys, ["lora", "diagnose", str(out), "--json"])
    assert code == 1
    assert json.loads(said)["conditions"][0]["name"] == "exploding_gradients"
