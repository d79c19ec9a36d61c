"""Carries the gate out: reads golden questions, profiles both generations, asks both, keeps the decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rag import staging
from rag.embedding import Embedder
from rag.gate import Decision, GateLimits, Side, decide
from rag.gate_report import as_json, evaluation, facts, markdown
from rag.golden import DEPTHS, Found, GoldenQuestion, Outcome, ask_all
from rag.kb import KnowledgeBase
from rag.profile import Profile
from rag.rows import read_jsonl
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

Say = Callable[[str], None]


def read_golden(path: Path) -> tuple[GoldenQuestion, ...]:
    """Golden questions of a JSON lines file (see `rag.golden`).

    Raises:
        DataError: the file or a line of it cannot be used.
    """
    found = tuple(_golden(row.place, row.value, row.error) for row in read_jsonl(path))
    if not found:
        raise DataError(f"{path}: no golden question; write lines such as " + _FORM)
    return found


_FORM = '{"question": "...", "doc_id": "rule-02"}'


def _golden(place: str, value: object, error: str) -> GoldenQuestion:
    if error or not isinstance(value, dict):
        raise DataError(f"{place}: {error or 'not an object'}; write {_FORM}")
    question, contains = value.get("question"), value.get("contains", "")
    ids = value.get("doc_ids", value.get("doc_id"))
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    # A row's doc_id may be a number; the knowledge base knows it as text.
    ids = [str(i) if isinstance(i, int) and not isinstance(i, bool) else i for i in ids]
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{place}: no `question`; write {_FORM}")
    if not isinstance(contains, str) or not isinstance(ids, list) or not all(isinstance(i, str) and i for i in ids):
        raise DataError(f"{place}: `doc_id` and `contains` are texts, `doc_ids` a list of them; write {_FORM}")
    if not ids and not contains.strip():
        raise DataError(f"{place}: says not what is to be found; write {_FORM}, or `contains`")
    return GoldenQuestion(place, question, tuple(ids), contains)


def ask(kb: KnowledgeBase, questions: Sequence[GoldenQuestion], mode: str) -> Outcome:
    """Ask a knowledge base all golden questions, to the greatest depth."""

    def search(question: str) -> Found:
        hits = kb.search(question, max(DEPTHS), mode).hits
        return Found(tuple((hit.doc_id, hit.text) for hit in hits), not hits)

    return ask_all(questions, search)


def gate(
    directory: Path,
    *,
    candidate: Path | None = None,
    golden: Path | None = None,
    limits: GateLimits | None = None,
    mode: str = "hybrid",
    embedder: Callable[[KnowledgeBase], Embedder | None] = lambda _kb: None,
    key: bytes | None = None,
    say: Say = lambda _line: None,
) -> Decision:
    """Decide on what is staged in `directory`, or on another knowledge base, against the current generation.

    The decision is kept in `directory` (gate.json, gate.md).

    Raises:
        RefusedError: `no_candidate`. DataError: a knowledge base or the golden questions cannot be used.
    """
    questions = read_golden(golden) if golden is not None else ()
    incoming: Profile | None = None
    chunk = ""
    if candidate is None:
        candidate = staging.candidate_of(directory)
        staged, incoming = staging.staged_of(candidate)
        chunk = staged.chunk
    sides, opened = [], []
    for name, place in (("current", directory), ("candidate", candidate)):
        kb = KnowledgeBase.open(place, key=key)
        opened.append(kb)
        say(f"{name}: profile of {kb.meta.doc_count} rows")
        profile = staging.profile_of(kb)
        outcome = None
        if questions and kb.meta.doc_count:
            if mode != "bm25" and (loaded := embedder(kb)) is not None:
                kb.attach(loaded)
            say(f"{name}: {len(questions)} golden questions")
            outcome = ask(kb, questions, mode)
        sides.append(Side(f"kb_version {kb.meta.kb_version}", profile, outcome))
    decision = decide(sides[0], sides[1], incoming, limits, vector_shift=vector_shift(*opened))
    keep(directory, decision, opened[1], chunk)
    return decision


def vector_shift(before: KnowledgeBase, after: KnowledgeBase) -> float | None:
    """One minus the cosine of the mean vectors of two knowledge bases; None where they cannot be compared."""
    made_by = {kb.meta.embedder_fingerprint for kb in (before, after)}
    if len(made_by) != 1 or not all(kb.meta.doc_count for kb in (before, after)):
        return None
    pieces = before.iter_vectors(), after.iter_vectors()
    if pieces[0] is None or pieces[1] is None:
        return None
    one, other = (sum(piece.sum(axis=0, dtype="float64") for piece in parts) for parts in pieces if parts is not None)
    size = float((one @ one) * (other @ other)) ** 0.5
    return max(0.0, 1.0 - float(one @ other) / size) if size else None


def keep(directory: Path, decision: Decision, candidate: KnowledgeBase, chunk: str) -> None:
    """Write the decision down beside the generations. chunk: how the rows were cut, if that is known."""
    record = {
        "kb_version": candidate.meta.kb_version,
        "content_id": candidate.content_id,
        "chunk": chunk,
        "evaluation": evaluation(decision),
        "profile": facts(decision.candidate.profile),
        "report": as_json(decision),
    }
    try:
        staging.write(directory / staging.DECISION, msgspec.json.encode(record))
        staging.write(directory / staging.REPORT, markdown(decision).encode())
    except OSError as error:
        raise DataError(f"{directory / staging.DECISION}: cannot be written ({error.strerror})") from error


def promote(directory: Path, *, force: bool = False, key: bytes | None = None) -> int:
    """Make the candidate current if the gate has accepted exactly this candidate; returns its version.

    Raises:
        RefusedError: `not_accepted`, the gate has not looked at it or refused it; and as `staging.promote`.
    """
    candidate = KnowledgeBase.open(staging.candidate_of(directory), key=key, lazy=True)
    record = decision_of(directory, candidate.content_id)
    accepted = record.get("evaluation", {}).get("accepted") if record else None
    if not force and accepted is not True:
        why = "was refused by the gate" if accepted is False else "was not looked at by the gate"
        raise RefusedError("not_accepted", f"{directory}: the candidate {why}; it stays beside the current generation")
    return staging.promote(directory, key=key)


def decision_of(directory: Path, content_id: str) -> dict[str, Any] | None:
    """The last decision, if it was on this content."""
    try:
        record = msgspec.json.decode((directory / staging.DECISION).read_bytes())
    except (OSError, *NOT_JSON):
        return None
    return record if isinstance(record, dict) and record.get("content_id") == content_id else None
