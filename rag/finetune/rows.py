"""Chat rows for fine-tuning out of documents: question by template, reply built from the rule. Pure.

The number of questions follows from the document: each template that makes sense for it, at most
`questions_per_document`. A document without amount, deadline or prohibition gets no question about limits, one whose
subject cannot be told gets none at all and is named in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.finetune.topics import first_and_rest, states_limits, topic_of
from rag.text import language
from rag.types import Document


@dataclass(frozen=True, slots=True)
class QuestionTemplate:
    """ask: with {topic}. needs: "" or "limits"."""

    ask: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class LanguageTemplates:
    """How rows of one language look; see templates.yaml."""

    system: str
    questions: tuple[QuestionTemplate, ...]
    reply: str
    no_details: str = ""
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Templates:
    """By language; a document of another language is left out and named."""

    by_language: Mapping[str, LanguageTemplates]
    questions_per_document: int = 2


@dataclass(frozen=True, slots=True)
class Example:
    """One row before it is written. group: examples of one group stay on one side of the split."""

    system: str
    question: str
    answer: str
    group: str

    def row(self) -> dict[str, object]:
        """As the API wants it."""
        turns = (("system", self.system), ("user", self.question), ("assistant", self.answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns if content]}


@dataclass(frozen=True, slots=True)
class FromDocuments:
    """examples: in the order of the documents. without: (doc_id, why) of documents that gave none."""

    examples: tuple[Example, ...]
    without: tuple[tuple[str, str], ...]


def examples_of(documents: Sequence[Document], templates: Templates, data_date: str) -> FromDocuments:
    """The examples of documents. data_date: ISO day that the replies carry."""
    found: list[Example] = []
    without: list[tuple[str, str]] = []
    seen: set[str] = set()
    for document in documents:
        words = templates.by_language.get(document.lang or language(document.text))
        if words is None:
            without.append((document.doc_id, f"no templates for language {document.lang!r}"))
            continue
        topic = topic_of(document)
        if not topic:
            without.append((document.doc_id, "its subject cannot be told; give the document a title"))
            continue
        asked = [q.ask.format(topic=topic) for q in words.questions if _makes_sense(q, document)]
        fresh = [q for q in asked[: templates.questions_per_document] if q not in seen]
        if not fresh:
            without.append((document.doc_id, "its questions are those of another document; give it a title of its own"))
        seen.update(fresh)
        answer = reply(document, words, data_date)
        found += [Example(words.system, question, answer, document.doc_id) for question in fresh]
    return FromDocuments(tuple(found), tuple(without))


def reply(document: Document, words: LanguageTemplates, data_date: str) -> str:
    """The three points of one document."""
    first, rest = first_and_rest(document.text)
    return words.reply.format(
        first=first, rest=rest or words.no_details, doc_id=document.doc_id, date=data_date, title=document.title
    )


def _makes_sense(template: QuestionTemplate, document: Document) -> bool:
    return template.needs != "limits" or states_limits(document.text)
