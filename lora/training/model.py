"""The base model, its tokenizer, and the adapter on it. Expected failures are one line."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lora.training.plan import TrainPlan
from slo.errors import ConfigError, DataError, RefusedError


def device_of(name: str) -> torch.device:
    """`auto`: the GPU where there is one. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ConfigError("--device", name, "there are auto, cpu and cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device", name, "torch finds no GPU here; see nvidia-smi, or leave the option out")
    return torch.device(name)


def load_tokenizer(base: str, *, offline: bool = False) -> Any:
    """The tokenizer of a model by name or path. Raises DataError."""
    from transformers import AutoTokenizer

    with _one_line(base, "tokenizer"):
        return AutoTokenizer.from_pretrained(base, local_files_only=offline or Path(base).exists())


def load_base(base: str, device: torch.device, *, four_bit: bool = False, offline: bool = False) -> Any:
    """A causal language model by name or path: bfloat16 on a GPU that has it, else float32.

    Raises:
        RefusedError: four_bit where bitsandbytes or a GPU is missing. DataError: cannot be loaded.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {
        "dtype": dtype_on(device), "local_files_only": offline or Path(base).exists(), "use_safetensors": True,
    }  # fmt: skip
    if four_bit:
        options |= _four_bit(device)
    with _one_line(base, "model"):
        model = AutoModelForCausalLM.from_pretrained(base, **options)
    return model if four_bit else model.to(device)  # type: ignore[arg-type]


def dtype_on(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it: the weights do not change, and what is learnt stays in float32."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def with_adapter(model: Any, plan: TrainPlan) -> Any:
    """The model with a fresh adapter; all but it is frozen. The adapter's weights are float32, drawn from plan.seed.

    Raises:
        ConfigError: the model has none of the projections.
    """
    from peft import LoraConfig, get_peft_model

    linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules()
                     if type(part).__name__.startswith(("Linear", "Conv1D"))})  # fmt: skip
    missing = [target for target in plan.targets if target not in linear]
    if missing:
        raise ConfigError("--targets", missing[0], f"this model has {', '.join(linear)}")
    torch.manual_seed(plan.seed)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a property under its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(
            model,
            LoraConfig(
                r=plan.rank or 16, lora_alpha=plan.alpha or 32, lora_dropout=plan.dropout, use_dora=plan.dora,
                target_modules=list(plan.targets), task_type="CAUSAL_LM",
            ),
        )  # fmt: skip


def takes_keep(model: Any) -> bool:
    """True when the model computes logits for chosen positions only (`logits_to_keep`)."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def can_pack(model: Any) -> bool:
    """True when rows may stand behind each other in one line: plain attention in every layer, by torch's own kernel."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return getattr(config, "_attn_implementation", "") == "sdpa" and kinds == {"full_attention"}


def parameter_counts(model: Any) -> tuple[int, int]:
    """(trained, all)."""
    every = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in every if trained), sum(n for n, _ in every)


def _four_bit(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        raise RefusedError("four_bit", "--4bit needs a GPU, and torch finds none here; leave the option out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RefusedError("four_bit", "--4bit: bitsandbytes is not installed; pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )  # fmt: skip
    return {"quantization_config": config, "device_map": {"": 0}}


@contextmanager
def _one_line(base: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of a damaged file each library raises its own, tokenizers even plain Exception
        first = str(error).strip().split("\n")[0][:160]
        raise DataError(f"{base}: no {what} to load ({first}); name a directory or a model of the hub") from error
