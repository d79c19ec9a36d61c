"""Carries out the plan of `rag.routing`: asks the models in order, notes who answered and what all calls together cost.

A model that fails hands over to the next; an answer is only sent when it is there (`Routes.stream_whole`), so a cut
connection is a change of model and not a broken answer. When every model of the plan is down the error goes out: an
outage must be seen, not hidden behind a polite refusal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from rag.answer import build_prompt, refusal
from rag.model_client import REFUSED, AnswerModel, ModelConfig, ModelError, OpenAiModel, Piece, Usage
from rag.planning import plan_for
from rag.quick_checks import QuickCheck, doubt
from rag.reachability import Circuit
from rag.routes_file import Routes
from rag.routing import SOURCE_OF, Plan, Slot, Source
from rag.ruled import Ruling
from rag.text import count_tokens, language
from rag.types import SearchResult
from slo.clock import Clock

EXTRACTIVE_MODEL = "kb-extractive"


class Pricer(Protocol):
    """Turns usage into USD; None when the price is unknown."""

    def cost_usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One question to one model. error: kind of the failure, "" when it answered; never an address."""

    slot: str
    model: str
    usage: Usage
    cost_usd: float | None
    error: str = ""


@dataclass(slots=True)
class RouteTrace:
    """What became of one question; filled in while it is answered.

    source: of the answer that went out. topic, fixed: of the fixed answer, and its text.
    doubt: why the cheaper answer was not good enough. ruling: what the rules behind the model made of the answer.
    """

    source: str = ""
    reason: str = ""
    topic: str = ""
    fixed: str = ""
    doubt: str = ""
    escalated: bool = False
    sensitive: bool = False
    with_contexts: bool = False
    ruling: Ruling | None = None
    calls: list[Call] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """Tokens of all calls together."""
        used = [call.usage for call in self.calls]
        return Usage(sum(one.prompt_tokens for one in used), sum(one.completion_tokens for one in used))

    @property
    def cost_usd(self) -> float | None:
        """Cost of all calls; None when the price of one is unknown, 0.0 without calls."""
        costs = [call.cost_usd for call in self.calls]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def shown(self) -> dict[str, object]:
        """As the `route` object of a response."""
        return {
            "source": self.source,
            "reason": self.reason,
            "escalated": self.escalated,
            "sensitive": self.sensitive,
            "with_contexts": self.with_contexts,
            "cost_usd": self.cost_usd,
            "calls": [
                {
                    "slot": call.slot,
                    "model": call.model,
                    "prompt_tokens": call.usage.prompt_tokens,
                    "completion_tokens": call.usage.completion_tokens,
                    "cost_usd": call.cost_usd,
                    **({"error": call.error} if call.error else {}),
                }
                for call in self.calls
            ],
            **({"topic": self.topic} if self.topic else {}),
            **({"doubt": self.doubt} if self.doubt else {}),
        }


