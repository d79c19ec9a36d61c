"""Training rows out of production traffic: what was asked, answered well, and may be learnt. Pure.

    exchanges -> filters (outcome, release, time, checks, thumbs) -> no personal data -> one answer a question -> groups

Questions that mean the same words are one group, and a group stays on one side of the train/validation split: a
paraphrase of a trained question in the validation file would make its loss look good.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from rag.finetune.rows import Example
from rag.text import language, near_hash, normalise_space, search_tokens
from slo.types import CacheStatus, CheckResult, Exchange, Outcome

Redact = Callable[[str], tuple[str, int]]
"""(text) -> (text without personal data, how many values were taken out)."""

SAME_RATIO = 0.5
"""Two questions are of one group when they share this much of their words."""

_PLACEHOLDER = re.compile(r"\[(?:secret|card|iban|national_id|private_key|email|phone|ip|token)\]")
_RARE = 3
_ANSWER_CHARS_MIN = 2
_NOT_LEARNT = frozenset({"REFUSAL", "RULE"})


@dataclass(frozen=True, slots=True)
class TrafficFilter:
    """Which answers are good enough.

    checks: names that must have passed; none may have failed whatever this says. thumbs_up: only answers somebody
    liked. releases: short ids, empty for all. from_s, to_s: Unix seconds. mask: keep rows with personal data taken out
    instead of dropping them; the model then learns to say the placeholder.
    """

    checks: tuple[str, ...] = ("grounding",)
    thumbs_up: bool = False
    releases: frozenset[str] = frozenset()
    from_s: float = 0.0
    to_s: float = float("inf")
    mask: bool = False


@dataclass(frozen=True, slots=True)
class FromTraffic:
    """examples: in the order of asking. left_out: how many exchanges, by reason."""

    examples: tuple[Example, ...]
    left_out: Mapping[str, int]
    seen_count: int


@dataclass(slots=True)
class _Candidate:
    question: str
    answer: str
    wall_s: float
    liked: bool


def examples_of_traffic(
    rows: Iterable[tuple[Exchange, Mapping[str, Any] | None]],
    wanted: TrafficFilter,
    redact: Redact,
    thumbs: Mapping[str, str],
    system_of: Mapping[str, str],
) -> FromTraffic:
    """Examples of an exchange log.

    Args:
        thumbs: exchange id -> "up" or "down". A thumb down always leaves an answer out.
        system_of: system text by language of the question.
    """
    left_out: Counter[str] = Counter()
    best: dict[str, _Candidate] = {}
    seen = 0
    for exchange, text in rows:
        seen += 1
        reason = _why_not(exchange, text, wanted, thumbs.get(exchange.exchange_id, ""))
        if reason or text is None:
            left_out[reason] += 1
            continue
        question, asked_count = redact(normalise_space(str(text["question"])))
        answer, answered_count = redact(str(text["answer"]).strip())
        private = asked_count + answered_count or _PLACEHOLDER.search(question) or _PLACEHOLDER.search(answer)
        if private and not wanted.mask:
            left_out["personal data"] += 1
            continue
        liked = thumbs.get(exchange.exchange_id) == "up"
        candidate = _Candidate(question, answer, exchange.wall_s, liked)
        key = near_hash(question)
        known = best.get(key)
        if known is not None:
            left_out["asked before"] += 1
        # Of several answers to one question the liked one is learnt, else the latest.
        if known is None or (candidate.liked, candidate.wall_s) >= (known.liked, known.wall_s):
            best[key] = candidate
    kept = sorted(best.values(), key=lambda one: one.wall_s)
    groups = group_questions([one.question for one in kept])
    examples = tuple(
        Example(system_of.get(language(one.question), ""), one.question, one.answer, group)
        for one, group in zip(kept, groups, strict=True)
    )
    return FromTraffic(examples, dict(left_out), seen)


def group_questions(questions: Sequence[str]) -> list[str]:
    """A group name per question: questions that share most of their words are one group, transitively.

    Only questions that share a rare word are compared, so the work stays near the number of questions.
    """
    terms = [frozenset(search_tokens(question)) for question in questions]
    held: Counter[str] = Counter(term for words in terms for term in words)
    places: dict[str, list[int]] = defaultdict(list)
    parent = list(range(len(questions)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, words in enumerate(terms):
        for term in sorted(words, key=lambda word: (held[word], word))[:_RARE]:
            for j in places[term][-50:]:
                union = len(words | terms[j])
                if union and len(words & terms[j]) / union >= SAME_RATIO:
                    parent[root(i)] = root(j)
            places[term].append(i)
    return [near_hash(questions[root(i)])[:16] for i in range(len(questions))]


def split_groups(examples: Sequence[Example], validation_ratio: float) -> tuple[list[Example], list[Example]]:
    """(train, validation) with whole groups on one side, by hash: the same group always falls on the same side."""
    train: list[Example] = []
    validation: list[Example] = []
    for example in examples:
        share = int(sha256(f"split\x1f{example.group}".encode()).hexdigest()[:8], 16) / 2**32
        (validation if share < validation_ratio else train).append(example)
    return train, validation


def _why_not(exchange: Exchange, text: Mapping[str, Any] | None, wanted: TrafficFilter, thumb: str) -> str:
    if not wanted.from_s <= exchange.wall_s < wanted.to_s:
        return "another time"
    if wanted.releases and exchange.release not in wanted.releases:
        return "another release"
    if exchange.outcome is not Outcome.OK:
        return "not answered well"
    if exchange.cache is CacheStatus.HIT:
        return "from the cache"
    if thumb == "down":
        return "thumb down"
    if wanted.thumbs_up and thumb != "up":
        return "no thumb up"
    results = {finding.check: finding.result for finding in exchange.findings}
    if CheckResult.FAIL in results.values():
        return "a check failed"
    if any(results.get(check) is not CheckResult.PASS for check in wanted.checks):
        return "not checked"
    if text is None or not str(text.get("question") or "").strip():
        return "no text kept"
    if len(str(text.get("answer") or "").strip()) < _ANSWER_CHARS_MIN:
        return "no text kept"
    return "nothing to learn" if text.get("answer_source") in _NOT_LEARNT else ""
