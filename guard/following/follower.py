"""One exchange after another: intent, question asked again, drift. The worker asks it after the checks.

Runs on redaction-free text in the worker process and lets nothing of it out but redacted examples.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guard.checks.frames import DriftNews
from guard.checks.semantic import Semantic
from guard.checks.similarity import lexical_cosine
from guard.checks.spec import FollowSpec
from guard.following.components import ComponentWatch
from guard.following.intents import IntentIndex
from guard.following.intents_file import load_intents
from guard.following.query_drift import QueryDrift
from guard.following.reopen import Asked, Reopens
from guard.following.space import Space
from guard.limits import TokenBucket
from guard.ports import ExchangeText
from rag.defects import text_defect
from rag.text import cjk_ratio
from slo.types import CheckResult, Finding

log = logging.getLogger("guard.checks")

QUESTION_CHARS = 2_000
CONTEXTS_COUNT = 10
DRIFT_PER_S, DRIFT_BURST = 50.0, 1_000.0
"""Exchanges read for drift: a window of 200 fills in seconds all the same, and the checks keep their time."""

GOOD_NEEDS = ("grounding",)
GOOD_SPOILS = ("rules", "grounding", "zero_hit")
"""An answer to a key intent is good when grounding passed and none of these failed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an exchange beside its words."""

    exchange_id: str
    wall_s: float
    release: str
    stable: bool
    session: str


class Follower:
    """Everything that remembers.

    Raises:
        ConfigError: intents.yaml is wrong.
    """

    def __init__(self, spec: FollowSpec) -> None:
        self._spec = spec
        self._space = Space()
        self._intents = IntentIndex(load_intents(spec.intents_path) if spec.intents_path else (), self._space)
        self._reopens = Reopens(spec.reopen_s)
        self._directory = Path(spec.state_dir) if spec.state_dir else None
        self._semantic: Semantic | None = None
        self._query: dict[str, QueryDrift] = {}
        self._drift_semantic: Semantic | None = None
        self._drift_problem = ""
        self._told: dict[tuple[str, str], str] = {}
        self._reads = TokenBucket(DRIFT_PER_S, DRIFT_BURST)
        windows = max(5, spec.drift_learn // (4 * spec.drift_window))
        self._components = {
            name: ComponentWatch(spec.drift_window, min(windows, 25))
            for name in ("retrieval", "answer", "kb", "language")
        }  # fmt: skip
        if spec.drift and spec.drift_embedder:
            threading.Thread(target=self._load_own, daemon=True).start()

    def embed_with(self, semantic: Semantic | None) -> None:
        """The worker's embedder is there."""
        if semantic is not self._semantic:
            self._semantic = semantic
            self._space.embed_with(semantic)

    def _load_own(self) -> None:
        from rag.embedding import embedder_status, load_embedder

        ok, line = embedder_status(self._spec.drift_embedder)
        try:
            embedder = load_embedder(self._spec.drift_embedder, threads=1) if ok else None
        except Exception as error:  # whatever a model library raises
            embedder, line = None, " ".join(str(error).split())[:200]
        if embedder is None:
            self._drift_problem = f"checks.drift.embedder: {line}"
        else:
            self._drift_semantic = Semantic(embedder)

    def follow(
        self, text: ExchangeText, facts: Facts, findings: Sequence[Finding], *, busy: bool = False
    ) -> tuple[list[Finding], list[DriftNews]]:
        """Findings beside those of the checks, and what there is to say of drift. Never raises."""
        found: list[Finding] = []
        news: list[DriftNews] = []
        question = text.question[:QUESTION_CHARS]
        try:
            if self._intents.intents:
                found.append(self._intent(question, findings))
            if facts.session:
                found.append(self._reopen(question, facts))
            if self._spec.drift and self._reads.take(facts.wall_s):
                news = self._drift(text, question, facts, findings, busy=busy)
        except Exception as error:  # a defect here must not cost what the checks found
            log.warning("following failed: %s", type(error).__name__)
        return found, news

    # -- key intents ----------------------------------------------------------------------------------------------

    def _intent(self, question: str, findings: Sequence[Finding]) -> Finding:
        name, cosine = self._intents.name_of(question)
        if not name:
            return Finding("intent", CheckResult.SKIPPED, None, "no key intent")
        results = {f.check: f.result for f in findings}
        if any(results.get(check) is CheckResult.FAIL for check in GOOD_SPOILS):
            return Finding("intent", CheckResult.FAIL, cosine, name)
        if all(results.get(check) is CheckResult.PASS for check in GOOD_NEEDS):
            return Finding("intent", CheckResult.PASS, cosine, name)
        return Finding("intent", CheckResult.UNAVAILABLE, None, name)

    # -- asked again ----------------------------------------------------------------------------------------------

    def _reopen(self, question: str, facts: Facts) -> Finding:
        read = self._space.vector(question)
        if read is None:
            return Finding("reopen", CheckResult.SKIPPED, None, "no words in the question")
        asked = Asked(facts.wall_s, facts.exchange_id, facts.release, *read)
        earlier = self._reopens.take(facts.session, asked)
        if earlier is None:
            return Finding("reopen", CheckResult.PASS, 0.0)
        ago = f"asked {max(0.0, facts.wall_s - earlier.wall_s) / 60:.0f} min before in this session"
        evidence = (earlier.exchange_id, earlier.release)
        if earlier.release != facts.release:
            # The user was not helped by the other release: this one shall not pay for it.
            return Finding("reopen", CheckResult.SKIPPED, 1.0, f"{ago}, answered by {earlier.release}", evidence)
        return Finding("reopen", CheckResult.PASS, 1.0, ago, evidence)

    # -- drift ----------------------------------------------------------------------------------------------------

    def _drift(
        self, text: ExchangeText, question: str, facts: Facts, findings: Sequence[Finding], *, busy: bool
    ) -> list[DriftNews]:
        news = self._query_news(question, facts, busy=busy)
        for name, values in _numbers(text, question, findings).items():
            if values:
                moved = self._components[name].take(facts.release, values, stable=facts.stable)
                if moved is not None:
                    effect = None if moved.state == "learning" else moved.effect
                    news.append(DriftNews(facts.release, name, effect, moved.size, moved.state, moved.reason))
        return [n for n in news if self._is_news(n)]

    def _query_news(self, question: str, facts: Facts, *, busy: bool) -> list[DriftNews]:
        if self._drift_problem:
            return [DriftNews(facts.release, "query", None, 0.0, "unavailable", self._drift_problem)]
        own = self._drift_semantic
        if own is None and self._spec.drift_embedder:
            return [DriftNews(facts.release, "query", None, 0.0, "learning", "the embedder is loading")]
        if own is not None and busy and not own.every_answer:
            return []  # sampled: a window takes longer to fill, nothing waits
        script = "cjk" if cjk_ratio(question) > 0.5 else "latin"
        watch = self._query.get(script)
        if watch is None:
            watch = self._query[script] = self._watch(script, own)
        said = watch.take(question, facts.release, stable=facts.stable)
        if said is None:
            return []
        moved, clusters = said
        effect = moved.effect if moved.state in ("steady", "signal", "alarm") else None
        lines = tuple(
            f"{c.share:.0%} of the window, {c.baseline_share:.0%} before: " + " | ".join(c.examples) for c in clusters
        )
        reason = f"{script}: {moved.reason}"
        return [DriftNews(facts.release, "query", effect, moved.size, moved.state, reason, lines)]

    def _watch(self, script: str, own: Semantic | None) -> QueryDrift:
        hashed = self._space.hashed
        spaces = [hashed]
        if script == "latin":
            main = own or self._semantic
            if main is not None:
                members = getattr(main.embedder, "members", ())
                first = main.semantic_for("where is the form") if members else main
                spaces = [first, hashed] if first is not hashed else [hashed]
        return QueryDrift(
            script,
            spaces,
            window=self._spec.drift_window,
            learn_count=self._spec.drift_learn,
            directory=self._directory,
            examples=self._spec.examples,
        )

    def _is_news(self, news: DriftNews) -> bool:
        """Numbers always; a state without one only when it changed."""
        key = (news.release, news.component)
        said = f"{news.state}" if news.effect is None else ""
        if said and self._told.get(key) == said and not news.reason.endswith("00 questions of stable"):
            return False
        self._told[key] = said
        if len(self._told) > 400:
            self._told.clear()
        return True


