"""Have the questions moved away from what the release was tested with? Centroid of a window against a reference. Pure.

The distance is 1 - cosine of the two centroids; the effect size says how many times larger the move is than what chance
alone would give for samples of that size (about 1 without drift). A centroid sees a shift of subject, not a small share
of strange questions.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Sequence
from operator import mul
from pathlib import Path

import msgspec

from guard.checks.lexicon import normalise, terms, weight, words
from guard.checks.spec import DRIFT_COMPONENT, HASHED_DIM, HASHED_FINGERPRINT
from slo.artefact import from_json
from slo.codec import NOT_JSON
from slo.errors import DataError
from slo.types import CheckResult, Finding

CHECK = "query_drift"
EFFECT_LIMIT = 2.0
DISTANCE_LIMIT = 0.05
"""A drift counts from this distance and this effect on: significance alone is not a change worth a page."""

PROBES = ("How do I reset my password?", "leave rules?", "The limit is 14 days.", "\u8acb\u5047\u898f\u5b9a")
"""Fixed texts whose cosines to each other tell whether vectors are still computed as they were."""

PROBE_SLACK = 0.002

RELEASE_COUNT = 32
"""Releases whose windows are kept; the oldest goes."""


class Reference(msgspec.Struct, frozen=True):
    """Centroid of the questions a release was tested with. mean: of unit vectors, shape (dim,), not normalised.

    day_spread: distance between the centroids of two ordinary days, where it is known; less than that is no drift.
    """

    fingerprint: str
    count: int
    mean: tuple[float, ...]
    day_spread: float | None = None


def load_reference(path: Path) -> Reference:
    """Read a reference file, or the reference in a baseline.

    One made by another embedder is returned as it is: the check then says `unavailable`, naming both.

    Raises:
        DataError: missing, not a reference, a baseline without one, or hashed terms that were computed differently.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise _no_reference(path, error) from error
    if b'"sha256"' in text:
        return _of_baseline(path, text)
    try:
        found = msgspec.json.decode(text, type=Reference)
    except NOT_JSON as error:
        raise _no_reference(path, error) from error
    if found.count < 2 or not found.mean or not all(map(math.isfinite, found.mean)):
        raise DataError(f"{path}: no drift reference (count {found.count}, {len(found.mean)} numbers); make it anew")
    return found


def _of_baseline(path: Path, text: bytes) -> Reference:
    baseline = from_json(text, path.name)
    kept = [d for d in baseline.drift if d.component == DRIFT_COMPONENT and d.count >= 2 and len(d.mean) == d.dim]
    kept.sort(key=lambda d: d.fingerprint != HASHED_FINGERPRINT)
    if not kept:
        why = baseline.drift_missing or "none was asked for"
        raise DataError(f"{path}: the baseline has no drift reference ({why}); collect it again from a log with text")
    found = kept[0]
    if found.fingerprint == HASHED_FINGERPRINT:
        vectors = [hashed_vector(probe) for probe in PROBES]
        now = [math.fsum(map(mul, vectors[i], vectors[j])) for i in range(len(vectors)) for j in range(i)]
        same = len(now) == len(found.probes) and found.dim == HASHED_DIM and abs(found.norm - 1.0) < 0.01
        if not same or any(abs(a - b) > PROBE_SLACK for a, b in zip(now, found.probes, strict=True)):
            raise DataError(f"{path}: its drift reference was computed differently; collect the baseline again")
    return Reference(found.fingerprint, found.count, found.mean, found.day_spread)


