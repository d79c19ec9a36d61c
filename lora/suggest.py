"""Rules proposed from confusions: for a document that is mixed up with others, the words by which it can be told. Pure.

A person reads and mends the proposal before it is used; it is printed as the YAML that `lora.postprocess` reads.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from rag.text import search_tokens

WORDS = 3
MIN_MISTAKES = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluated question. wanted: document of the right answer. given: what the answer belongs to, or ""."""

    question: str
    wanted: str
    given: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One topic. mistakes: of how many questions about it. mixed_with: what was answered instead, with counts."""

    kb_id: str
    question: tuple[str, ...]
    answer: tuple[str, ...]
    mistakes: int
    asked: int
    mixed_with: tuple[tuple[str, int], ...]


def suggest(rows: Sequence[Judged], documents: Mapping[str, str]) -> tuple[Suggestion, ...]:
    """Topics for the documents that were missed at least twice, the worst first.

    Words of the question are those that stand in questions about this document and in few about others; words of the
    answer stand in this document and in few others. A document without such words gets no suggestion: a rule that
    cannot tell it apart would do harm.
    """
    asked: dict[str, list[str]] = defaultdict(list)
    missed: Counter[str] = Counter()
    mixed: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.wanted not in documents:
            continue
        asked[row.wanted].append(row.question)
        if row.given != row.wanted:
            missed[row.wanted] += 1
            if row.given:
                mixed[row.wanted][row.given] += 1
    in_questions = {
        kb_id: Counter(t for q in questions for t in set(search_tokens(q))) for kb_id, questions in asked.items()
    }
    in_documents = {kb_id: Counter(search_tokens(text)) for kb_id, text in documents.items()}
    found = []
    for kb_id, count in missed.items():
        if count < MIN_MISTAKES:
            continue
        question, answer = _telling(kb_id, in_questions), _telling(kb_id, in_documents)
        if question and answer:
            found.append(
                Suggestion(kb_id, question, answer, count, len(asked[kb_id]), tuple(mixed[kb_id].most_common(3)))
            )
    return tuple(sorted(found, key=lambda s: (-s.mistakes, s.kb_id)))


def as_yaml(suggestions: Sequence[Suggestion]) -> str:
    """The rule file, with the reason for each topic as a comment."""
    lines = ["# Proposed from confusions: read it, mend it, then give it to lora eval --rules.", "topics:"]
    for s in suggestions:
        instead = ", ".join(f"{kb_id} {count}x" for kb_id, count in s.mixed_with) or "nothing of the knowledge base"
        lines.append(f"  # {s.mistakes} of {s.asked} questions were answered with: {instead}")
        topic = {
            "name": s.kb_id,
            "question": [re.escape(word) for word in s.question],
            "answer": [re.escape(word) for word in s.answer],
            "kb_id": s.kb_id,
        }
        text = yaml.safe_dump([topic], allow_unicode=True, sort_keys=False, default_flow_style=None, width=110)
        lines += [f"  {line}" for line in text.rstrip().splitlines()]
    return "\n".join(lines) + "\n" if suggestions else "topics: []\n"


def _telling(kb_id: str, counts: Mapping[str, Counter[str]]) -> tuple[str, ...]:
    """Terms of one document that others lack: count here, against how many others have it; those of all are out."""
    others = Counter(term for other, terms in counts.items() if other != kb_id for term in terms)
    total = max(1, len(counts) - 1)
    scored = [
        (count * math.log((total + 1) / (others[term] + 1)), term)
        for term, count in counts[kb_id].items()
        if len(term) > 1 and others[term] <= 0.1 * total
    ]
    return tuple(term for score, term in sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:WORDS] if score > 0)
