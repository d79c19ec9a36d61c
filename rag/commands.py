"""`sft-guard kb ...` as functions: plain arguments in, the object of `--json` out; parsing lives elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rag import staging
from rag.answer_rules import RuleSource
from rag.chunking import parse_chunking
from rag.embedding import Embedder, default_embedder, embedder_status, load_embedder
from rag.kb import QUARANTINE, KnowledgeBase
from rag.kb_commands import parse_place
from rag.model_client import ModelConfig
from rag.reranking import load_reranker
from rag.router import Pricer
from rag.routes_file import Routes
from rag.rows import RawRow, read_jsonl
from rag.servers import serve
from rag.sources import read_file, read_text, with_roles
from slo.errors import DataError

Json = dict[str, object]


def kb_init(directory: Path | str, *, key: bytes | None = None) -> Json:
    """Make an empty knowledge base."""
    meta = KnowledgeBase.init(directory, key=key).meta
    return {"kb": str(directory), "kb_version": meta.kb_version, "doc_count": meta.doc_count, "model": meta.model}


def kb_add(
    directory: Path | str,
    jsonl: Sequence[Path | str] = (),
    text: Sequence[Path | str] = (),
    chunk: str | None = None,
    *,
    embedder: str | None = None,
    allow_bad: bool = False,
    dedupe: bool = True,
    stage: bool = False,
    progress: Callable[[str], None] | None = None,
    files: Sequence[Path | str] = (),
    update: bool = False,
    near: str = "off",
    roles: Sequence[str] = (),
    key: bytes | None = None,
) -> Json:
    """Add rows of JSON lines files, whole text files, and files of any kind that `rag.sources` reads.

    Args:
        stage: add to a copy beside the current generation, for the gate to decide on.
        update: rows replace what has their doc_id, or came from their file, before.
        near: report or skip rows that are nearly the same as known ones.
        roles: for rows that name none themselves.
        key: of the pointer's signature.
        embedder: name of `load_embedder`; by default the one the knowledge base was made with.
        progress: told what is going on, one line each.

    Raises:
        DataError, RefusedError, ConfigError: nothing was added.
    """
    if not jsonl and not text and not files:
        raise DataError("kb add: no input; name files, or --jsonl FILE or --text FILE")
    kb = KnowledgeBase.open(directory, key=key, lazy=True)
    say = progress or (lambda line: None)
    say("loading the embedder")
    loaded, note = embedder_for(kb, embedder)
    if loaded is not None:
        kb.attach(loaded)
    say("adding rows")
    rows = _rows(jsonl, text, files)
    rows = with_roles(rows, tuple(roles)) if roles else rows
    if stage:
        report = staging.stage(
            Path(directory), rows, parse_chunking(chunk), chunk_name=chunk or "none", embedder=loaded,
            allow_bad=allow_bad, dedupe=dedupe, update=update, near=near, key=key,
        )  # fmt: skip
    else:
        report = kb.add(rows, chunk=chunk, allow_bad=allow_bad, dedupe=dedupe, update=update, near=near)
    result: Json = {
        "added": report.added,
        "skipped": report.skipped,
        "quarantined": report.quarantined,
        "kb_version": report.kb_version,
        "doc_count": report.doc_count,
    }
    if update:
        result["replaced"] = report.replaced
    notes = [*report.notes, *([note] if note and (report.added or embedder not in (None, "none")) else [])]
    if report.quarantined:
        notes.append(f"{report.quarantined} rows were set aside, with reasons: {Path(directory) / QUARANTINE}")
    if stage:
        notes.append(f"staged, nothing serves it yet: sft-guard kb gate --kb {directory} --golden FILE --promote")
    return result | ({"notes": notes} if notes else {})


def kb_search(
    directory: Path | str,
    query: str,
    k: int = 3,
    mode: str = "hybrid",
    *,
    embedder: str | None = None,
    roles: Sequence[str] | None = None,
    reranker: str | None = None,
    key: bytes | None = None,
) -> Json:
    """Search; the embedder is loaded only when the mode may use it.

    roles: of the asker; None may see everything. reranker: name or path of a cross-encoder.
    """
    place, generation = parse_place(str(directory))
    kb = KnowledgeBase.open(place, generation=generation, key=key)
    if reranker:
        kb.use_reranker(load_reranker(reranker))
    if mode != "bm25" and (kb.meta.indexed_count or mode == "embedding"):
        loaded, note = embedder_for(kb, embedder)
        if loaded is not None:
            kb.attach(loaded)
        elif mode == "embedding":
            raise DataError(f"search mode embedding: {note}")
    result = kb.search(query, k, mode, roles=roles)
    hits = [
        {
            "doc_id": hit.doc_id,
            "text": hit.text,
            "similarity": round(hit.similarity, 4),
            "score": round(hit.score, 4),
        }
        for hit in result.hits
    ]
    return {
        "hits": hits,
        "context": result.context,
        "mode_used": result.mode_used,
        "similarity_by": result.similarity_by,
        "confidence": round(result.confidence, 4),
        "note": result.note,
    }


def kb_serve(
    directory: Path | str,
    host: str = "127.0.0.1",
    port: int = 8810,
    model_config: ModelConfig | None = None,
    *,
    embedder: str | None = None,
    routes: Routes | None = None,
    prices: Pricer | None = None,
    others: Mapping[str, str] | None = None,
    context_tokens: int | None = None,
    reranker: str | None = None,
    key: bytes | None = None,
    k: int = 3,
    rules: RuleSource | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve until interrupted; 0 as exit status. on_ready: told the base URL as well."""
    reads_pairs = load_reranker(reranker) if reranker else None

    def ready(ports: list[int]) -> None:
        print(f"answer path on http://{host}:{ports[0]}/v1 (POST /ask, GET /healthz)", file=sys.stderr, flush=True)
        on_ready(f"http://{host}:{ports[0]}")

    serve(
        directory, host, port, model_config, embedder, ready, routes, prices,
        others=others, context_tokens=context_tokens, reranker=reads_pairs, key=key, k=k, rules=rules,
    )  # fmt: skip
    return 0


def open_with_embedder(directory: Path | str, name: str | None) -> tuple[KnowledgeBase, str]:
    """A knowledge base with its embedder when there is one, and the embedder's name ("" without)."""
    kb = KnowledgeBase.open(directory)
    loaded, _ = embedder_for(kb, name) if kb.meta.indexed_count else (None, "")
    if loaded is not None:
        kb.attach(loaded)
    return kb, loaded.name if loaded is not None else ""


def _rows(jsonl: Sequence[Path | str], text: Sequence[Path | str], files: Sequence[Path | str]) -> Iterator[RawRow]:
    for name in files:
        yield from read_file(Path(name))
    for name in jsonl:
        yield from read_jsonl(Path(name))
    for name in text:
        yield from read_text(Path(name))


def embedder_for(kb: KnowledgeBase, name: str | None) -> tuple[Embedder | None, str]:
    """The embedder asked for, else the one of the knowledge base; with the reason when there is none."""
    if name is None:  # the one it was made with; before it has any vector, one that is here
        name = kb.meta.model if kb.meta.indexed_count or embedder_status(kb.meta.model)[0] else default_embedder()
    ok, message = embedder_status(name)
    return (load_embedder(name), "") if ok else (None, message)
