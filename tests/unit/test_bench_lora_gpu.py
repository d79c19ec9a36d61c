"""The speed measurement of training runs on any processor, at a small size, and counts what it says it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

import torch

from bench import lora_gpu
from lora.training.model import with_adapter
from lora.training.plan import TrainPlan
from tests.lora_models import quiet


def test_the_tiny_form_runs_and_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    out = tmp_path / "gpu.json"
    words = ["lora_gpu", "--tiny", "--epochs", "1", "--no-trainer", "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    assert lora_gpu.main() == 0
    found = json.loads(out.read_text())
    assert found["ours_full"]["tokens"] == 24 * 192
    assert found["ours_like"]["tokens"] < found["ours_full"]["tokens"]
    assert found["ours_like"]["steps"] == 3
    assert found["ours_like"]["tokens_per_s"] > 0


def test_needed_operations_by_hand() -> None:
    model = with_adapter(
        lora_gpu.model_of(lora_gpu.TINY, torch.device("cpu"), torch.float32), TrainPlan().resolved(200)
    )
    rows = lora_gpu.rows_of(3, 512, full=True, seed=1)
    hidden, kv, wide, rank = 48, 24, 96, 16
    biases, norms = hidden + 2 * kv, 2 * hidden
    layer = hidden * hidden * 2 + hidden * kv * 2 + 3 * hidden * wide + biases + norms
    adapter = 2 * rank * (2 * (hidden + hidden) + 2 * (hidden + kv))
    tokens, answers = 3 * 192, 3 * (192 - 192 // 5)
    by_hand = 4 * (2 * layer + hidden) * tokens + 4 * 512 * hidden * answers + 6 * adapter * tokens
    assert lora_gpu.needed_flops(model, rows, 1) == pytest.approx(by_hand)
