"""Retrieve, then answer: extractively, or through a model. Knows no HTTP server.

Search and embedding run in a thread, so the event loop of the server stays free. Until the embedder is loaded (it
comes in the background) everything is answered by words; `status_line` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from operator import mul

from rag.answer import KB, MODEL, REFUSAL, REFUSE_UNDER, Prompt, build_prompt, extractive, refusal
from rag.answer_rules import RuleSource
from rag.coalescing import Coalescing
from rag.embedding import Embedder, embedder_status, load_embedder
from rag.kb import KnowledgeBase
from rag.model_client import AnswerModel, ModelConfig, Piece, Usage
from rag.packing import pack
from rag.router import EXTRACTIVE_MODEL, Router, RouteTrace
from rag.routing import Source
from rag.ruled import Ruled
from rag.storage import pointer_hash
from rag.text import count_tokens, language
from rag.types import SearchResult
from slo.clock import Clock, SystemClock
from slo.errors import DataError, RefusedError

_SENTENCES_CACHED = 20_000
GENERATED = frozenset({MODEL, Source.CLOUD_FT, Source.LOCAL_LORA})
"""Sources that rules behind the model speak about."""
_FOLLOW_S = 2.0
_SEARCHES_AT_ONCE = 8


class SharedEmbedder:
    """One embedder for all answer paths of a process, loaded once, in a thread.

    threads: 1 by default: the proxy shares the machine, and idle threads of linear algebra spin.
    state: off | loading | ready | failed; `note` says why, in one line.
    """

    def __init__(self, name: str | None = None, *, threads: int = 1, loaded: Embedder | None = None) -> None:
        self._name, self._threads = name, threads
        self._lock = asyncio.Lock()
        self.embedder = loaded
        self.state = "ready" if loaded else "loading"
        self.note = ""
        if loaded is None:
            ok, message = embedder_status(name)
            if not ok:
                self.state, self.note = "off", message

    async def get(self) -> Embedder | None:
        """The embedder, loading it at the first call; None when there is none (`state`, `note`)."""
        async with self._lock:
            if self.state == "loading":
                try:
                    loaded = await asyncio.to_thread(load_embedder, self._name, threads=self._threads)
                    self.embedder = Coalescing(loaded) if loaded is not None else None
                    self.state = "ready"
                except Exception as error:  # refused by the probe, or whatever a model library raises
                    self.state, self.note = "failed", " ".join(str(error).split())[:300] or type(error).__name__
        return self.embedder


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A search and how long it took, seconds. roles: of the asker, None for one who may see everything."""

    question: str
    result: SearchResult
    duration_s: float
    roles: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class PathAnswer:
    """One whole answer."""

    text: str
    source: str  # KB | MODEL | REFUSAL
    model: str
    finish_reason: str
    usage: Usage


