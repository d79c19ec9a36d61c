"""A data set on disk: train.jsonl, validation.jsonl, test.jsonl and data_card.json.

A row is a chat, as every trainer reads it, with what it is beside it:
    {"messages": [{"role": "user", ...}, {"role": "assistant", ...}], "rule", "group", "style", "lang", "kind"}
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from lora.dataset import SPLITS, DataSet, Plan, Row, counts, overlap, ratios_for
from rag.finetune.cursor import write_file
from rag.text import count_tokens
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

CARD = "data_card.json"


class _Message(msgspec.Struct):
    role: str
    content: str


class _Row(msgspec.Struct):
    messages: list[_Message]
    rule: str = ""
    group: str = ""
    style: str = ""
    lang: str = ""
    kind: str = "answerable"


def encode(row: Row) -> bytes:
    """One line, without its end."""
    chat = [_Message("user", row.question), _Message("assistant", row.answer)]
    return msgspec.json.encode(_Row(chat, row.rule, row.group, row.style, row.lang, row.kind))


def read_rows(path: Path) -> list[Row]:
    """Rows of a split.

    Raises:
        DataError: file and line of what cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it with sft-guard lora dataset") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line, type=_Row)
            by_role = {message.role: message.content for message in found.messages}
            rows.append(
                Row(by_role["user"], by_role["assistant"], found.rule, found.group, found.style, found.lang, found.kind)
            )
        except NOT_JSON as error:
            raise DataError(f"{path}:{number}: not a chat row ({error})") from error
        except KeyError as error:
            raise DataError(f"{path}:{number}: no message of the role {error}; a row has user and assistant") from error
    return rows


def write_dataset(
    out: Path,
    dataset: DataSet,
    plan: Plan,
    *,
    source: dict[str, Any],
    phrasings_sha256: str,
    wall_s: float,
    who: str,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the splits and the card, the card last; returns the card.

    source: what the knowledge base says of itself. more: further entries of the card (tokens, paraphrases). A directory
    that holds another set is refused, never mixed.

    Raises:
        RefusedError: `exists`. DataError: cannot be written.
    """
    files = {f"{name}.jsonl": b"".join(encode(row) + b"\n" for row in dataset.split(name)) for name in SPLITS}
    hashes = {name: sha256(data).hexdigest() for name, data in files.items()}
    card_path = out / CARD
    if card_path.exists() and read_card(card_path).get("files") != hashes:
        raise RefusedError("exists", f"{out} holds another data set; name a new directory")
    card = {
        "made_wall_s": wall_s, "made_by": who, "source": source, "seed": plan.seed,
        "phrasings_sha256": phrasings_sha256,
        "files": hashes, "data_sha256": sha256(msgspec.json.encode(sorted(hashes.items()))).hexdigest(),
        "ratios": list(plan.ratios or ratios_for(sum(len(dataset.split(n)) for n in SPLITS) - dataset.replayed)),
        "splits": {name: {"rows": len(dataset.split(name)), **counts(dataset.split(name))} for name in SPLITS},
        "tokens_estimated": {name: _tokens(dataset.split(name)) for name in SPLITS},
        "overlap": overlap(dataset), "near_copies_left_out": list(dataset.near_copies),
        "documents_without_topic": list(dataset.no_topic), "refused_topics_covered": list(dataset.covered),
        "replayed": dataset.replayed, "refusal_ratio": plan.refusal_ratio, "replay_ratio": plan.replay_ratio,
        **(more or {}),
    }  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be made ({error.strerror}); check the path") from error
    for name, data in files.items():
        write_file(out / name, data)
    write_file(card_path, msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
    return card


def read_card(path: Path) -> dict[str, Any]:
    """The card of a data set. Raises DataError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it with sft-guard lora dataset") from error
    except NOT_JSON as error:
        raise DataError(f"{path}: not a data card ({error}); make the set again") from error


def check_files(directory: Path) -> dict[str, Any]:
    """The card, after every file was compared with its hash.

    Raises:
        DataError: a file is missing or is not what the card says.
    """
    card = read_card(directory / CARD)
    for name, wanted in dict(card.get("files") or {}).items():
        try:
            found = sha256((directory / name).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{directory / name}: cannot be read ({error.strerror}); make the set again") from error
        if found != wanted:
            raise DataError(f"{directory / name}: not what {CARD} says; it was changed, make the set again")
    return card


def _tokens(rows: Sequence[Row]) -> dict[str, int]:
    """Sum and maximum of the estimated tokens a row, without the chat template."""
    each = [count_tokens(row.question) + count_tokens(row.answer) for row in rows]
    return {"sum": sum(each), "max": max(each, default=0)}
