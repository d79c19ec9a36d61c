"""The last exchanges, for the admin API, feedback and exemplars of an incident. Bounded.

Words are those that the exchange log may hold (redacted, or none), of the last few exchanges, shown to the token only.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping

from guard.release.incident import Exemplar
from slo.types import FAILURES, CheckResult, Exchange, Finding

KEPT_COUNT = 1_000
RELEASE_OF_COUNT = 20_000  # thumbs come minutes later than answers
BAD_PER_RELEASE_COUNT = 20
WORDS_COUNT, WORDS_CHARS = 200, 2_000
RELEASES_COUNT = 16


class RecentExchanges:
    """A recorder like any other."""

    def __init__(self, kept_count: int = KEPT_COUNT) -> None:
        self._kept: OrderedDict[str, Exchange] = OrderedDict()
        self._kept_count = kept_count
        self._release_of: OrderedDict[str, str] = OrderedDict()
        self._bad: dict[str, deque[Exemplar]] = {}
        self._drift: dict[str, Finding] = {}
        self._words: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self.event_count: Counter[str] = Counter()  # exchanges of each release since the start

    def served(self, exchange: Exchange) -> None:
        """An answer ended."""
        self.event_count[exchange.release] += 1
        self._kept[exchange.exchange_id] = exchange
        if len(self._kept) > self._kept_count:
            self._kept.popitem(last=False)
        self._release_of[exchange.exchange_id] = exchange.release
        if len(self._release_of) > RELEASE_OF_COUNT:
            self._release_of.popitem(last=False)
        if exchange.outcome in FAILURES:
            self._remember_bad(exchange)

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Its checks are done."""
        if exchange.exchange_id in self._kept:
            self._kept[exchange.exchange_id] = exchange
        if text is not None and (text.get("question") or text.get("answer")):
            words = (str(text.get("question", ""))[:WORDS_CHARS], str(text.get("answer", ""))[:WORDS_CHARS])
            self._words[exchange.exchange_id] = words
            if len(self._words) > WORDS_COUNT:
                self._words.popitem(last=False)
        for finding in exchange.findings:
            if finding.check == "grounding":
                if finding.result is CheckResult.FAIL:
                    self._remember_bad(exchange)
            elif finding.check == "query_drift" and finding.score is not None:
                self._drift[exchange.release] = finding

    def release_of(self, exchange_id: str) -> str | None:
        """Which release gave an answer; None when it is too long ago, or was never given."""
        return self._release_of.get(exchange_id)

    def newest(self, limit: int) -> tuple[Exchange, ...]:
        """The last ones, newest first."""
        found: list[Exchange] = []
        for exchange in reversed(self._kept.values()):
            if len(found) >= limit:
                break
            found.append(exchange)
        return tuple(found)

    def words(self, exchange_id: str) -> tuple[str, str] | None:
        """(question, answer) of a recent exchange, as far as they are kept."""
        return self._words.get(exchange_id)

    def exemplars(self, release: str) -> tuple[Exemplar, ...]:
        """Bad answers of a release to look at, newest first."""
        return tuple(reversed(self._bad.get(release, ())))

    def drift(self) -> Mapping[str, Finding]:
        """The last drift finding of each release."""
        return self._drift

    def _remember_bad(self, exchange: Exchange) -> None:
        bad = self._bad.setdefault(exchange.release, deque(maxlen=BAD_PER_RELEASE_COUNT))
        trace_id = exchange.traceparent.split("-")[1] if exchange.traceparent.count("-") == 3 else ""
        bad.append(Exemplar(exchange.exchange_id, trace_id))
        while len(self._bad) > RELEASES_COUNT:
            self._bad.pop(next(iter(self._bad)))
