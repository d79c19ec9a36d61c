"""The rules of chat fine-tuning files, checked before anything is uploaded. Pure.

Source: https://platform.openai.com/docs/guides/supervised-fine-tuning (format, at least 10 examples, token limits).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

EXAMPLES_MIN = 10
EXAMPLES_ADVISED = 50
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PROBLEMS_SHOWN = 20

_TOKENS_MAX = {"gpt-3.5-turbo": 16_385}
_TOKENS_MAX_DEFAULT = 65_536
_ROW_KEYS = frozenset({"messages", "tools", "functions", "parallel_tool_calls"})
_MESSAGE_KEYS = frozenset(
    {"role", "content", "name", "weight", "tool_calls", "function_call", "tool_call_id", "refusal"}
)


def tokens_max(model: str) -> int:
    """Longest training example of a base model; what is beyond is cut off by the API."""
    return next((most for name, most in _TOKENS_MAX.items() if model.startswith(name)), _TOKENS_MAX_DEFAULT)


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a training file holds. problems: it would be refused. warnings: it would be taken, and worse for it."""

    example_count: int
    token_count: int
    longest_tokens: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    questions: frozenset[str] = frozenset()


def check_file(
    data: bytes, place: str, count_row: Callable[[Sequence[Mapping[str, Any]]], int], longest: int
) -> FileReport:
    """Check a training file as the API would, line by line; problems name line, what is wrong and the cure."""
    problems: list[str] = []
    warnings: list[str] = []
    questions: Counter[str] = Counter()
    tokens: list[int] = []
    number = examples = 0
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            row = msgspec.json.decode(line.decode("utf-8"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"{place}:{number}: not JSON ({error}); write one object a line")
            continue
        examples += 1
        if found := _row_problem(row):
            problems.append(f"{place}:{number}: {found}")
            continue
        messages = row["messages"]
        questions[next((str(m.get("content")) for m in messages if m["role"] == "user"), "")] += 1
        tokens.append(count_row(messages))
        if tokens[-1] > longest:
            warnings.append(f"{place}:{number}: {tokens[-1]} tokens, the API cuts at {longest}; shorten it")
    if examples < EXAMPLES_MIN:
        problems.append(f"{place}: {examples} examples, the API wants at least {EXAMPLES_MIN}; export more")
    elif examples < EXAMPLES_ADVISED:
        warnings.append(f"{place}: {examples} examples; {EXAMPLES_ADVISED} to 100 is where it begins to show")
    if repeated := [q for q, count in questions.items() if count > 1 and q]:
        warnings.append(f"{place}: {len(repeated)} questions stand more than once, for example {repeated[0][:60]!r}")
    if len(problems) > PROBLEMS_SHOWN:
        problems[PROBLEMS_SHOWN:] = [f"{place}: and {len(problems) - PROBLEMS_SHOWN} more of this kind"]
    return FileReport(
        examples, sum(tokens), max(tokens, default=0), tuple(problems), tuple(warnings), frozenset(questions) - {""}
    )


def leaks(train: FileReport, validation: FileReport) -> list[str]:
    """Warnings about a validation file that holds what was trained on."""
    both = train.questions & validation.questions
    return [f"{len(both)} questions stand in training and validation; its loss will look too good"] if both else []


def _row_problem(row: Any) -> str:
    if not isinstance(row, dict):
        return f'a {type(row).__name__}; write an object {{"messages": [...]}}'
    if strange := sorted(set(row) - _ROW_KEYS):
        return f"unknown key {strange[0]!r}; remove it"
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return "`messages` is no list of messages"
    for position, message in enumerate(messages):
        if found := _message_problem(message, position):
            return found
    if messages[-1]["role"] != "assistant":
        return "the last message is not the assistant's; there is nothing to learn from it"
    if all(m.get("weight") == 0 for m in messages if m["role"] == "assistant"):
        return "every assistant message has weight 0; there is nothing to learn from it"
    return ""


def _message_problem(message: Any, position: int) -> str:
    place = f"messages[{position}]"
    if not isinstance(message, dict):
        return f"{place} is a {type(message).__name__}, not an object"
    role = message.get("role")
    if role not in ROLES:
        return f"{place}: role {role!r}; write one of {', '.join(ROLES[:4])}"
    if strange := sorted(set(message) - _MESSAGE_KEYS):
        return f"{place}: unknown key {strange[0]!r}; remove it"
    if role in ("system", "developer") and position:
        return f"{place}: the {role} message comes first"
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        return f"{place}: weight is 0 or 1, for assistant messages only"
    content = message.get("content")
    calls = role == "assistant" and (message.get("tool_calls") or message.get("function_call"))
    if not calls and not (isinstance(content, str) and content.strip()):
        return f"{place}: `content` is empty or no text"
    return ""
