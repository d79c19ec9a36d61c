"""Drift of the questions: learns what stable is asked, then judges each release window by window.

stable's questions ─► kept until 600, 1,200, ... `learn_count` ─► fitted beside (a thread) ─► kept on the disk
every question ─► how much of a stranger ─► window of 200 ─► effect, share of strangers, groups that moved most
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard.checks import pii
from guard.checks.drifting.alarm import Alarm
from guard.checks.drifting.novelty import MIN_CALIBRATION, MIN_REFERENCE, Novelty, codes, fit, plain
from guard.checks.drifting.store import load_novelty, save_novelty
from guard.checks.semantic import Semantic
from guard.following.components import Moved
from slo.errors import DataError

log = logging.getLogger("guard.checks")

FIRST_FIT = 750
EXAMPLE_CHARS = 120
SHOWN = 3
RELEASES_COUNT = 16
assert FIRST_FIT >= MIN_REFERENCE + 2 * MIN_CALIBRATION


@dataclass(frozen=True, slots=True)
class Cluster:
    """A group of like questions and its share of the window and of the baseline. examples: redacted questions."""

    share: float
    baseline_share: float
    examples: tuple[str, ...]


@dataclass(slots=True)
class _Window:
    alarm: Alarm
    logits: list[float] = field(default_factory=list)
    vectors: list[Any] = field(default_factory=list)
    shown: deque[str] = field(default_factory=lambda: deque(maxlen=10_000))


class QueryDrift:
    """Questions of one script, read by one set of embedders.

    spaces: the embedders, the first of which groups the questions. directory: where the fitted model is kept; None
    forgets it at the end.
    """

    def __init__(self, label: str, spaces: Sequence[Semantic], *, window: int, learn_count: int, directory: Path | None,
                 seed: int = 0, examples: bool = True) -> None:  # fmt: skip
        self.label, self._spaces = label, tuple(spaces)
        self._shown = shown if examples else lambda _: ""
        self._window, self._learn_count, self._seed = window, learn_count, seed
        self._file = directory / f"drift-{label}.npz" if directory is not None else None
        self._learning: list[str] = []
        self._vectors: list[list[Any]] = [[] for _ in self._spaces]
        self._next_fit = min(FIRST_FIT, learn_count)
        self._windows: dict[str, _Window] = {}
        self._fitting: threading.Thread | None = None
        self.model: Novelty | None = None
        self.problem = ""
        self._load()

    def _load(self) -> None:
        if self._file is None or not self._file.exists():
            return
        try:
            model = load_novelty(self._file)
        except DataError as error:
            self.problem = str(error)
            return
        ours = tuple(space.embedder.fingerprint for space in self._spaces)
        if model.fingerprints != ours or model.window != self._window:
            self.problem = (
                f"{self._file.name} was learnt with embedder {', '.join(model.fingerprints)} and windows of "
                f"{model.window}, questions are read with {', '.join(ours)} and {self._window}: remove the file "
                "to learn anew, or set checks.drift.embedder back"
            )
            return
        self.model = model
        self._next_fit = self._learn_count + 1  # learnt before: traffic of now may be what has to be judged

    def take(self, question: str, release: str, *, stable: bool) -> tuple[Moved, tuple[Cluster, ...]] | None:
        """Take one question; a result at the end of a window, and while nothing can be said."""
        if self.problem:
            return Moved(0.0, 0.0, "unavailable", self.problem), ()
        text = plain(question)
        if not text:
            return None
        vectors = [space.vectors([text])[0] for space in self._spaces]
        if stable and self._next_fit <= self._learn_count:
            self._learn(question, vectors)
        model = self.model
        if model is None:
            count = len(self._learning)
            return Moved(0.0, 0.0, "learning", f"{count} of {self._next_fit} questions of stable"), ()
        return self._judge(model, question, vectors, release)

    def _learn(self, question: str, vectors: list[Any]) -> None:
        self._learning.append(question)
        for kept, vector in zip(self._vectors, vectors, strict=True):
            kept.append(vector)
        if len(self._learning) < self._next_fit or (self._fitting is not None and self._fitting.is_alive()):
            return
        done = self._next_fit
        self._next_fit = self._learn_count + 1 if done >= self._learn_count else min(done * 2, self._learn_count)
        questions, kept = list(self._learning), [list(v) for v in self._vectors]
        if self._next_fit > self._learn_count:
            self._learning, self._vectors = [], [[] for _ in self._spaces]
        self._fitting = threading.Thread(target=self._fit, args=(questions, kept), daemon=True)
        self._fitting.start()

    def _fit(self, questions: list[str], vectors: list[list[Any]]) -> None:
        import numpy as np

        try:
            model = fit(
                questions, [np.stack(v) for v in vectors], tuple(s.embedder.fingerprint for s in self._spaces),
                window=self._window, seed=self._seed, examples=[self._shown(q) for q in questions],
            )  # fmt: skip
            if self._file is not None:
                save_novelty(self._file, model)
        except Exception as error:  # what was learnt before goes on; a defect here must not stop the checks
            why = str(error) if isinstance(error, ValueError) else type(error).__name__
            log.warning("drift of questions (%s) could not be learnt from %d: %s", self.label, len(questions), why)
            if self.model is None and self._next_fit > self._learn_count:
                self._next_fit = min(FIRST_FIT, self._learn_count)  # from the questions to come, or it never would be
            return
        self.model, self._windows = model, {}

    def wait(self) -> None:
        """Until a fit under way has ended."""
        if self._fitting is not None:
            self._fitting.join()

    def _judge(
        self, model: Novelty, question: str, vectors: list[Any], release: str
    ) -> tuple[Moved, tuple[Cluster, ...]] | None:
        import numpy as np

        logit = float(model.logits(model.features([v[None, :] for v in vectors], [codes(question)]))[0])
        if release not in self._windows and len(self._windows) >= RELEASES_COUNT:
            del self._windows[next(iter(self._windows))]
        window = self._windows.setdefault(release, _Window(Alarm(model.limits)))
        window.logits.append(logit)
        window.vectors.append(vectors[0])
        window.shown.append(self._shown(question))
        if len(window.logits) < self._window:
            return None
        matrix, logits = np.stack(window.vectors), np.array(window.logits, dtype=np.float32)
        said = model.judge(logits, matrix)
        state = window.alarm.take(said.effect)
        clusters = moved_most(model, matrix, logits, list(window.shown)) if state != "steady" else ()
        window.logits, window.vectors = [], []
        window.shown.clear()
        reason = (
            f"{said.effect:.1f} spreads of ordinary windows (5 % pass {model.limits[0]:.1f}), at least "
            f"{said.share:.0%} of {said.count} questions are like none of the baseline's {len(model.spaces[0])}"
        )
        return Moved(said.effect, said.share, state, reason), clusters


def shown(question: str) -> str:
    """As people may see it: personal data out, cut."""
    return str(pii.redact(" ".join(question.split())[: 4 * EXAMPLE_CHARS])[0])[:EXAMPLE_CHARS]


def moved_most(model: Novelty, vectors: Any, logits: Any, questions: Sequence[str]) -> tuple[Cluster, ...]:
    """Strangers as groups of their own (the most alike first), then known groups whose share grew most."""
    import numpy as np

    strange = np.flatnonzero(logits > model.stranger_logit)
    found: list[Cluster] = []
    if len(strange):
        likeness = vectors[strange] @ vectors[strange].T
        left = set(range(len(strange)))
        while left and len(found) < SHOWN:
            rows = sorted(left)
            near = {i: [j for j in rows if likeness[i, j] >= 0.5] for i in rows}
            middle = max(rows, key=lambda i: (len(near[i]), -i))
            group = sorted(near[middle], key=lambda j: (-float(likeness[middle, j]), j))
            examples = tuple(dict.fromkeys(questions[int(strange[j])] for j in group))[:SHOWN]
            found.append(Cluster(len(group) / len(logits), 0.0, examples))
            left -= set(group)
    of = (vectors @ model.groups.T).argmax(axis=1)
    now = np.bincount(of, minlength=len(model.groups)) / len(of)
    grown = now - model.group_shares
    for group in np.argsort(-grown)[:SHOWN]:
        expected = float(model.group_shares[group])
        if grown[group] * len(of) >= 3.0 * np.sqrt(max(1.0, expected * len(of))):
            found.append(Cluster(float(now[group]), expected, (model.group_examples[int(group)],)))
    return tuple(found)
