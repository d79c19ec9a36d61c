"""From a search result and a route file to a plan: the one place where both meet. Pure."""

from __future__ import annotations

from collections.abc import Collection

from rag.routes_file import Routes
from rag.routing import Plan, Slot, plan, signals
from rag.search import NGRAMS
from rag.text import language
from rag.types import SearchResult


def plan_for(
    routes: Routes,
    question: str,
    result: SearchResult,
    marked: str,
    embedder: str,
    reachable: Collection[Slot] = tuple(Slot),
) -> Plan:
    """The way of a question.

    Args:
        marked: what its sender says of its sensitivity. embedder: name of the one in use, "" for none: thresholds that
            were fitted on the cosines of another one are not used.
    """
    lang, lines = language(question), routes.lines
    trusted = result.similarity_by != NGRAMS and lines.embedder in ("", embedder)
    found = signals([hit.similarity for hit in result.hits], confidence=result.confidence, trusted=trusted, lang=lang)
    sensitive = routes.sensitive.applies(question, result.hits, marked)
    return plan(found, lines.of(lang), routes.known, sensitive=sensitive, reachable=reachable)
