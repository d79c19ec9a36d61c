"""Training speed on one GPU: `lora train`'s loop against a plain Transformers Trainer with the practice's settings.

    python -m bench.lora_gpu --out gpu.json            a GPU with 24 GB and more; under three minutes on an H100
    python -m bench.lora_gpu --tiny                    the same code on any processor, in seconds, for a look at it

The model has the shape of Qwen2.5-1.5B and weights of chance; 393 rows of chance, 4 epochs, effective batch 8.
Nothing is read from a disk or a hub. Needs torch, transformers, peft, accelerate and numpy.

  ours, like   rows as long as the practice's: 40 to 192 tokens, 112 in the mean
  ours, full   every row 192 tokens long: nothing is saved by leaving pads out
  trainer      float32, every row padded to 192; what it costs does not depend on how long the rows are
  compiled     ours, like, with the layers through torch.compile (--compile)

Share of the peak: the work that training an adapter needs, over 989 TFLOP/s (H100 SXM, bfloat16, dense; NVIDIA's data
sheet). Needed: forward 2 and backward to the inputs 2 operations for each weight of the layers and each real token, the
same for the output matrix and each token of an answer, 6 for each adapter weight; attention itself is left out. The
frozen weights get no gradient, so the usual 6 for each weight would be too much.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # noqa: TID251 - peft would ask a hub for the base of a model that has none

PEAK_FLOPS = 989e12
ROWS, EVAL_ROWS, LONGEST, EPOCHS = 393, 85, 192, 4
SHAPE = {
    "vocab_size": 151_936, "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "intermediate_size": 8960, "tie_word_embeddings": True, "max_position_embeddings": 1024,
}  # fmt: skip
TINY = SHAPE | {"vocab_size": 512, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 96}  # fmt: skip


class Quiet:
    """A report that keeps losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.note = ""

    def began(self, first_step: int, total: int, note: str) -> None:
        self.note = note

    def logged(self, row: dict[str, Any]) -> None:
        if "loss" in row:
            self.losses.append(row["loss"])


def rows_of(count: int, vocabulary: int, *, full: bool, seed: int) -> list[Any]:
    """Rows of chance: a fifth of each is the question. Lengths by a normal distribution around 112, cut to 40..192."""
    from lora.training.encode import IGNORED, Encoded

    chance = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = LONGEST if full else int(np.clip(chance.normal(112, 36), 40, LONGEST))
        ids = tuple(int(n) for n in chance.integers(10, vocabulary, length))
        asked = length // 5
        made.append(Encoded(ids, (IGNORED,) * asked + ids[asked:]))
    return made


