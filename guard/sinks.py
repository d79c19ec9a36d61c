"""Who is told of the end of an exchange: the small adapters between data path, checks and recorders."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from exporters.fanout import Fanout
from guard.cache.care import CacheCare
from guard.pipeline import WorkerPipeline
from guard.ports import Capture, ExchangeText
from guard.probing.runner import ProbeRunner
from slo.drafts import with_findings
from slo.sources.memory import MemorySource
from slo.types import Exchange, Finding

ENDED_COUNT = 256
"""So many ends are counted at once at most; a batch takes one to two milliseconds."""


class PathSink:
    """Told by the data path of each end; hands the words on to the checks.

    What ends in one turn of the event loop is counted at its end, all together: twenty exchanges in a row cost a
    recorder less than half of twenty times one. Whatever comes in after this turn finds them counted.
    """

    def __init__(self, fanout: Fanout, pipeline: WorkerPipeline | None) -> None:
        self._fanout, self._pipeline = fanout, pipeline
        self._ended: list[tuple[Exchange, Capture | None]] = []

    def finished(self, exchange: Exchange, capture: Capture | None) -> None:
        """Count at the end of this turn; check later."""
        ended = self._ended
        ended.append((exchange, capture))
        if len(ended) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif len(ended) >= ENDED_COUNT:
            self.flush()

    def flush(self) -> None:
        """Count what has ended."""
        ended = self._ended
        if not ended:
            return
        self._ended = []
        self._fanout.served_many([exchange for exchange, _ in ended])
        pipeline = self._pipeline
        to_check: list[tuple[Exchange, Capture]] = []
        for exchange, capture in ended:
            if capture is None or pipeline is None:
                self._fanout.checked(exchange, None)  # nothing to check: recorded as it is
            else:
                to_check.append((exchange, capture))
        if pipeline is not None and to_check:
            pipeline.offer_many(to_check)


class CheckedSink:
    """Told by the pipeline; words are redacted already."""

    def __init__(self, fanout: Fanout, care: CacheCare | None = None) -> None:
        self._fanout, self._care = fanout, care
        self.probes: ProbeRunner | None = None

    def checked(self, exchange: Exchange, text: ExchangeText | None) -> None:
        """Record the findings and, in the log, the words; those of the guard's own requests go to the cache alone."""
        if self.probes is not None and self.probes.is_probe(exchange):
            self.probes.checked(exchange)
            return
        if self._care is not None and self._care.is_quiet(exchange):
            self._care.quiet_checked(exchange)
            return
        self._fanout.checked(exchange, _words(text))

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """As `checked`, for exchanges nobody looked at; most of them are users', told in one go."""
        probes, care = self.probes, self._care
        if probes is not None or care is not None:
            users = []
            for exchange in exchanges:
                if (probes is not None and probes.is_probe(exchange)) or (care is not None and care.is_quiet(exchange)):
                    self.checked(with_findings(exchange, findings), None)
                else:
                    users.append(exchange)
            exchanges = users
        self._fanout.given_up(exchanges, findings)


class WindowsRecorder:
    """The windows as a recorder; words are no business of theirs."""

    def __init__(self, memory: MemorySource) -> None:
        self._memory = memory

    def served(self, exchange: Exchange) -> None:
        self._memory.served(exchange)

    def served_many(self, exchanges: Iterator[Exchange]) -> None:
        self._memory.served_many(exchanges)

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None) -> None:
        self._memory.checked(exchange)

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        self._memory.given_up(exchanges, findings)


def _words(text: ExchangeText | None) -> dict[str, object] | None:
    if text is None:
        return None
    words: dict[str, object] = {}
    for name in ("question", "answer", "retrieval_s", "response_model", "answer_source"):
        value = getattr(text, name)
        if value not in ("", None):
            words[name] = value
    if text.contexts is not None:
        words["contexts"] = list(text.contexts)
    if text.escalated:
        words["escalated"] = True
    if text.finish_reasons:
        words["finish_reasons"] = list(text.finish_reasons)
    return words
