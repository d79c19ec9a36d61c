"""Where the answers of an evaluation come from: a local model with an adapter, an endpoint, or a file.

torch, transformers and peft are imported when a local model is asked, and only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora.adapter_files import read_directory
from lora.artifact import check_artifact
from lora.guards import Guards, processors, prompt_of, stop_ids
from lora.json_lines import read_lines
from rag.model_client import AnswerModel, ModelConfig, ModelError, OpenAiModel
from rag.probing import probe_bytes, probe_model
from rag.text import normalise_space
from slo.errors import DataError

Tell = Callable[[int], None]
"""Told how many answers are there."""

AT_ONCE = 8
TRIES = 3
WAIT_S = 1.0


class LocalModel:
    """A causal model from a path or by name, with an adapter that can be taken off again.

    Code that comes with a model is never run; an adapter is checked before any library reads it.

    Raises:
        DataError: the model cannot be loaded. RefusedError: `artifact_rejected`.
    """

    def __init__(self, base: str, adapter: Path | None = None, *, threads: int | None = None) -> None:
        import torch
        import transformers
        from transformers.utils import logging

        hf: Any = transformers
        quiet: Any = logging

        if threads:
            torch.set_num_threads(threads)
        if adapter is not None:
            files = read_directory(adapter)
            check_artifact(files)
            probe_bytes(files)
        probe_model(base)
        quiet.disable_progress_bar()
        on_gpu = torch.cuda.is_available()
        dtype = torch.bfloat16 if on_gpu else torch.float32
        try:
            self._tokenizer: Any = hf.AutoTokenizer.from_pretrained(base, padding_side="left")
            model = hf.AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
        except Exception as error:  # of a damaged file each library raises its own, tokenizers even plain Exception
            raise DataError(f"{base}: {' '.join(str(error).split())[:200]}; name a causal model or its path") from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model: Any = model
        self._adapted = adapter is not None
        if adapter is not None:
            self._model = self._with(model, adapter)
        self._model = self._model.to("cuda" if on_gpu else "cpu").eval()

    def _with(self, model: Any, adapter: Path) -> Any:
        import warnings

        from peft import PeftModel

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
                return PeftModel.from_pretrained(model, str(adapter))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise DataError(
                f"{adapter}: does not fit the base model ({why}); name the base it was trained on"
            ) from error

    def answers(
        self,
        questions: Sequence[str],
        guards: Guards,
        tell: Tell,
        *,
        adapted: bool = True,
        batch: int = 8,
        system: str = "",
    ) -> list[str]:
        """Greedy answers, several at a time; the longest first, so that memory runs out at once or never.

        adapted: with the adapter; False asks the base below it.
        """
        import torch

        prompts = [prompt_of(self._tokenizer, chat_of(question, system)) for question in questions]
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        said: dict[int, str] = {}
        for begin in range(0, len(order), batch):
            part = order[begin : begin + batch]
            with torch.inference_mode():
                texts = self._generated([prompts[n] for n in part], guards, adapted)
            said.update(zip(part, texts, strict=True))
            tell(len(said))
        return [said[n] for n in range(len(prompts))]

    def _generated(self, prompts: list[str], guards: Guards, adapted: bool) -> list[str]:
        import transformers

        encoded = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        encoded = {name: encoded[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        width = encoded["input_ids"].shape[1]
        made: Any = transformers.GenerationConfig
        how = made(
            max_new_tokens=guards.max_new_tokens, do_sample=False,
            eos_token_id=stop_ids(self._tokenizer, self._model) or None, pad_token_id=self._tokenizer.pad_token_id,
        )  # fmt: skip
        limits = processors(guards, width)
        if adapted or not self._adapted:
            out = self._model.generate(**encoded, generation_config=how, logits_processor=limits)
        else:
            with self._model.disable_adapter():
                out = self._model.generate(**encoded, generation_config=how, logits_processor=limits)
        texts = self._tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [str(text).strip() for text in texts]


def chat_of(question: str, system: str = "") -> list[dict[str, str]]:
    """The messages of one question."""
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": question}]


def asked_of(
    config: ModelConfig,
    questions: Sequence[str],
    guards: Guards,
    tell: Tell,
    *,
    system: str = "",
    make_model: Callable[[ModelConfig], AnswerModel] = OpenAiModel,
) -> list[str]:
    """Answers of an OpenAI-compatible endpoint, `AT_ONCE` at a time.

    `repetition_penalty` and `no_repeat_ngram_size` are the server's business: they are no part of the protocol.

    Raises:
        ModelError: a question was not answered in three tries.
    """

    async def ask_all() -> list[str]:
        model, gate, done = make_model(config), asyncio.Semaphore(AT_ONCE), 0
        options = {"temperature": guards.temperature, "max_tokens": guards.max_new_tokens}

        async def ask(question: str) -> str:
            nonlocal done
            async with gate:
                text = await _patiently(model, chat_of(question, system), options)
            done += 1
            tell(done)
            return text

        tasks = [asyncio.create_task(ask(question)) for question in questions]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await model.close()

    return asyncio.run(ask_all())


async def _patiently(model: AnswerModel, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]) -> str:
    for again in range(1, TRIES):
        try:
            return (await model.complete(messages, options)).text.strip()
        except ModelError as error:
            if error.kind not in ("throttled", "timeout", "connect_timeout", "upstream_cut"):
                raise
            await asyncio.sleep(again * WAIT_S)
    return (await model.complete(messages, options)).text.strip()


def read_answers(path: Path, questions: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Answers from JSON lines {"question", "answer", "base"?}, in the order of the questions; and those of the base.

    Raises:
        DataError: a line cannot be read, or a question has no answer.
    """
    said: dict[str, tuple[str, str | None]] = {}
    for place, row in read_lines(path):
        question, answer, base = row.get("question"), row.get("answer"), row.get("base")
        if not isinstance(question, str) or not isinstance(answer, str) or not isinstance(base, str | None):
            raise DataError(f'{place}: write {{"question": "...", "answer": "...", "base": "..."}}')
        said[normalise_space(question)] = (answer, base)
    missing = [question for question in questions if normalise_space(question) not in said]
    if missing:
        raise DataError(
            f"{path}: no answer to {len(missing)} of {len(questions)} questions, such as {missing[0][:80]!r}"
        )
    found = [said[normalise_space(question)] for question in questions]
    bases = [base for _, base in found if base is not None]
    return [answer for answer, _ in found], bases if len(bases) == len(found) else None
