"""What the demo is about: articles, questions with the facts a right answer must hold, and general knowledge.

Everything is of one invented company, Northlake Instruments, in English and Traditional Chinese.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TypeVar

import msgspec

from slo.errors import DataError

STYLES = ("short", "full", "formal", "colloquial", "off_topic")
Row = TypeVar("Row", bound=msgspec.Struct)


class Article(msgspec.Struct, frozen=True):
    """One row of kb.jsonl. lang: `en` or `zh-TW`."""

    doc_id: str
    lang: str
    title: str
    text: str


class Question(msgspec.Struct, frozen=True):
    """One way to ask. facts: strings a right answer holds, all of them; empty when it should be refused."""

    question_id: str
    lang: str
    doc_id: str
    style: str
    question: str
    facts: tuple[str, ...]


class GeneralPolicy(msgspec.Struct, frozen=True):
    """What a language model may believe about companies in general; never what Northlake does."""

    lang: str
    topic: str
    text: str


@cache
def articles() -> tuple[Article, ...]:
    """All articles, English first. Raises DataError when the installed file is damaged."""
    return _read("rag.demo_kb", "kb.jsonl", Article)


@cache
def questions() -> tuple[Question, ...]:
    """All questions, those off topic included. Raises DataError when the installed file is damaged."""
    return _read("rag.demo_kb", "questions.jsonl", Question)


@cache
def general_policies() -> tuple[GeneralPolicy, ...]:
    """The simulated model's own memory. Raises DataError when the installed file is damaged."""
    return _read("guard.demo", "general_policies.jsonl", GeneralPolicy)


def holds_fact(text: str, fact: str) -> bool:
    """Whether `text` states `fact`: width, case and spaces do not matter, and a number is never part of a larger one.

    >>> holds_fact("You have 14 days.", "4 days"), holds_fact("It takes 4  Days.", "4 days")
    (False, True)
    """
    wanted = re.escape(_plain(fact))
    before = r"(?<![\d])(?<!\d[.,:])" if wanted[0].isdigit() else r"(?<![a-z])" if wanted[0].isascii() else ""
    after = r"(?![\d])(?![.,:]\d)" if wanted[-1].isdigit() else ""
    return re.search(before + wanted + after, _plain(text)) is not None


def holds_facts(text: str, facts: Iterable[str]) -> bool:
    """Whether `text` states every one of `facts`."""
    return all(holds_fact(text, fact) for fact in facts)


def _plain(text: str) -> str:
    """Width and case folded; spaces beside a non-ASCII letter dropped, the others single."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"(?<=[^\x00-\x7f]) | (?=[^\x00-\x7f])", "", folded)


def _read(package: str, name: str, kind: type[Row]) -> tuple[Row, ...]:
    resource = files(package).joinpath(name)
    decode = msgspec.json.Decoder(kind).decode
    rows: list[Row] = []
    try:
        lines = resource.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{resource}: {error.strerror}; install the program again, the demo content is missing"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(decode(line))
        except msgspec.MsgspecError as error:
            raise DataError(f"{resource}:{number}: {error}; install the program again") from error
    return tuple(rows)