def _numbers(text: ExchangeText, question: str, findings: Sequence[Finding]) -> dict[str, dict[str, float]]:
    """What each component is measured by, for one exchange; a number that is not known is left out."""
    scores = {f.check: f.score for f in findings if f.score is not None}
    found: dict[str, dict[str, float]] = {"retrieval": {}, "answer": {}, "kb": {}, "language": {}}
    if question.strip():
        found["language"] = {"CJK share": cjk_ratio(question), "ASCII share": _ascii_ratio(question)}
    if text.answer.strip():
        found["answer"] = {"log length": math.log1p(len(text.answer)), "CJK share": cjk_ratio(text.answer[:2_000])}
        if "similarity" in scores:
            found["answer"]["similarity"] = scores["similarity"]
    if text.contexts is not None:
        contexts = text.contexts[:CONTEXTS_COUNT]
        held = [c for c in contexts if c.strip()]
        found["retrieval"] = {"zero-hit": 0.0 if held else 1.0, "passages": float(len(held))}
        if held:
            found["retrieval"]["best word overlap"] = max(lexical_cosine(question, c[:2_000]) for c in held)
        if contexts:
            kinds = [defect[0] if (defect := text_defect(c[:4_000])) else "" for c in contexts]
            found["kb"] = {
                "empty passages": kinds.count("empty") / len(kinds),
                "damaged passages": (kinds.count("special") + kinds.count("malformed")) / len(kinds),
                "repeated passages": 1.0 - len(set(contexts)) / len(contexts),
            }
            if held:
                found["kb"]["log passage length"] = math.fsum(math.log1p(len(c)) for c in held) / len(held)
    return found


def _ascii_ratio(text: str) -> float:
    return sum(ch.isascii() for ch in text) / len(text)
