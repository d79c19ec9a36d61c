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

from rag.text import fold_width, language, normalise_space, search_tokens

WORDS = 3
MIN_MISTAKES = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluated question. wanted: document of the right answer. given: what the answer belongs to, or "".

    reference: the right answer, where it is known.
    """

    question: str
    wanted: str
    given: str
    reference: str = ""


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
    spoken = {kb_id: [fold_width(q) for q in questions] for kb_id, questions in asked.items()}
    written = {kb_id: [fold_width(text)] for kb_id, text in documents.items()}
    found = []
    for kb_id, count in missed.items():
        if count < MIN_MISTAKES:
            continue
        question, answer = _telling(kb_id, spoken), _telling(kb_id, written)
        if question and answer:
            found.append(
                Suggestion(kb_id, question, answer, count, len(asked[kb_id]), tuple(mixed[kb_id].most_common(3)))
            )
    return tuple(sorted(found, key=lambda s: (-s.mistakes, s.kb_id)))


def as_yaml(suggestions: Sequence[Suggestion], form: Mapping[str, str] | None = None) -> str:
    """The rule file, with the reason for each topic as a comment. form: how a document's text is given, by language."""
    framed = yaml.safe_dump({"form": dict(form)}, allow_unicode=True, width=1000) if form else ""
    if not suggestions:
        return f"{framed}topics: []\n"
    lines = ["# Proposed from confusions: read it, mend it, then give it to lora eval --rules."]
    lines += [*framed.splitlines(), "topics:"]
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
    return "\n".join(lines) + "\n"


def form_of(rows: Sequence[Judged], documents: Mapping[str, str]) -> dict[str, str]:
    """How right answers frame the text of their document, by language; empty when they are the text itself."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        text = normalise_space(documents.get(row.wanted, ""))
        if text and text in row.reference and "{" not in row.reference and "}" not in row.reference:
            seen[language(text)][row.reference.replace(text, "{text}", 1)] += 1
    found = {lang: forms.most_common(1)[0][0] for lang, forms in sorted(seen.items())}
    return {lang: form for lang, form in found.items() if form != "{text}"}


def _telling(kb_id: str, texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Terms of one document that others lack, as a pattern would find them: anywhere, so `all` is in `install`.

    Score: how many of its texts hold the term, against how many others do; a term that more than a tenth of the others
    hold is out.
    """
    own = texts[kb_id]
    others = [" ".join(several) for other, several in texts.items() if other != kb_id]
    scored = []
    for term in dict.fromkeys(t for text in own for t in search_tokens(text) if len(t) > 1):
        held = sum(term in text for text in own)
        count = sum(term in text for text in others)
        if held and count <= 0.1 * max(1, len(others)):
            # Of terms that are equally telling the longer one is found by accident less often.
            scored.append((held * math.log((len(others) + 2) / (count + 1)), len(term), term))
    return tuple(term for _, _, term in sorted(scored, key=lambda s: (-s[0], -s[1], s[2]))[:WORDS])
