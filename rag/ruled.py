"""Rules bound to the generation that an answer path serves, and to who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from rag.answer_rules import AnswerRules, How, Processed, RuleSource
from rag.kb import KnowledgeBase
from rag.search import may_see
from rag.types import Document, Hit, SearchResult


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules made of one answer. source: what it was before. context: the document that was given instead.

    sha256: of the rules.
    """

    processed: Processed
    source: str
    sha256: str
    context: Hit | None

    def shown(self) -> dict[str, object]:
        """As the `rules` object of a response."""
        return {
            "how": self.processed.how.value,
            "detail": self.processed.detail,
            "kb_id": self.processed.kb_id,
            "similarity": round(self.processed.similarity, 4),
            "source": self.source,
            "sha256": self.sha256,
        }


class Ruled:
    """Holds the rules of `source` over one knowledge base; `look` follows both."""

    def __init__(self, source: RuleSource, kb: KnowledgeBase) -> None:
        self.source = source
        self._kb = kb
        self._bind(kb)

    def _bind(self, kb: KnowledgeBase) -> None:
        documents = kb.documents
        sha256, rules = self.source.sha256, self.source.bind(documents)
        self._state: tuple[str, str, AnswerRules, Mapping[str, Document]] = (
            sha256, kb.generation.manifest_hash, rules, {d.doc_id: d for d in documents},
        )  # fmt: skip

    @property
    def sha256(self) -> str:
        """Hash of the rules in force."""
        return self._state[0]

    async def look(self, kb: KnowledgeBase) -> None:
        """Go over to a changed rule file, and to another generation."""
        await asyncio.to_thread(self.source.look)
        if (self.source.sha256, kb.generation.manifest_hash) != self._state[:2]:
            await asyncio.to_thread(self._bind, kb)

    def ruling(
        self, question: str, answer: str, source: str, result: SearchResult, roles: frozenset[str] | None
    ) -> Ruling:
        """What goes out for a generated answer, to one who has these roles (None: everything may be seen)."""
        sha256, _, rules, documents = self._state
        hidden = () if roles is None else {i for i, d in documents.items() if d.acl and not may_see(d.acl, roles)}
        found = rules.process(question, answer, hidden=hidden, near=[hit.doc_id for hit in result.hits])
        context = None
        if found.how is not How.MODEL_GENERATED and (given := documents.get(found.kb_id)):
            context = Hit(given.doc_id, given.text, found.similarity, 1.0, given.lang, given.title, acl=given.acl)
        return Ruling(found, source, sha256, context)
