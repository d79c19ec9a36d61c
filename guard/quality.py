"""What users make of the answers, in the serving process: key intents, questions asked again, thumbs.

The check worker says which intent a question belongs to and whether it was asked before; here it is counted. A hit of
the cache never reaches the worker: it was asked again when its session was given the same stored answer before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from guard.checks.tiers import deciding_tier
from guard.following.intents_file import Intent
from guard.quality_rows import IntentRow, UserRow, intent_row
from guard.stamps import Stamps
from slo.indicators import KEY_INTENT, REOPEN
from slo.sources.memory import MemorySource
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

GIVEN_COUNT = 2**17
WITHIN_S = 86_400.0
RETRY_S = 10.0
RELEASES_COUNT = 8
_JUDGED = (CheckResult.PASS, CheckResult.FAIL)
_RESULT = {CheckResult.PASS: "good", CheckResult.FAIL: "bad", CheckResult.UNAVAILABLE: "unknown"}

Increase = Callable[[str, Mapping[str, str]], None]


class QualityRecorder:
    """A recorder like any other, and the receiver of thumbs.

    source_of: exchange id of a hit -> that of the answer it was given, None when not known.
    """

    def __init__(
        self, memory: MemorySource, increase: Increase, intents: Iterable[Intent] = (),
        source_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._memory, self._increase, self.source_of = memory, increase, source_of
        self.minimums = {intent.name: intent.minimum for intent in intents}
        self._intents: dict[str, Counter[tuple[str, str]]] = {}
        self._users: dict[str, Counter[str]] = {}
        self._given = Stamps(GIVEN_COUNT)

    def served(self, exchange: Exchange) -> None:
        """Remember which stored answer a session was given; the same one again is a question asked again."""
        if not exchange.session or exchange.cache is CacheStatus.BYPASS or exchange.outcome is not Outcome.OK:
            return
        hit = exchange.cache is CacheStatus.HIT
        source = self.source_of(exchange.exchange_id) if hit else exchange.exchange_id
        if source is None:
            return
        before_s = self._given.seen((exchange.session, source), exchange.wall_s)
        if hit:
            again = before_s is not None and RETRY_S <= exchange.wall_s - before_s <= WITHIN_S
            self._asked(exchange.release, exchange.release if again else None)

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Its checks are done."""
        for finding in exchange.findings:
            if finding.check == "grounding" and finding.result in _JUDGED:
                tier = deciding_tier(finding)
                self._increase("sft_quality_grounding_answers_total", {"release": exchange.release, "tier": tier})
            elif finding.check == "intent" and finding.result in _RESULT:
                self._intent(exchange.release, finding)
            elif finding.check == "reopen" and finding.score is not None:
                earlier = finding.evidence[1] if len(finding.evidence) == 2 else None
                self._asked(exchange.release, earlier if finding.score >= 0.5 else None)

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """Nobody looked at these: neither their intent nor whether they were asked again is known."""

    def thumb(self, release: str, up: bool) -> None:
        """A user's thumb."""
        self._of(self._users, release)["up" if up else "down"] += 1

    def _intent(self, release: str, finding: Finding) -> None:
        name = finding.reason
        if name not in self.minimums:
            return
        result = _RESULT[finding.result]
        self._of(self._intents, release)[name, result] += 1
        self._increase("sft_quality_intent_answers_total", {"release": release, "intent": name, "result": result})
        if result != "unknown":
            self._memory.note(KEY_INTENT, release, result == "bad")

    def _asked(self, release: str, earlier: str | None) -> None:
        """One question of a session; earlier: the release whose answer to it was not enough."""
        held = earlier or release
        users = self._of(self._users, held)
        users["asked"] += 1
        self._memory.note(REOPEN, held, earlier is not None)
        if earlier is not None:
            users["reopened"] += 1
            self._increase("sft_quality_reopens_total", {"release": held})

    @staticmethod
    def _of(table: dict[str, Counter[str]] | dict[str, Counter[tuple[str, str]]], release: str) -> Counter:  # type: ignore[type-arg]
        found = table.setdefault(release, Counter())
        while len(table) > RELEASES_COUNT:
            del table[next(iter(table))]
        return found

    # -- asking ---------------------------------------------------------------------------------------------------

    def intent_rows(self) -> tuple[IntentRow, ...]:
        """Every key intent of every release that was asked anything of them."""
        return tuple(
            intent_row(release, name, counts[name, "good"], counts[name, "bad"], counts[name, "unknown"], minimum)
            for release, counts in self._intents.items()
            for name, minimum in self.minimums.items()
        )

    def user_rows(self) -> tuple[UserRow, ...]:
        """Thumbs and reopens by release."""
        found = []
        for release, n in self._users.items():
            thumbs, asked = n["up"] + n["down"], n["asked"]
            found.append(
                UserRow(
                    release, n["up"], n["down"], n["up"] / thumbs if thumbs else None, asked, n["reopened"],
                    n["reopened"] / asked if asked else None,
                )
            )  # fmt: skip
        return tuple(found)
