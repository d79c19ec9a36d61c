"""Labelled pairs of questions for the gate, built from public sets; what a label means is said beside each.

Same intent is not same answer, so pairs of one intent get no label (None): they are only counted. `tune` and `report`
are halves by a hash of the pair; word lists of the gate were chosen on `tune` alone.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard.cache.gate import reading
from guard.cache.gate_han import HanReading
from guard.checks.lexicon import normalise

LEAST = 0.85
"""Pairs below this cosine are nobody's neighbours at any threshold that is looked at."""

Embed = Callable[[list[str]], Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """label: True for the same answer, False for another one, None unknown. cosine: of the measure named in the set."""

    one: str
    other: str
    label: bool | None
    cosine: float

    @property
    def half(self) -> str:
        """`tune` or `report`."""
        return "tune" if sha256(min(self.one, self.other).encode()).digest()[0] % 2 == 0 else "report"

    @property
    def identical(self) -> bool:
        """The exact cache serves it, or nearly."""
        return self.one.strip().casefold() == self.other.strip().casefold()


def lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def english(data: Path, embed: Embed) -> dict[str, list[Pair]]:
    """Sets in English; cosines of all-MiniLM-L6-v2."""
    return {
        # Ten people each asked one FAQ entry in their own words: two of them want the same answer.
        "StackFAQ paraphrases": list(_stackfaq(data, embed)),
        # Questions on one article; the unanswerable ones were edited by people to be wrong by a word.
        "SQuAD2 near-misses": list(_squad(data, embed)),
        "Banking77 intents": list(_intents(lines(data / "intents/banking77_train.jsonl")[::2], embed)),
        "CLINC150 intents": list(_intents(lines(data / "intents/clinc_val.jsonl"), embed)),
    }


def chinese(data: Path, ngrams: Embed) -> dict[str, list[Pair]]:
    """Sets in Chinese; cosines of hashed character n-grams over the text as the gate reads it."""
    return {
        "PAWS-X zh (same words)": list(_pawsx(data, ngrams)),
        "DRCD zh-TW, edited": list(_edited(data, ngrams)),
    }


def _close(texts: list[str], vectors: Any, least: float) -> Iterator[tuple[int, int, float]]:
    import numpy as np

    for start in range(0, len(texts), 1000):
        cosines = vectors[start : start + 1000] @ vectors.T  # (<= 1000, count)
        for a, b in zip(*np.nonzero(cosines >= least), strict=True):
            if b < start + a:
                yield start + int(a), int(b), float(cosines[a, b])


def _stackfaq(data: Path, embed: Embed) -> Iterator[Pair]:
    rows = [(r["fid"], r["query"]) for r in lines(data / "retrieval/stackfaq_queries.jsonl")]
    rows += [(r["fid"], r["question"]) for r in lines(data / "retrieval/stackfaq_docs.jsonl")]
    texts = [text for _, text in rows]
    for a, b, cosine in _close(texts, embed(texts), LEAST):
        yield Pair(texts[a], texts[b], rows[a][0] == rows[b][0], cosine)


def _squad(data: Path, embed: Embed) -> Iterator[Pair]:
    rows = lines(data / "retrieval/squad2_questions.jsonl")
    by_article = defaultdict(list)
    for row in rows:
        by_article[row["pid"].rsplit("-", 1)[0]].append(row)
    vectors = dict(zip((r["qid"] for r in rows), embed([r["question"] for r in rows]), strict=True))
    for group in by_article.values():
        import numpy as np

        texts = [r["question"] for r in group]
        for a, b, cosine in _close(texts, np.stack([vectors[r["qid"]] for r in group]), LEAST):
            yield Pair(texts[a], texts[b], _same_answer(group[a], group[b]), cosine)


def _same_answer(one: dict[str, Any], other: dict[str, Any]) -> bool | None:
    if one.get("unanswerable") and other.get("unanswerable"):
        return None
    if one.get("unanswerable") != other.get("unanswerable"):
        return False
    return not _plain(one["answers"]).isdisjoint(_plain(other["answers"]))


def _plain(answers: list[str]) -> set[str]:
    return {" ".join(normalise(a).lower().strip(" .").split()) for a in answers}


def _intents(rows: list[dict[str, Any]], embed: Embed) -> Iterator[Pair]:
    texts = [r["text"] for r in rows]
    for a, b, cosine in _close(texts, embed(texts), 0.9):
        yield Pair(texts[a], texts[b], None if rows[a]["intent"] == rows[b]["intent"] else False, cosine)


def as_read(text: str) -> str:
    """Chinese as the index embeds it: without politeness, synonyms by one word."""
    words = reading(text).words
    return words.plain if isinstance(words, HanReading) else text


def _pawsx(data: Path, ngrams: Embed) -> Iterator[Pair]:
    rows = lines(data / "pairs/pawsx_zh_dev.jsonl")
    one, other = (ngrams([as_read(r[side]) for r in rows]) for side in "ab")
    for row, a, b in zip(rows, one, other, strict=True):
        yield Pair(row["a"], row["b"], row["label"] == "1", float(a @ b))


_NUMBER = re.compile(r"\d+")
_EDITS = (
    *(("最早", "最晚"), ("最大", "最小"), ("最高", "最低"), ("第一", "第二"), ("開始", "結束")),
    *(("之前", "之後"), ("增加", "減少"), ("支持", "反對"), ("多少", "什麼"), ("為何", "何時"), ("誰", "何處")),
    *(("哪一年", "哪一月"), ("可以", "不可以"), ("是否", "為何"), ("東", "西"), ("南", "北"), ("父", "母")),
    *(("男", "女"), ("上", "下"), ("有", "沒有")),
)


def _edited(data: Path, ngrams: Embed) -> Iterator[Pair]:
    """People's questions of DRCD and two edits of each, by rule: politeness and particles keep the answer, a number or
    one word of a list changes it. Edits are ours, so this shows that rules hold, not how people ask."""
    rows, made = lines(data / "retrieval/drcd_zhtw_questions.jsonl")[::2], []
    for number, row in enumerate(rows):
        question = row["question"].rstrip("?\uff1f ")
        polite = (f"請問{question}", f"我想知道{question}呢?", f"{question}?", f"請問一下{question}\uff1f")[number % 4]
        made.append((question, polite, True))
        edited = _NUMBER.sub(lambda m: str(int(m[0]) + 1), question, count=1)
        if edited == question:
            found = [(a, b) for a, b in _EDITS if a in question]
            if not found:
                continue
            a, b = found[number % len(found)]
            edited = question.replace(a, b, 1)
        made.append((question, edited, False))
    one, other = (ngrams([as_read(pair[side]) for pair in made]) for side in (0, 1))
    for (a, b, label), u, v in zip(made, one, other, strict=True):
        yield Pair(a, b, label, float(u @ v))