class AnswerPath:
    """One knowledge base with its way of answering."""

    def __init__(
        self,
        kb: KnowledgeBase,
        *,
        model: AnswerModel | None = None,
        model_config: ModelConfig | None = None,
        k: int = 3,
        mode: str = "hybrid",
        refuse_under: float = REFUSE_UNDER,
        clock: Clock | None = None,
        router: Router | None = None,
        context_tokens: int | None = None,
        rules: RuleSource | None = None,
    ) -> None:
        self.kb = kb
        self.rules = Ruled(rules, kb) if rules is not None else None  # speaks about what a model said
        self.kb_note = ""
        self._context_tokens = context_tokens
        self.router = router  # decides who answers; then `model` is not asked
        self.model_config = model_config
        self._model, self._k, self._mode, self._refuse_under = model, k, mode, refuse_under
        self._clock = clock or SystemClock()
        self._offered: Embedder | None = None  # loaded; whether it fits the vectors is seen with each generation
        self._embedder: Embedder | None = None
        # Those that wait for an embedding wait together and are embedded as one batch.
        self._pool = ThreadPoolExecutor(max_workers=_SEARCHES_AT_ONCE, thread_name_prefix="rag")
        self._vectors: dict[str, list[float]] = {}
        self.embedder_note = ""

    @property
    def model_name(self) -> str:
        """What `/v1/models` lists."""
        return self.model_config.model if self.model_config else EXTRACTIVE_MODEL

    async def use_embedder(self, shared: SharedEmbedder) -> None:
        """Wait for the embedder and use it from then on; a foreign one is reported, and words go on answering."""
        embedder = await shared.get()
        if embedder is None:
            self.embedder_note = shared.note
            return
        self._offered = embedder
        try:
            self.kb.attach(embedder)
        except DataError as error:
            self.embedder_note = str(error)
            return
        self._embedder = embedder

    async def follow(self, every_s: float = _FOLLOW_S) -> None:
        """Go over to each new generation once it is verified; a damaged one is reported, the last good one stays."""
        failed: str | None = None  # "" is a pointer that cannot be read
        while True:
            await self._clock.sleep(every_s)
            kb = self.kb
            current = await asyncio.to_thread(pointer_hash, kb.directory)
            if current == kb.generation.manifest_hash:
                self.kb_note, failed = "", None  # what was damaged is gone, and what is served is current again
            elif current != failed:
                try:
                    self._take(await asyncio.to_thread(kb.reopened))
                    self.kb_note, failed = "", None
                except DataError as error:
                    self.kb_note, failed = f"kb_invalid: {error}", current
                except RefusedError:
                    pass  # writers were quicker at every look; there is another one

    def _take(self, kb: KnowledgeBase) -> None:
        """Answer from `kb` from now on, also by meaning if the embedder, perhaps loaded only meanwhile, fits it."""
        if self._offered is not None:
            try:
                kb.attach(self._offered)
                self._embedder, self.embedder_note = self._offered, ""
            except DataError:
                if self._embedder is not None:  # the one that is served has meaning: it stays
                    raise
        self.kb = kb

    async def follow_rules(self, every_s: float = _FOLLOW_S) -> None:
        """Go over to each changed rule file that can be used, and to the documents of a new generation."""
        while self.rules is not None:
            await self._clock.sleep(every_s)
            await self.rules.look(self.kb)

    async def retrieve(self, question: str, roles: frozenset[str] | None = None) -> Retrieval:
        """Search for the question, among what these roles may see (None: everything).

        Raises:
            DataError: an empty question.
        """
        began_s = self._clock.now_s()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._pool, self._search, question, roles)
        return Retrieval(question, result, self._clock.now_s() - began_s, roles)

    def _search(self, question: str, roles: frozenset[str] | None) -> SearchResult:
        result = self.kb.search(question, self._k, self._mode, roles=roles)
        if self._context_tokens is None:
            return result
        hits = pack(result.hits, self._context_tokens)
        return replace(result, hits=hits, context="\n\n".join(hit.text for hit in hits))

    async def answer(
        self,
        retrieval: Retrieval,
        options: Mapping[str, object],
        trace: RouteTrace | None = None,
        marked: str = "",
    ) -> PathAnswer:
        """The whole answer.

        Args:
            options: sampling parameters for the model.
            trace: with a router: filled in. marked: what the sender says of the question's sensitivity.

        Raises:
            ModelError: the model did not answer.
        """
        if self.router is not None:
            trace = RouteTrace() if trace is None else trace
            said, last = "", Piece()
            async for last in self._routed(retrieval, options, trace, marked, live=False):
                said += last.text
            said = self._ruled(retrieval, said, trace.source, trace)
            return PathAnswer(said, trace.source, last.model, last.finish_reason, last.usage or Usage(0, 0))
        if self._asks_model(retrieval):
            assert self._model is not None
            prompt = build_prompt(retrieval.question, retrieval.result.hits)
            piece = await self._model.complete(prompt.messages(), options)
            usage = piece.usage or _estimated(prompt, piece.text)
            trace = RouteTrace() if trace is None else trace
            said = self._ruled(retrieval, piece.text, MODEL, trace)
            return PathAnswer(said, trace.source, piece.model or self.model_name, piece.finish_reason, usage)
        text, source = await self._without_model(retrieval)
        return PathAnswer(text, source, EXTRACTIVE_MODEL, "stop", _own_usage(retrieval, text))

    async def stream(
        self,
        retrieval: Retrieval,
        options: Mapping[str, object],
        trace: RouteTrace | None = None,
        marked: str = "",
    ) -> AsyncGenerator[tuple[Piece, str], None]:
        """(piece, source) of the answer; the last piece carries `finish_reason` and `usage`. trace, marked: as above.

        Raises:
            ModelError: also in the middle.
        """
        trace = RouteTrace() if trace is None else trace
        if self.rules is not None:
            # Words that are out cannot be replaced: what a model says is held until it is whole.
            answer = await self.answer(retrieval, options, trace, marked)
            for part in _parts(answer.text):
                yield Piece(part, model=answer.model), answer.source
            yield Piece("", answer.finish_reason, answer.usage, answer.model), answer.source
            return
        if self.router is not None:
            async with aclosing(self._routed(retrieval, options, trace, marked, live=True)) as pieces:
                async for piece in pieces:
                    # Held answers come whole; they go on as a stream brings them.
                    for part in _parts(piece.text) if piece.text and not piece.finish_reason else ():
                        yield Piece(part, model=piece.model), trace.source
                    if piece.finish_reason:
                        yield piece, trace.source
            return
        if not self._asks_model(retrieval):
            text, source = await self._without_model(retrieval)
            for part in _parts(text):
                yield Piece(part, model=EXTRACTIVE_MODEL), source
            yield Piece("", "stop", _own_usage(retrieval, text), EXTRACTIVE_MODEL), source
            return
        assert self._model is not None
        prompt = build_prompt(retrieval.question, retrieval.result.hits)
        said: list[str] = []
        finish_reason, usage, model = "stop", None, self.model_name
        async with aclosing(self._model.stream(prompt.messages(), options)) as pieces:
            async for piece in pieces:
                finish_reason, usage, model = (
                    piece.finish_reason or finish_reason,
                    piece.usage or usage,
                    piece.model or model,
                )
                if piece.text:
                    said.append(piece.text)
                    yield Piece(piece.text, model=model), MODEL
        yield Piece("", finish_reason, usage or _estimated(prompt, "".join(said)), model), MODEL

    def _routed(
        self, retrieval: Retrieval, options: Mapping[str, object], trace: RouteTrace, marked: str, *, live: bool
    ) -> AsyncGenerator[Piece, None]:
        assert self.router is not None
        embedder = self._embedder.name if self._embedder is not None else ""
        return self.router.pieces(
            retrieval.question,
            retrieval.result,
            options,
            trace,
            marked=marked,
            embedder=embedder,
            extract=lambda: self._sentences(retrieval),
            live=live,
        )

    def _ruled(self, retrieval: Retrieval, said: str, source: str, trace: RouteTrace) -> str:
        """What goes out for a generated answer; `trace` says where it is from."""
        trace.source = source
        if self.rules is None or source not in GENERATED:
            return said
        trace.ruling = self.rules.ruling(retrieval.question, said, source, retrieval.result, retrieval.roles)
        trace.source = trace.ruling.processed.how.value
        return trace.ruling.processed.text

    async def _sentences(self, retrieval: Retrieval) -> str:
        loop = asyncio.get_running_loop()
        # The router has decided that the documents answer; a second line here would contradict it.
        text, _ = await loop.run_in_executor(self._pool, self._extract, retrieval, 0.0)
        return text

    async def close(self) -> None:
        """Stop the threads and the model's connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self.router is not None:
            await self.router.close()
        if self._model is not None:
            await self._model.close()

    def _asks_model(self, retrieval: Retrieval) -> bool:
        config = self.model_config
        return self._model is not None and config is not None and retrieval.result.confidence >= config.refuse_under

    async def _without_model(self, retrieval: Retrieval) -> tuple[str, str]:
        if self._model is not None:  # the model was not asked because retrieval was too unsure
            return refusal(language(retrieval.question)), REFUSAL
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._extract, retrieval)

    def _extract(self, retrieval: Retrieval, refuse_under: float | None = None) -> tuple[str, str]:
        question, result = retrieval.question, retrieval.result
        by_meaning = self._embedder is not None and self._embedder.covers(question)
        answer = extractive(
            question,
            result.hits,
            confidence=result.confidence,
            refuse_under=self._refuse_under if refuse_under is None else refuse_under,
            similarity=self._cosines if by_meaning else None,
        )
        return answer.text, KB if answer.source == KB else REFUSAL

    def _cosines(self, question: str, texts: Sequence[str]) -> list[float]:
        """Cosine of the question to each sentence; sentences are embedded once, together, and remembered."""
        assert self._embedder is not None
        wanted = list(dict.fromkeys([question, *texts]))
        if missing := [text for text in wanted if text not in self._vectors]:
            if len(self._vectors) + len(missing) > _SENTENCES_CACHED:
                self._vectors = {}
            for text, vector in zip(missing, self._embedder.embed(missing), strict=True):
                self._vectors[text] = vector.tolist()
        known = self._vectors
        if any(text not in known for text in wanted):  # another thread has just emptied it
            known = dict(zip(wanted, self._embedder.embed(wanted).tolist(), strict=True))
        asked = known[question]
        return [sum(map(mul, asked, known[text])) for text in texts]


def _parts(text: str) -> list[str]:
    """Pieces of a finished text as a stream would bring them: a few words, or a few Chinese characters."""
    parts, begin = [], 0
    for position, character in enumerate(text):
        if position - begin >= 12 and (character == " " or ord(character) > 0x2E7F):
            parts.append(text[begin:position])
            begin = position
    return [*parts, text[begin:]]


def _own_usage(retrieval: Retrieval, text: str) -> Usage:
    """Tokens read and written without a model, by our own count."""
    return Usage(count_tokens(retrieval.question) + count_tokens(retrieval.result.context), count_tokens(text))


def _estimated(prompt: Prompt, text: str) -> Usage:
    return Usage(count_tokens(prompt.system) + count_tokens(prompt.user), count_tokens(text))
