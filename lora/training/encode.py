"""Chats as tokens, with labels on the answer alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora.guards import turn_end
from slo.errors import DataError

IGNORED = -100
"""Label of a token that is not learnt, as torch's cross entropy has it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row. labels: the token itself where it is learnt, else IGNORED. cut: tokens beyond the longest allowed."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: int = 0

    @property
    def answer_tokens(self) -> int:
        """Tokens that are learnt; the first token of a row is never predicted."""
        return sum(label != IGNORED for label in self.labels[1:])


def encode_chat(tokenizer: Any, question: str, answer: str, max_length: int) -> Encoded:
    """Tokens of one chat by the tokenizer's own template; labels from the first token of the answer to its end token.

    A template with generation marks says itself where the answer is. For one without, what it writes before an answer
    must be the beginning of what it writes for the whole chat. Text of the template after the end of the answer is left
    out: nothing would be learnt from it.

    Raises:
        DataError: the tokenizer has no chat template, or one whose answer cannot be found.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError("the tokenizer has no chat template; take an instruction model, or add one to its tokenizer")
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if "{% generation" in str(tokenizer.chat_template) or "{%- generation" in str(tokenizer.chat_template):
        got = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = list(got["input_ids"]), list(got["assistant_masks"])
    else:
        ids, mask = _by_prefix(tokenizer, chat)
    if not any(mask):
        raise DataError(
            f"no token of the answer was found in the chat template's text; the question is {question[:60]!r}"
        )
    end = len(mask) - next(n for n, mine in enumerate(reversed(mask)) if mine)
    if end < len(ids) and ids[end] in _end_tokens(tokenizer):
        mask[end], end = 1, end + 1  # some templates end their mark before it; a model must learn to stop
    ids, mask = ids[:end], mask[:end]
    labels = [token if mine else IGNORED for token, mine in zip(ids, mask, strict=True)]
    return Encoded(tuple(ids[:max_length]), tuple(labels[:max_length]), max(0, end - max_length))


def encode_rows(tokenizer: Any, rows: Iterable[tuple[str, str]], max_length: int) -> list[Encoded]:
    """All rows, (question, answer) each.

    Raises:
        DataError: see `encode_chat`; or nothing of an answer is left after the cut.
    """
    found = [encode_chat(tokenizer, question, answer, max_length) for question, answer in rows]
    for number, row in enumerate(found, 1):
        if not row.answer_tokens:
            raise DataError(
                f"row {number}: its question alone has {len(row.ids)} tokens, no answer is left; --max-length"
            )
    return found


def cut_words(encoded: Sequence[Encoded], max_length: int) -> str:
    """One line about rows that were cut, empty when none was. A cut row loses its end: it never learns to stop."""
    cut = [row for row in encoded if row.cut]
    if not cut:
        return ""
    longest = max(len(row.ids) + row.cut for row in cut)
    return (
        f"{len(cut)} of {len(encoded)} rows are cut at {max_length} tokens and lose their end: --max-length {longest}"
    )


def _by_prefix(tokenizer: Any, chat: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Tokens, and 1 for those from the answer's first to its end token."""
    before = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    if not whole.startswith(before):
        raise DataError("the chat template writes another text before an answer than before a question to answer; "
                        "add generation marks to it ({% generation %})")  # fmt: skip
    # Cut where generation begins, so that the answer is learnt in the very tokens it will be generated in.
    first = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    rest = list(tokenizer(whole[len(before) :], add_special_tokens=False)["input_ids"])
    stops = _end_tokens(tokenizer)
    ends = [n for n, token in enumerate(rest) if token in stops]
    if ends:
        rest = rest[: ends[-1] + 1]
    return first + rest, [0] * len(first) + [1] * len(rest)


def _end_tokens(tokenizer: Any) -> set[int]:
    """What may end an answer: the tokenizer's end token, and what the template writes after one."""
    found = {tokenizer.eos_token_id, turn_end(tokenizer)}
    if "<|im_end|>" in str(tokenizer.chat_template):
        found.add(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return found - {None}
