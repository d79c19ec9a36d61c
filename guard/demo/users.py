"""Who asks what, when: simulated users of the demo. Pure; the same seed gives the same questions at the same times.

Sessions arrive as a Poisson process whose rate follows a (short) day and sudden bursts; topics are popular as Zipf
says; a session asks one to five questions with time to think between them, now and then the same thing again in other
words.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from guard.demo.content import Question

ENGLISH_RATIO = 0.6
OFF_TOPIC_RATIO = 0.03
AGAIN_RATIO = 0.12
ZIPF_EXPONENT = 0.6
QUESTIONS_PER_SESSION = ((1, 0.34), (2, 0.28), (3, 0.2), (4, 0.11), (5, 0.07))
THINK_MEAN_S = 4.0
DAY_AMPLITUDE = 0.35
BURST_EVERY_S = 25.0
BURST_LENGTH_S = 3.0
BURST_FACTOR = 2.0
TYPO_RATIO = 0.3
_TENANT_NAMES = (
    "assembly", "research", "sales", "finance", "logistics", "service", "quality", "purchasing", "training", "legal",
    "branch-hsinchu", "branch-kaohsiung",
)  # fmt: skip
TENANTS = tuple((name, 1.0 / rank) for rank, name in enumerate(_TENANT_NAMES, start=6))

_BEFORE = {
    "en": ("", "", "", "", "Hi, ", "Hello, ", "Quick one: ", "Sorry to bother you. "),
    "zh-TW": (
        "",
        "",
        "",
        "",
        "您好，",
        "哈囉，",
        "想問一下，",
        "不好意思，",
    ),
}
_AFTER = {
    "en": ("", "", "", "", " Thanks!", " Thank you.", " thx"),
    "zh-TW": ("", "", "", "", "謝謝！", "感謝。", "麻煩了。"),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of one user. at_s: seconds after the users began; text: as typed."""

    at_s: float
    session: str
    tenant: str
    question: Question
    text: str


class Users:
    """An endless stream of questions at a mean of `rate` per second."""

    def __init__(self, questions: Sequence[Question], *, seed: int, rate: float, day_s: float = 180.0) -> None:
        if rate <= 0:
            raise ValueError(f"rate: got {rate}; give questions per second, more than 0")
        self._dice = random.Random(f"users/{seed}")
        self._seed, self._rate, self._day_s = seed, rate, day_s
        self._off_topic = {lang: [q for q in questions if q.lang == lang and not q.facts] for lang in ("en", "zh-TW")}
        self._topics = _by_topic(questions)
        names = sorted({topic for topic, _ in self._topics})
        self._dice.shuffle(names)  # which topics are popular differs from seed to seed
        self._names = names
        self._popularity = list(accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(len(names))))

    def __iter__(self) -> Iterator[Ask]:
        waiting: list[tuple[float, int, Ask]] = []
        number = 0
        for session_number, start_s in enumerate(self._session_starts()):
            while waiting and waiting[0][0] <= start_s:
                yield heapq.heappop(waiting)[2]
            for ask in self._session(session_number, start_s):
                heapq.heappush(waiting, (ask.at_s, number, ask))
                number += 1

    def _session_starts(self) -> Iterator[float]:
        """Thinning: candidates at the highest rate, kept in proportion to the rate at that moment."""
        dice = self._dice
        mean_questions = sum(count * share for count, share in QUESTIONS_PER_SESSION)
        burst_share = BURST_LENGTH_S / BURST_EVERY_S
        # Over a day the shape has mean 1; bursts add to it, so the calm rate is lowered to keep the mean.
        calm = self._rate / mean_questions / (1 + burst_share * (BURST_FACTOR - 1))
        highest = calm * (1 + DAY_AMPLITUDE) * BURST_FACTOR
        now_s, burst_s = 0.0, dice.expovariate(1 / BURST_EVERY_S)
        while True:
            now_s += dice.expovariate(highest)
            while now_s >= burst_s + BURST_LENGTH_S:
                burst_s += BURST_LENGTH_S + dice.expovariate(1 / (BURST_EVERY_S - BURST_LENGTH_S))
            shape = 1 + DAY_AMPLITUDE * math.sin(2 * math.pi * now_s / self._day_s)
            rate = calm * shape * (BURST_FACTOR if now_s >= burst_s else 1.0)
            if dice.random() < rate / highest:
                yield now_s

    def _session(self, number: int, start_s: float) -> Iterator[Ask]:
        dice = self._dice
        lang = "en" if dice.random() < ENGLISH_RATIO else "zh-TW"
        tenant = _pick(dice, TENANTS)
        session = f"demo-{self._seed}-{number}"
        at_s, previous = start_s, None
        for _ in range(_pick(dice, QUESTIONS_PER_SESSION)):
            question = self._next_question(lang, previous)
            yield Ask(at_s, session, tenant, question, typed(question, dice))
            at_s += 0.5 + dice.expovariate(1 / THINK_MEAN_S)
            previous = question

    def _next_question(self, lang: str, previous: Question | None) -> Question:
        dice = self._dice
        if dice.random() < OFF_TOPIC_RATIO and self._off_topic[lang]:
            return dice.choice(self._off_topic[lang])
        if previous is not None and previous.facts and dice.random() < AGAIN_RATIO:
            # Asked again because the answer did not help: the same fact, if there is another way to ask for it.
            same = [q for q in self._topics[previous.doc_id.rpartition("-")[0], lang] if q.facts == previous.facts]
            return dice.choice(same)
        topic = self._names[bisect(self._popularity, dice.random() * self._popularity[-1])]
        return dice.choice(self._topics[topic, lang])


def typed(question: Question, dice: random.Random) -> str:
    """The question as a person types it: with or without a greeting, in haste with two letters swapped."""
    text = question.question
    if question.style == "colloquial" and question.lang == "en" and dice.random() < TYPO_RATIO:
        text = _swap_letters(text, dice)
    return dice.choice(_BEFORE[question.lang]) + text + dice.choice(_AFTER[question.lang])


def _swap_letters(text: str, dice: random.Random) -> str:
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 5 and word.isalpha()]
    if not long:
        return text
    index = dice.choice(long)
    word = words[index]
    cut = dice.randrange(1, len(word) - 2)
    words[index] = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)


def _by_topic(questions: Sequence[Question]) -> dict[tuple[str, str], list[Question]]:
    topics: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        if question.facts:
            topics.setdefault((question.doc_id.rpartition("-")[0], question.lang), []).append(question)
    return topics


Choice = TypeVar("Choice")


def _pick(dice: random.Random, weighted: Sequence[tuple[Choice, float]]) -> Choice:
    return dice.choices([item for item, _ in weighted], [share for _, share in weighted])[0]