def _no_reference(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: no drift reference ({error}); leave it out to learn from the first questions")


def hashed_vector(question: str) -> list[float]:
    """Unit vector of hashed terms, shape (HASHED_DIM,): works in every language, needs no model. Zero when empty."""
    vector = [0.0] * HASHED_DIM
    for term in terms(words(normalise(question).lower())):
        code = zlib.crc32(term.encode("utf-8", "surrogatepass"))
        vector[(code >> 1) % HASHED_DIM] += weight(term) * (1.0 if code & 1 else -1.0)
    norm = math.sqrt(math.fsum(v * v for v in vector))
    return [v / norm for v in vector] if norm else vector


class _Window:
    """The last questions of one release and their sum."""

    def __init__(self, length: int) -> None:
        self.vectors: deque[list[tuple[int, float]]] = deque()  # a question has a dozen terms: most places are empty
        self.length = length
        self.total: list[float] = []

    def add(self, vector: Sequence[float]) -> None:
        own = [(place, value) for place, value in enumerate(vector) if value]
        total = self.total = self.total or [0.0] * len(vector)
        for place, value in own:
            total[place] += value
        self.vectors.append(own)
        if len(self.vectors) > self.length:
            for place, value in self.vectors.popleft():
                total[place] -= value


class DriftCheck:
    """Windows per release against one reference; learns the reference from stable when it is given none."""

    def __init__(self, window: int, reference: Reference | None = None, fingerprint: str = HASHED_FINGERPRINT) -> None:
        self.window, self.reference, self.fingerprint = window, reference, fingerprint
        self._windows: dict[str, _Window] = {}
        self._learning: list[float] = []
        self._learnt = 0

    def check(self, vector: Sequence[float], release: str, *, stable: bool) -> Finding:
        """Take one question. Score: distance of the centroids in [0, 1]."""
        if self.reference is not None and self.reference.fingerprint != self.fingerprint:
            reason = f"reference was made with {self.reference.fingerprint}, questions are read with {self.fingerprint}"
            return Finding(CHECK, CheckResult.UNAVAILABLE, None, reason, (), self.fingerprint)
        if not any(vector):
            return Finding(CHECK, CheckResult.SKIPPED, None, "no words in the question", (), self.fingerprint)
        if self.reference is None:
            if stable:
                self._learn(vector)
            reason = f"learning the reference, {self._learnt} of {self.window} questions"
            return Finding(CHECK, CheckResult.SKIPPED, None, reason, (), self.fingerprint)
        if release not in self._windows and len(self._windows) >= RELEASE_COUNT:
            del self._windows[next(iter(self._windows))]
        window = self._windows.setdefault(release, _Window(self.window))
        window.add(vector)
        count = len(window.vectors)
        if count < self.window:
            return Finding(
                CHECK, CheckResult.SKIPPED, None, f"{count} of {self.window} questions", (), self.fingerprint
            )
        distance, effect = compare([v / count for v in window.total], count, self.reference)
        spread = self.reference.day_spread
        drifted = effect >= EFFECT_LIMIT and distance >= max(DISTANCE_LIMIT, spread or 0.0)
        reason = (
            f"distance {distance:.3f}, effect {effect:.1f} x chance, window {count}, reference {self.reference.count}"
            + ("" if spread is None else f", two ordinary days {spread:.3f} apart")
        )
        return Finding(CHECK, CheckResult.FAIL if drifted else CheckResult.PASS, distance, reason, (), self.fingerprint)

    def _learn(self, vector: Sequence[float]) -> None:
        self._learning = (
            [a + b for a, b in zip(self._learning, vector, strict=True)] if self._learning else list(vector)
        )
        self._learnt += 1
        if self._learnt >= self.window:
            mean = tuple(v / self._learnt for v in self._learning)
            self.reference = Reference(self.fingerprint, self._learnt, mean)


def compare(mean: Sequence[float], count: int, reference: Reference) -> tuple[float, float]:
    """Return (distance in [0, 1], effect size) of a window's mean of unit vectors against the reference.

    Effect: length of the move / length that chance gives two samples of these sizes, sqrt((1 - R^2) (1/n + 1/m)) with R
    the length of the reference mean.
    """
    length, other = math.hypot(*mean), math.hypot(*reference.mean)
    if not length or not other:
        return 1.0, 0.0
    cosine = math.fsum(map(mul, mean, reference.mean)) / (length * other)
    move = math.dist(mean, reference.mean)
    chance = math.sqrt(max(1e-9, 1.0 - other * other) * (1 / count + 1 / reference.count))
    return min(1.0, max(0.0, 1.0 - cosine)), move / chance