class Router:
    """One per answer path. Make it inside a running event loop.

    check: looks at the answer of `rag` before it goes out; a reason means that `strong` is asked, once.
    counts: answers by source, escalations under `escalated`, since the start.
    """

    def __init__(
        self,
        routes: Routes,
        clock: Clock,
        *,
        prices: Pricer | None = None,
        check: QuickCheck = doubt,
        make_model: Callable[[ModelConfig], AnswerModel] = OpenAiModel,
    ) -> None:
        self.routes = routes
        self.counts: Counter[str] = Counter()
        self._clock, self._prices, self._check = clock, prices, check
        self._models: dict[Slot, AnswerModel] = {slot: make_model(config) for slot, config in routes.models.items()}
        self.circuits = {slot: Circuit(open_s=routes.retry_s, open_max_s=12 * routes.retry_s) for slot in routes.models}

    async def close(self) -> None:
        """Release the models' connections."""
        for model in self._models.values():
            await model.close()

    def plan(self, question: str, result: SearchResult, marked: str, embedder: str) -> Plan:
        """The way for a question whose documents are found. embedder: name of the one in use, "" for none."""
        now_s = self._clock.now_s()
        reachable = [slot for slot, circuit in self.circuits.items() if circuit.allows(now_s)]
        return plan_for(self.routes, question, result, marked, embedder, reachable)

    async def pieces(
        self,
        question: str,
        result: SearchResult,
        options: Mapping[str, object],
        trace: RouteTrace,
        *,
        marked: str = "",
        embedder: str = "",
        extract: Callable[[], Awaitable[str]],
        live: bool = False,
    ) -> AsyncGenerator[Piece, None]:
        """The answer in pieces; the last carries `finish_reason` and the usage of all calls.

        Args:
            trace: filled in; `source` and `escalated` are final before the first piece comes.
            extract: the sentences of the documents; asked only when they are to answer.
            live: somebody reads along; see `Routes.stream_whole`.

        Raises:
            ModelError: no model of the plan answered and the documents do not either.
        """
        rule = self.routes.rules.answer(question)
        if rule is not None:
            trace.reason, trace.topic, trace.fixed = f"fixed answer by {rule.how}", rule.topic, rule.text
            for piece in self._own(rule.text, Source.RULE, trace):
                yield piece
            return
        way = self.plan(question, result, marked, embedder)
        trace.reason, trace.sensitive = way.reason, way.sensitive
        live = live and not self.routes.stream_whole
        failed: ModelError | None = None
        steps = [step for step in way.steps if step is not None]
        while steps:
            slot = steps.pop(0)
            checked = way.escalate and slot is Slot.RAG
            try:
                if live and not checked:
                    async with aclosing(self._live(slot, question, result, options, way, trace)) as parts:
                        async for piece in parts:
                            yield piece
                    return
                answer = await self._asked(slot, question, result, options, way, trace)
            except ModelError as error:
                if trace.source:  # words are out: they cannot be taken back
                    raise
                failed = error
                continue
            if checked and Slot.STRONG in steps:
                texts = [hit.text for hit in result.hits]
                trace.doubt = self._check(question, texts, answer.text, answer.finish_reason)
                if trace.doubt:
                    better = await self._escalated(question, result, options, way, trace)
                    answer, slot = (better, Slot.STRONG) if better is not None else (answer, slot)
            self._answered(slot, way, trace)
            yield Piece(answer.text, model=answer.model)
            yield Piece("", answer.finish_reason or "stop", trace.usage, answer.model)
            return
        if way.steps[-1] is not None:
            assert failed is not None
            raise failed
        if way.from_documents:
            text, source = await extract(), Source.KB
            if failed is not None:
                trace.reason += "; models failed, answered from the documents"
        else:
            text, source = refusal(language(question)), Source.REFUSAL
        for piece in self._own(text, source, trace):
            yield piece

    async def _escalated(
        self, question: str, result: SearchResult, options: Mapping[str, object], way: Plan, trace: RouteTrace
    ) -> Piece | None:
        """The stronger answer; None when that model fails: the doubtful answer is still an answer."""
        trace.escalated = True
        try:
            return await self._asked(Slot.STRONG, question, result, options, way, trace)
        except ModelError:
            return None

    def _own(self, text: str, source: Source, trace: RouteTrace) -> Sequence[Piece]:
        trace.source = source
        self.counts[source] += 1
        # Tokens that somebody bills: none, unless a model was asked before.
        return (Piece(text, model=EXTRACTIVE_MODEL), Piece("", "stop", trace.usage, EXTRACTIVE_MODEL))

    def _answered(self, slot: Slot, way: Plan, trace: RouteTrace) -> None:
        trace.source, trace.with_contexts = SOURCE_OF[slot], way.with_contexts
        self.counts[trace.source] += 1
        self.counts["escalated"] += trace.escalated

    async def _asked(
        self,
        slot: Slot,
        question: str,
        result: SearchResult,
        options: Mapping[str, object],
        way: Plan,
        trace: RouteTrace,
    ) -> Piece:
        messages = self._messages(slot, question, result, way)
        circuit, model = self.circuits[slot], self._models[slot]
        circuit.started(self._clock.now_s())
        try:
            answer = await model.complete(messages, options)
        except ModelError as error:
            self._failed(circuit, error)
            self._note(slot, messages, "", None, trace, error.kind)
            raise
        circuit.succeeded()
        self._note(slot, messages, answer.text, answer.usage, trace)
        return Piece(answer.text, answer.finish_reason, answer.usage, answer.model or self.routes.models[slot].model)

    async def _live(
        self,
        slot: Slot,
        question: str,
        result: SearchResult,
        options: Mapping[str, object],
        way: Plan,
        trace: RouteTrace,
    ) -> AsyncGenerator[Piece, None]:
        messages = self._messages(slot, question, result, way)
        circuit, name = self.circuits[slot], self.routes.models[slot].model
        circuit.started(self._clock.now_s())
        said: list[str] = []
        finish_reason, usage = "stop", None
        try:
            async with aclosing(self._models[slot].stream(messages, options)) as parts:
                async for part in parts:
                    finish_reason, usage = part.finish_reason or finish_reason, part.usage or usage
                    name = part.model or name
                    if part.text:
                        if not said:
                            self._answered(slot, way, trace)
                        said.append(part.text)
                        yield Piece(part.text, model=name)
        except ModelError as error:
            self._failed(circuit, error)
            self._note(slot, messages, "".join(said), usage, trace, error.kind)
            raise
        circuit.succeeded()
        if not said:
            self._answered(slot, way, trace)
        self._note(slot, messages, "".join(said), usage, trace)
        yield Piece("", finish_reason, trace.usage, name)

    def _failed(self, circuit: Circuit, error: ModelError) -> None:
        if error.kind == REFUSED:  # a question too long, or filtered: the model is there, and answered
            circuit.succeeded()
        else:
            circuit.failed(self._clock.now_s())

    def _messages(self, slot: Slot, question: str, result: SearchResult, way: Plan) -> list[dict[str, str]]:
        if way.with_contexts:
            return build_prompt(question, result.hits).messages()
        system = self.routes.system_of.get(slot, "")
        return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": question}]

    def _note(
        self,
        slot: Slot,
        messages: Sequence[Mapping[str, str]],
        text: str,
        usage: Usage | None,
        trace: RouteTrace,
        error: str = "",
    ) -> None:
        """Write a call down. A call that failed before a word was said is taken for free: nobody bills it."""
        model = self.routes.models[slot].model
        if usage is None:
            asked = sum(count_tokens(message["content"]) for message in messages) if text or not error else 0
            usage = Usage(asked, count_tokens(text))
        cost_usd = 0.0
        if usage.prompt_tokens or usage.completion_tokens:
            price = self._prices.cost_usd(model, usage.prompt_tokens, usage.completion_tokens) if self._prices else None
            cost_usd = price if price is not None else -1.0
        trace.calls.append(Call(slot, model, usage, None if cost_usd < 0 else cost_usd, error))
