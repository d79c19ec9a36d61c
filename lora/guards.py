"""Bounds of what a small model may say, and the words it is asked in: the same in evaluation and in serving.

Small models that were fine-tuned on few rows fall into loops; the practice stops them with these defaults. They count
the answer alone: a penalty over the prompt as well would forbid an answer the words of its question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHATML_START, CHATML_END = "<|im_start|>", "<|im_end|>"
ARTICLE_TOKENS = 500


@dataclass(frozen=True, slots=True)
class Guards:
    """The inference guards of the practice. repetition_penalty 1.0 and no_repeat_ngram_size 0 switch them off.

    temperature: 0 is greedy, as an evaluation must be; a FAQ is served at 0.1.
    """

    max_new_tokens: int = 100
    repetition_penalty: float = 1.3
    no_repeat_ngram_size: int = 3
    temperature: float = 0.0


def prompt_of(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The text that asks for the assistant's turn: by the tokenizer's own chat template, else as ChatML."""
    if getattr(tokenizer, "chat_template", None):
        said = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return str(said)
    turns = "".join(f"{CHATML_START}{m['role']}\n{m['content']}{CHATML_END}\n" for m in messages)
    return f"{turns}{CHATML_START}assistant\n"


def stop_ids(tokenizer: Any, model: Any = None) -> list[int]:
    """Tokens that end an answer: the tokenizer's own, the end of a ChatML turn where it is one token, and the model's.

    Many models end a turn with another token than a text: their tokenizer names `<eos>`, they say `<end_of_turn>`. It
    stands in the chat template and among the model's own settings of generation.
    """
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = {tokenizer.eos_token_id, tokenizer.get_vocab().get(CHATML_END), turn_end(tokenizer)}
    found |= set(own) if isinstance(own, list | tuple) else {own}
    return sorted(token for token in found if token is not None)


def turn_end(tokenizer: Any) -> int | None:
    """The control token that the chat template writes after an answer; None where it writes none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    answer = "the answer"
    chat = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": answer}]
    try:
        _, found, after = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition(answer)
    except Exception:  # a template may refuse anything in its own words; who needs it to answer is told then
        return None
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found and after.strip() else []
    return int(ids[0]) if ids and ids[0] in tokenizer.all_special_ids + _added(tokenizer) else None


def _added(tokenizer: Any) -> list[int]:
    return [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]


def processors(guards: Guards, prompt_tokens: int) -> Any:
    """Logits processors for `generate` that look at the answer only. prompt_tokens: width of the (padded) prompts."""
    from transformers import LogitsProcessor, LogitsProcessorList, NoRepeatNGramLogitsProcessor
    from transformers import RepetitionPenaltyLogitsProcessor as Penalty

    class AnswerOnly(LogitsProcessor):
        """Another processor, shown what follows the prompt."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            said = input_ids[:, prompt_tokens:]
            return self._inner(said, scores) if said.shape[1] else scores

    found = LogitsProcessorList()
    if guards.repetition_penalty != 1.0:
        found.append(AnswerOnly(Penalty(penalty=guards.repetition_penalty)))
    if guards.no_repeat_ngram_size:
        found.append(AnswerOnly(NoRepeatNGramLogitsProcessor(guards.no_repeat_ngram_size)))
    return found
