"""The base model with its adapters, and the batch of answers under way. Only the model's thread calls this.

Code that comes with a model is never run. Adapters come as bytes, from a directory or a vault, and stay in memory.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lora.artifact import CONFIG, WEIGHTS, check_artifact
from lora.guards import prompt_of, stop_ids
from lora.serving.choosing import NotFiniteError, choose
from lora.serving.types import MIXED, Row
from rag.probing import probe_model
from slo.errors import DataError, RefusedError

Choice = int | NotFiniteError
_BASE = "__base__"  # peft's word
_UNUSED = ("base_model_name_or_path", "revision", "auto_mapping", "task_type", "inference_mode", "peft_version")


class Model:
    """A causal model from a path or by name.

    Raises:
        DataError: it cannot be loaded.
    """

    def __init__(self, base: str, *, threads: int | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        if threads:
            torch.set_num_threads(threads)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if base.startswith(("/", ".", "~")) and not Path(base).is_dir():
            raise DataError(f"{base}: no such directory; name a causal model or the directory of one")
        probe_model(base)
        on_gpu = torch.cuda.is_available()
        dtype = torch.bfloat16 if on_gpu else torch.float32
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
        except Exception as error:  # of a damaged file each library raises its own, tokenizers even plain Exception
            raise DataError(f"{base}: {_short(error)}; name a causal model or its path") from error
        self._decoder = copy.deepcopy(self.tokenizer)  # of the model's thread; the other reads prompts meanwhile
        self._model = self._plain = model.to("cuda" if on_gpu else "cpu").eval()
        self.device = self._model.device
        self.stop_ids = frozenset(stop_ids(self.tokenizer, model))
        self.context_tokens = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        self._specials = sorted(
            {str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special}
            | set(self.tokenizer.all_special_tokens),
            key=len,
            reverse=True,
        )
        self._adapters: dict[str, bool] = {}  # handle -> may share a batch with others
        self._number = 0
        self._routed: str | None = None
        self._names: list[str] | None = None  # of the rows of a mixed step
        self._hooked: set[Any] = set()
        self.joinable = self._joinable()

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Tokens that ask for the answer. Words of a user that look like control tokens lose their power.

        Raises:
            DataError: the chat template refuses these messages.
        """
        import jinja2

        plain = [{"role": m["role"], "content": self._harmless(m["content"])} for m in messages]
        try:
            text = prompt_of(self.tokenizer, plain)
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            raise DataError(
                f"the chat template refuses these messages: {' '.join(str(error).split())[:200]}"
            ) from error
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        text = self._decoder.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def load(self, files: Mapping[str, bytes]) -> str:
        """Put an adapter beside the others and return its handle.

        Raises:
            RefusedError: `artifact_rejected`. DataError: it does not fit this base model.
        """
        import torch
        from peft import LoraConfig, PeftModel, set_peft_model_state_dict
        from safetensors.torch import load

        check_artifact(files)
        said = msgspec.json.decode(files[CONFIG], type=dict[str, Any])
        if said.get("peft_type", "LORA") != "LORA":
            raise RefusedError(
                "artifact_rejected", f"adapter of kind {str(said.get('peft_type'))[:40]!r}; LORA is served"
            )
        if said.get("alora_invocation_tokens"):
            raise RefusedError("artifact_rejected", "an adapter that wakes up within a text (aLoRA) is not served")
        handle = f"a{self._number}"
        self._number += 1
        try:
            fields = {name: value for name, value in said.items() if name not in (*_UNUSED, "peft_type")}
            # Other beginnings than the plain one would change the base model's weights, and all is overwritten anyway.
            config = LoraConfig(**{**fields, "init_lora_weights": True}, inference_mode=True)
            with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # peft calls what transformers will rename
                if isinstance(self._model, PeftModel):
                    self._model.add_adapter(handle, config)
                else:
                    self._model = PeftModel(self._model, config, adapter_name=handle)
                    self._routed = None
                found = set_peft_model_state_dict(self._model, load(files[WEIGHTS]), adapter_name=handle)
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            self._forget(handle)
            raise DataError(
                f"the adapter does not fit the base model ({' '.join(str(error).split())[:200]})"
            ) from error
        missing = [name for name in getattr(found, "missing_keys", ()) if f".{handle}." in name]
        unknown = list(getattr(found, "unexpected_keys", ()))
        if missing or unknown:
            self._forget(handle)
            one = (missing or unknown)[0][:120]
            raise DataError(
                f"the adapter does not fit the base model: {len(missing)} tensors are missing, {len(unknown)} unknown, "
                f"such as {one}"
            )
        self._model.eval()
        self._hook()
        self._adapters[handle] = self._plain_lora(handle, config)
        self._routed = None
        return handle

    def unload(self, handle: str) -> None:
        """Take an adapter out of memory."""
        self._adapters.pop(handle, None)
        self._forget(handle)

    def group(self, handle: str | None) -> str:
        """Which batch answers of this adapter may join: what is more than plain LoRA has one of its own."""
        return MIXED if handle is None or self._adapters[handle] else handle

    def batch(self) -> ModelBatch:
        """An empty batch."""
        return ModelBatch(self)

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """Logits of the last position and the cache, each row through its own adapter."""
        kinds = set(adapters)
        self._names = None
        if len(kinds) == 1:
            self._route(next(iter(kinds)))
            return self._plain(**inputs, use_cache=True, logits_to_keep=1)
        if self._routed == _BASE:
            self._model.base_model.enable_adapter_layers()
            self._routed = None
        self._names = [name or _BASE for name in adapters]
        return self._plain(**inputs, use_cache=True, logits_to_keep=1)

    def _route(self, adapter: str | None) -> None:
        """One adapter for all rows costs less than naming it for each."""
        wanted = adapter or _BASE
        if wanted == self._routed or not self._adapters:
            return
        if adapter is None:
            self._model.base_model.disable_adapter_layers()
        else:
            self._model.base_model.enable_adapter_layers()
            self._model.set_adapter(adapter, inference_mode=True)
        self._routed = wanted

    def _forget(self, handle: str) -> None:
        config = getattr(self._model, "peft_config", {})
        if handle in config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an active adapter that goes: the next request names its own
                self._model.delete_adapter(handle)
        self._routed = None

    def _hook(self) -> None:
        """Let each layer be told the adapters of the rows, once: peft hangs such hooks anew in every step."""
        from peft.tuners.lora import LoraLayer

        layers: list[Any] = [module for module in self._plain.modules() if isinstance(module, LoraLayer)]
        for module in layers:
            if module not in self._hooked:
                module.register_forward_pre_hook(self._tell_names, with_kwargs=True)
                self._hooked.add(module)

    def _tell_names(self, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return None if self._names is None else (args, {**kwargs, "adapter_names": self._names})

    def _plain_lora(self, handle: str, config: Any) -> bool:
        """Whether rows of this adapter may stand beside others: peft mixes two matrices a layer and nothing more."""
        special = any(handle in getattr(module, "lora_variant", ()) for module in self._plain.modules())
        return not (special or config.use_dora or config.modules_to_save or config.trainable_token_indices)

    def _harmless(self, text: str) -> str:
        for special in self._specials:
            if special in text:
                text = text.replace(special, f"{special[0]} {special[1:]}")
        return text

    def _joinable(self) -> bool:
        """Whether the cache is plain keys and values; of others (windows, states) only one answer runs at a time."""
        import torch
        from transformers.cache_utils import DynamicLayer

        with torch.inference_mode():
            out = self._model(torch.tensor([[0]], device=self.device), use_cache=True)
        layers = getattr(out.past_key_values, "layers", [])
        return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


class ModelBatch:
    """Answers under way, one row each. The cache holds all of a row but the last token that was said."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._rows: list[Row] = []
        self._cache: Any = None
        self._mask: Any = None

    def join(self, rows: Sequence[Row]) -> list[Choice]:
        """Read prompts, and what was said already, beside the rows under way; the next token of each new row."""
        import torch

        with torch.inference_mode():
            texts = [[*row.prompt, *row.said] for row in rows]
            width = max(len(text) for text in texts)
            device = self._model.device
            ids = torch.tensor([[0] * (width - len(text)) + text for text in texts], device=device)
            mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=device)
            out = self._model.forward(
                [row.adapter for row in rows], input_ids=ids, attention_mask=mask, position_ids=_positions(mask)
            )
            for row in rows:
                if row.chance is None and row.sampling.temperature > 0.0:
                    row.chance = _chance(row, device)
            chosen = [_chosen(out.logits[number, -1], row) for number, row in enumerate(rows)]
            self._merge(rows, out.past_key_values, mask)
            return chosen

    def step(self) -> list[Choice]:
        """The next token of every row."""
        import torch

        with torch.inference_mode():
            device = self._model.device
            ids = torch.tensor([[row.said[-1]] for row in self._rows], device=device)
            mask = torch.cat([self._mask, self._mask.new_ones((len(self._rows), 1))], dim=1)
            out = self._model.forward(
                [row.adapter for row in self._rows], input_ids=ids, attention_mask=mask,
                position_ids=_positions(mask)[:, -1:], past_key_values=self._cache,
            )  # fmt: skip
            self._cache, self._mask = out.past_key_values, mask
            return [_chosen(out.logits[number, -1], row) for number, row in enumerate(self._rows)]

    def keep(self, numbers: Sequence[int]) -> None:
        """Let the rows that are not named go, with their memory."""
        import torch

        wanted = set(numbers)
        places = [place for place, row in enumerate(self._rows) if row.number in wanted]
        if len(places) == len(self._rows):
            return
        self._rows = [self._rows[place] for place in places]
        if not places:
            self._cache = self._mask = None
            return
        with torch.inference_mode():
            index = torch.tensor(places, device=self._model.device)
            mask = self._mask[index]
            begin = int(mask.any(dim=0).int().argmax())  # columns that nobody uses any more
            self._mask = mask[:, begin:]
            for layer in self._cache.layers:
                layer.keys = layer.keys[index][:, :, begin:]
                layer.values = layer.values[index][:, :, begin:]

    def _merge(self, rows: Sequence[Row], cache: Any, mask: Any) -> None:
        import torch
        from torch.nn.functional import pad

        if not self._rows:
            self._rows, self._cache, self._mask = list(rows), cache, mask
            return
        width = max(self._mask.shape[1], mask.shape[1])
        old_gap, new_gap = width - self._mask.shape[1], width - mask.shape[1]
        joined = [
            (
                torch.cat([pad(old.keys, (0, 0, old_gap, 0)), pad(new.keys, (0, 0, new_gap, 0))]),
                torch.cat([pad(old.values, (0, 0, old_gap, 0)), pad(new.values, (0, 0, new_gap, 0))]),
            )
            for old, new in zip(self._cache.layers, cache.layers, strict=True)
        ]  # all of them first: when memory runs out, the rows under way are as they were
        both = torch.cat([pad(self._mask, (old_gap, 0)), pad(mask, (new_gap, 0))])
        for layer, (keys, values) in zip(self._cache.layers, joined, strict=True):
            layer.keys, layer.values = keys, values
        self._mask, self._rows = both, [*self._rows, *rows]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _positions(mask: Any) -> Any:
    """A row's first token is at 0, however much was put before it."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _chosen(logits: Any, row: Row) -> Choice:
    try:
        return choose(logits, row)
    except NotFiniteError as error:
        return error


def _chance(row: Row, device: Any) -> Any:
    import torch

    seed = row.sampling.seed
    made = torch.Generator(device=device)
    made.manual_seed(int.from_bytes(os.urandom(7), "little") if seed is None else seed % (1 << 63))
    return made
