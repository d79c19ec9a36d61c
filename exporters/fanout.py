"""One exchange to every recorder; a broken recorder costs a counter, never an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import length_hint
from typing import Protocol

from slo.drafts import with_findings
from slo.types import Exchange, Finding


class Recorder(Protocol):
    """Something that keeps or publishes what was measured. Called on the event loop: microseconds, no waiting."""

    def served(self, exchange: Exchange) -> None:
        """Told once per exchange, at its end, before any check."""
        ...

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None) -> None:
        """Told once per exchange when its checks are done, were given up, or were never due.

        exchange: with its findings. text: what was said, redacted already (question, answer, contexts,
        retrieval_s...), or None.
        """
        ...


class Fanout:
    """Tells every recorder, and counts the ones that raise.

    on_failure: told (name, error) for each failure; what it raises is ignored. `failure_count` has the sums.
    """

    def __init__(
        self, recorders: Mapping[str, Recorder], on_failure: Callable[[str, Exception], None] | None = None
    ) -> None:
        self._recorders = tuple(recorders.items())
        self._on_failure = on_failure
        self.failure_count: dict[str, int] = dict.fromkeys(recorders, 0)

    def served(self, exchange: Exchange) -> None:
        for name, recorder in self._recorders:
            try:
                recorder.served(exchange)
            except Exception as error:  # A recorder is foreign code on the path of an answer.
                self._failed(name, error)

    def served_many(self, exchanges: Sequence[Exchange]) -> None:
        """`served` for all that ended in one turn of the loop.

        A recorder may have a method `served_many` of its own, which takes an iterator: what it takes from it before it
        raises is lost to it, and it is called again for the rest. The others are told one by one.
        """
        for name, recorder in self._recorders:
            many = getattr(recorder, "served_many", None)
            if many is None:
                for exchange in exchanges:
                    try:
                        recorder.served(exchange)
                    except Exception as error:  # As above.
                        self._failed(name, error)
                continue
            rest = iter(exchanges)
            while True:
                left_count = length_hint(rest)
                try:
                    many(rest)
                    break
                except Exception as error:  # As above.
                    self._failed(name, error)
                    if length_hint(rest) == left_count:  # it took none: it would never end
                        break

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        for name, recorder in self._recorders:
            try:
                recorder.checked(exchange, text)
            except Exception as error:  # As above.
                self._failed(name, error)

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """`checked`, without text, for many exchanges that share their findings: nobody looked at them.

        A recorder may have a method `given_up` of its own for it; to the others it is said one by one.
        """
        each: list[Exchange] | None = None
        for name, recorder in self._recorders:
            many = getattr(recorder, "given_up", None)
            try:
                if many is not None:
                    many(exchanges, findings)
                    continue
            except Exception as error:  # As above.
                self._failed(name, error)
                continue
            if each is None:
                each = [with_findings(exchange, findings) for exchange in exchanges]
            for exchange in each:
                try:
                    recorder.checked(exchange, None)
                except Exception as error:  # As above.
                    self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        self.failure_count[name] += 1
        if self._on_failure is not None:
            try:
                self._on_failure(name, error)
            except Exception:  # Whoever counts failures must not become one.
                self.failure_count[name] += 1