def model_of(shape: dict[str, Any], device: Any, dtype: Any) -> Any:
    """A Qwen2 of this shape with weights of chance."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(Qwen2Config(**shape), dtype=dtype, attn_implementation="sdpa")


def needed_flops(model: Any, rows: list[Any], epochs: float) -> float:
    """Operations that training an adapter on these rows needs; see the top of this file."""
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for p in model.parameters()) - adapter - head
    tokens, answers = sum(len(row.ids) for row in rows), sum(row.answer_tokens for row in rows)
    return epochs * (4.0 * layers * tokens + 4.0 * head * answers + 6.0 * adapter * tokens)


def ours(args: argparse.Namespace, *, full: bool, compiled: bool = False) -> dict[str, Any]:
    """One run of the loop, evaluations and checkpoints included."""
    from lora.training.loop import Training
    from lora.training.model import device_of, dtype_on, with_adapter
    from lora.training.plan import TrainPlan

    device = device_of("auto")
    rows = rows_of(args.rows, args.shape["vocab_size"], full=full, seed=1)
    held_back = rows_of(args.eval_rows, args.shape["vocab_size"], full=full, seed=2)
    plan = TrainPlan(epochs=args.epochs, patience=0, layout="packed").resolved(len(rows))
    model = with_adapter(model_of(args.shape, device, dtype_on(device)), plan)
    told = Quiet()
    with tempfile.TemporaryDirectory() as out:
        _settle(device, model)
        training = Training(
            model, rows, held_back, plan, pad_id=0, report=told, out=Path(out), graphs=not args.no_graphs,
            compiled=compiled,
        )  # fmt: skip
        result = training.run()
    return {
        **_figures(model, rows, args, result.wall_s, result.train_s, result.peak_bytes, told.losses),
        "eval_loss": result.eval_loss, "steps": result.steps, "note": told.note,
    }  # fmt: skip


def trainer(args: argparse.Namespace) -> dict[str, Any]:
    """The same by a Transformers Trainer: float32, padded to the longest length there is, evaluated each epoch."""
    import torch
    from transformers import Trainer, TrainingArguments

    from lora.training.model import device_of, with_adapter
    from lora.training.plan import TrainPlan

    device = device_of("auto")
    plan = TrainPlan(epochs=args.epochs).resolved(args.rows)
    model = with_adapter(model_of(args.shape, device, torch.float32), plan)
    rows = rows_of(args.rows, args.shape["vocab_size"], full=False, seed=1)
    held_back = rows_of(args.eval_rows, args.shape["vocab_size"], full=False, seed=2)
    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            output_dir=out, per_device_train_batch_size=plan.batch, gradient_accumulation_steps=plan.accumulate,
            per_device_eval_batch_size=plan.batch, learning_rate=plan.learning_rate, lr_scheduler_type="cosine",
            warmup_steps=plan.warmup_steps or 0, num_train_epochs=plan.epochs, weight_decay=plan.weight_decay,
            max_grad_norm=plan.max_grad_norm, logging_steps=1 if args.tiny else 10,
            eval_strategy="epoch", save_strategy="no", report_to=[],
            disable_tqdm=True, seed=0, remove_unused_columns=False, dataloader_pin_memory=False,
            use_cpu=device.type == "cpu",
        )  # fmt: skip
        run = Trainer(
            model=model, args=settings, train_dataset=_padded(rows), eval_dataset=_padded(held_back),
            data_collator=_collated,
        )  # fmt: skip
        _settle(device, model)
        began_s = time.monotonic()
        run.train()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall_s = time.monotonic() - began_s
    log = run.state.log_history
    eval_s = sum(row["eval_runtime"] for row in log if "eval_runtime" in row)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    losses = [float(row["loss"]) for row in log if "loss" in row]
    made = _figures(model, rows, args, wall_s, wall_s - eval_s, peak, losses)
    return {**made, "padded_tokens": args.rows * LONGEST * args.epochs, "steps": run.state.global_step}


def _padded(rows: list[Any]) -> list[dict[str, list[int]]]:
    from lora.training.encode import IGNORED

    made = []
    for row in rows:
        pads = LONGEST - len(row.ids)
        made.append({
            "input_ids": [*row.ids, *[0] * pads], "attention_mask": [1] * len(row.ids) + [0] * pads,
            "labels": [*row.labels, *[IGNORED] * pads],
        })  # fmt: skip
    return made


def _collated(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    import torch

    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def _settle(device: Any, model: Any) -> None:
    """Start what starts once a process (kernels are loaded at their first use), and forget the peak so far."""
    import torch

    if device.type == "cuda":
        ids = torch.zeros((2, 64), dtype=torch.long, device=device)
        model(input_ids=ids, labels=ids).loss.backward()
        for parameter in model.parameters():
            parameter.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _figures(
    model: Any, rows: list[Any], args: argparse.Namespace, wall_s: float, train_s: float, peak: int, losses: list[float]
) -> dict[str, Any]:
    tokens = round(sum(len(row.ids) for row in rows) * args.epochs)
    flops = needed_flops(model, rows, args.epochs)
    return {
        "wall_s": round(wall_s, 2), "train_s": round(train_s, 2), "tokens": tokens,
        "tokens_per_s": round(tokens / train_s), "share_of_peak": round(flops / train_s / PEAK_FLOPS, 4),
        "share_of_peak_wall": round(flops / wall_s / PEAK_FLOPS, 4), "peak_gib": round(peak / 2**30, 2),
        "first_loss": round(losses[0], 4), "last_loss": round(losses[-1], 4),
    }  # fmt: skip


def main() -> int:
    """Measure, stage by stage; each is printed when it is done, so that an end that comes early loses only the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a model of 100,000 weights and 24 rows")
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--no-graphs", action="store_true", help="ours without CUDA graphs")
    parser.add_argument("--no-trainer", action="store_true", help="ours alone")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    args = parser.parse_args()
    args.shape, args.rows, args.eval_rows = (TINY, 24, 8) if args.tiny else (SHAPE, ROWS, EVAL_ROWS)
    import torch
    import transformers

    gpu = torch.cuda.is_available()
    if args.tiny:
        torch.set_num_threads(1)
    if not gpu and not args.tiny:
        sys.stderr.write("bench.lora_gpu: torch finds no GPU here; --tiny runs the same code on a processor\n")
        return 2
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if gpu else "cpu", "torch": torch.__version__,
        "transformers": transformers.__version__, "rows": args.rows, "epochs": args.epochs,
    }  # fmt: skip
    stages = [("ours_like", lambda: ours(args, full=False)), ("ours_full", lambda: ours(args, full=True))]
    if not args.no_trainer:
        stages.append(("trainer", lambda: trainer(args)))
    if args.compile:
        stages.append(("compiled_like", lambda: ours(args, full=False, compiled=True)))
    for name, stage in stages:
        try:
            found[name] = stage()
        except Exception as error:  # One stage that fails must not lose the others' figures.
            found[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        if gpu:
            torch.cuda.empty_cache()
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    for name in ("ours_like", "ours_full", "compiled_like"):
        if "wall_s" in found.get(name, {}) and "wall_s" in found.get("trainer", {}):
            found[name]["times_faster"] = round(found["trainer"]["wall_s"] / found[name]["wall_s"], 2)
    print(json.dumps(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if any("failed" in found[name] for name, _ in stages) else 0


if __name__ == "__main__":
    raise SystemExit(main())
