"""Checkpoints that survive a kill: written beside, then renamed; a directory under its name is whole.

    checkpoints/step-00000050/adapter_model.safetensors, adapter_config.json, state.pt

state.pt holds what training needs to go on as if nothing had happened: optimiser, chance, the step (from which follow
the place in the data and the learning rate), early stopping and the log so far.
"""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from slo.errors import DataError

DIRECTORY = "checkpoints"
STATE = "state.pt"
KEPT = 2
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapter(model: Any, directory: Path) -> None:
    """Write the adapter as peft reads it; nothing is asked of a hub."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        model.save_pretrained(directory, save_embedding_layers=False, safe_serialization=True)
    (directory / "README.md").unlink(missing_ok=True)  # peft's empty form of a model card; the run card is the record


def write(out: Path, model: Any, state: dict[str, Any]) -> Path:
    """Write the checkpoint of state["step"]; returns its directory.

    Raises:
        DataError: the disk does not take it.
    """
    final = path_of(out, int(state["step"]))
    beside = final.with_name(f".{final.name}.{os.getpid()}")
    from safetensors import SafetensorError

    try:
        if final.exists():
            return final
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_adapter(model, beside)
        torch.save(state, beside / STATE)
        for path in beside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        beside.rename(final)
        _sync_directory(final.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is each library's own error
        shutil.rmtree(beside, ignore_errors=True)
        raise DataError(f"{final}: cannot be written ({error}); make room or name another --out") from error
    return final


def path_of(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return out / DIRECTORY / f"step-{step:08d}"


def steps_in(out: Path) -> list[int]:
    """Steps of the whole checkpoints, newest first."""
    names = (path.parent.name.removeprefix("step-") for path in (out / DIRECTORY).glob("step-*/" + STATE))
    return sorted((int(name) for name in names if name.isdecimal() and len(name) == 8), reverse=True)


def read_newest(out: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[str]] | None:
    """State and weights of the newest checkpoint that can be read, and what was passed over; None without any.

    Raises:
        DataError: there are checkpoints, and none can be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    passed_over = list[str]()
    for step in steps_in(out):
        directory = path_of(out, step)
        try:
            state = torch.load(directory / STATE, map_location="cpu", weights_only=True)
            return state, load_file(directory / WEIGHTS), passed_over
        except (
            OSError,
            RuntimeError,
            EOFError,
            ValueError,
            KeyError,
            pickle.UnpicklingError,
            SafetensorError,
        ) as error:
            passed_over.append(f"{directory}: cannot be read ({str(error)[:80]}); the one before it is taken")
    if passed_over:
        raise DataError(f"{out / DIRECTORY}: no checkpoint can be read; begin again in a new directory")
    return None


def load_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put the weights of a checkpoint into the adapter."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, weights)


def prune(out: Path, keep: int) -> None:
    """Remove all checkpoints but the newest two and that of step `keep`, and what a killed run left half written."""
    for step in steps_in(out)[KEPT:]:
        if step != keep:
            shutil.rmtree(path_of(out, step), ignore_errors=True)
    for path in (out / DIRECTORY).glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
