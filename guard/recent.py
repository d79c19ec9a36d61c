"""The last exchanges, for the admin API, feedback and exemplars of an incident. Bounded.

Words are those that the exchange log may hold (redacted, or none), of the last few exchanges, shown to the token only.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from guard.release.incident import Exemplar
from guard.slots import Recall
from slo.drafts import with_findings
from slo.sources.lives import Lives
from slo.types import FAILURES, CheckResult, Exchange, Finding, Outcome

KEPT_COUNT = 1_000
RELEASE_OF_COUNT = 2**16  # places: thumbs come minutes later than answers
BAD_PER_RELEASE_COUNT = 20
WORDS_COUNT, WORDS_CHARS = 200, 2_000
RELEASES_COUNT = 16
_OK = Outcome.OK


class RecentExchanges:
    """A recorder like any other. lives: whose answers of a former life count for no stage of the new one."""

    def __init__(self, kept_count: int = KEPT_COUNT, lives: Lives | None = None) -> None:
        self._lives = lives
        self._kept: dict[str, Exchange] = {}
        self._kept_ids: deque[str] = deque()  # a queue beside a dict costs a third of an OrderedDict
        self._kept_count = kept_count
        self._release_of = Recall[str](RELEASE_OF_COUNT)
        self._given_up: dict[str, tuple[Finding, ...]] = {}  # findings of kept exchanges that do not carry them
        self._bad: dict[str, deque[Exemplar]] = {}
        self._drift: dict[str, Finding] = {}
        self._words: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self.event_count: Counter[str] = Counter()  # of each release, since the start

    def served(self, exchange: Exchange) -> None:
        """An answer ended."""
        self.served_many((exchange,))

    def served_many(self, exchanges: Iterable[Exchange]) -> None:
        """Many did."""
        kept, kept_ids, kept_count = self._kept, self._kept_ids, self._kept_count
        given_up, release_of = self._given_up, self._release_of
        event_count, lives = self.event_count, self._lives
        for exchange in exchanges:
            exchange_id, release = exchange.exchange_id, exchange.release
            if not lives or not lives.is_former(exchange):
                event_count[release] += 1
            if exchange_id not in kept:
                kept_ids.append(exchange_id)
                if len(kept_ids) > kept_count:
                    oldest = kept_ids.popleft()
                    kept.pop(oldest, None)
                    given_up.pop(oldest, None)
            kept[exchange_id] = exchange
            release_of[exchange_id] = release
            if exchange.outcome is not _OK and exchange.outcome in FAILURES:
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

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """Nobody looked at these; none is bad for it."""
        kept, given_up = self._kept, self._given_up
        for exchange in exchanges:
            if exchange.exchange_id in kept:
                given_up[exchange.exchange_id] = findings

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        yield "recent_exchanges", len(self._kept)
        yield "recent_words", len(self._words)
        yield "releases_of_answers", len(self._release_of)

    def release_of(self, exchange_id: str) -> str | None:
        """Which release gave an answer; None when it is too long ago, or was never given."""
        return self._release_of.get(exchange_id)

    def newest(self, limit: int) -> tuple[Exchange, ...]:
        """The last ones, newest first."""
        found: list[Exchange] = []
        for exchange in reversed(self._kept.values()):
            if len(found) >= limit:
                break
            findings = self._given_up.get(exchange.exchange_id)
            found.append(exchange if findings is None else with_findings(exchange, findings))
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
