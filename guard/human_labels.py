"""What people say about single answers, beside what the grounding check said: the source of the corrected rate.

A label comes through the feedback endpoint with the admin token ("hallucinated" | "supported"); a thumb is not one,
since people dislike answers for many reasons. Kept per release and on disk, so that a restart loses none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from guard.slots import Recall
from slo.ppi import Corrected, Labelled, corrected_rate
from slo.types import CheckResult, Exchange, Finding

log = logging.getLogger("sft-guard")

NAME = "human_labels.json"
VERDICTS_COUNT = 2**16  # places: labels come hours later than answers
RELEASES_COUNT = 16
LABELS_COUNT = 5_000
HALLUCINATED, SUPPORTED = "hallucinated", "supported"


class _Release(msgspec.Struct):
    """labels: exchange -> (the check failed it, a person calls it hallucinated). The last word of a person counts."""

    answer_count: int = 0
    flagged_count: int = 0
    labels: dict[str, tuple[bool, bool]] = {}


class HumanLabels:
    """A recorder like any other. Only from the event loop.

    Raises (constructor): nothing; a damaged file is moved aside and said in the log.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._lock = threading.Lock()
        self._number = self._written = 0  # of the copies to be written, so that no older one comes last
        self._verdicts = Recall[tuple[str, bool]](VERDICTS_COUNT)
        self._releases: dict[str, _Release] = {}
        try:
            self._releases = msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Release])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s: cannot be read (%s); moved aside", self._path.name, type(error).__name__)
            if self._path.exists():
                os.replace(self._path, self._path.with_suffix(".damaged"))

    def served(self, exchange: Exchange) -> None:
        """Nothing is judged yet."""

    def served_many(self, exchanges: Iterable[Exchange]) -> None:
        """Nor of many."""

    def checked(self, exchange: Exchange, text: Mapping[str, object] | None = None) -> None:
        """Remember what the grounding check said."""
        for finding in exchange.findings:
            if finding.check == "grounding":
                if finding.result is CheckResult.PASS or finding.result is CheckResult.FAIL:
                    flagged = finding.result is CheckResult.FAIL
                    release = self._release(exchange.release)
                    release.answer_count += 1
                    release.flagged_count += flagged
                    self._verdicts[exchange.exchange_id] = (exchange.release, flagged)
                return

    def given_up(self, exchanges: Sequence[Exchange], findings: tuple[Finding, ...]) -> None:
        """Nobody looked at these: there is nothing to remember."""

    async def label(self, exchange_id: str, label: str) -> str | None:
        """A person's word on one answer; the release, or None when the check has not judged this answer.

        Raises:
            OSError: it could not be written; it is not counted then.
        """
        found = self._verdicts.get(exchange_id)
        if found is None:
            return None
        name, flagged = found
        labels = self._release(name).labels
        before = labels.pop(exchange_id, None)
        labels[exchange_id] = (flagged, label == HALLUCINATED)
        try:
            await asyncio.to_thread(self._write, *self._copy())
        except OSError:
            del labels[exchange_id]
            if before is not None:
                labels[exchange_id] = before
            raise
        if len(labels) > LABELS_COUNT:
            del labels[next(iter(labels))]
        return name

    def held(self) -> Iterator[tuple[str, int]]:
        """(table, entries) of each."""
        yield "verdicts", len(self._verdicts)
        yield "human_labels", sum(len(release.labels) for release in self._releases.values())

    def save(self) -> None:
        """Durable before it returns. Raises OSError."""
        self._write(*self._copy())

    def _copy(self) -> tuple[bytes, int]:
        self._number += 1
        return msgspec.json.encode(self._releases), self._number

    def _write(self, data: bytes, number: int) -> None:
        with self._lock:
            if number <= self._written:
                return  # a later copy, which holds this one, is there already
            beside = self._path.with_suffix(".tmp")
            with beside.open("wb") as target:
                target.write(data)
                target.flush()
                os.fsync(target.fileno())
            os.replace(beside, self._path)
            self._written = number

    def counts(self, release: str) -> Labelled:
        """What is known of a release."""
        found = self._releases.get(release, _Release())
        flagged = [bad for was_flagged, bad in found.labels.values() if was_flagged]
        clean = [bad for was_flagged, bad in found.labels.values() if not was_flagged]
        return Labelled(
            found.answer_count, found.flagged_count, len(flagged), sum(flagged), len(clean), sum(clean)
        )  # fmt: skip

    def corrected(self, release: str) -> Corrected | None:
        """The corrected hallucination rate, None under 30 labels."""
        return corrected_rate(self.counts(release))

    def gauges(self) -> Iterator[tuple[str, Mapping[str, str], float | None]]:
        """Rows for the metrics page."""
        for release, found in self._releases.items():
            yield "sft_quality_human_labels", {"release": release}, float(len(found.labels))
            if (rate := self.corrected(release)) is not None:
                for bound, value in (("estimate", rate.rate), ("lower", rate.low), ("upper", rate.high)):
                    yield "sft_quality_hallucination_corrected_ratio", {"release": release, "bound": bound}, value

    def _release(self, name: str) -> _Release:
        found = self._releases.get(name)
        if found is None:
            found = self._releases[name] = _Release()
            while len(self._releases) > RELEASES_COUNT:
                self._releases.pop(next(iter(self._releases)))
        return found
