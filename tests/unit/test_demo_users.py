"""Simulated users: the rate asked for, both languages, sessions that think, the same seed the same day."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise, takewhile

import pytest

from guard.demo.content import questions
from guard.demo.users import TENANTS, Users


def asks(seed: int, count: int = 4000, rate: float = 20.0):
    return list(islice(Users(questions(), seed=seed, rate=rate), count))


def test_the_same_seed_asks_the_same_questions_at_the_same_times():
    assert asks(5, 300) == asks(5, 300)
    assert asks(5, 300) != asks(6, 300)


@pytest.mark.parametrize("rate", [2.0, 20.0, 100.0])
def test_the_mean_rate_is_the_one_asked_for(rate):
    users = Users(questions(), seed=3, rate=rate, day_s=100.0)
    lead_s, span_s = 40.0, 400.0  # four days; the first sessions must have begun to ask their later questions
    count = sum(1 for ask in takewhile(lambda a: a.at_s < lead_s + span_s, users) if ask.at_s >= lead_s)
    assert count / span_s == pytest.approx(rate, rel=0.12)


def test_questions_come_in_the_order_of_time():
    times = [ask.at_s for ask in asks(1)]
    assert times == sorted(times)


def test_three_in_five_sessions_are_english_and_nobody_changes_the_language():
    languages: dict[str, set[str]] = {}
    for ask in asks(2):
        languages.setdefault(ask.session, set()).add(ask.question.lang)
    assert all(len(found) == 1 for found in languages.values())
    english = sum(found == {"en"} for found in languages.values())
    assert english / len(languages) == pytest.approx(0.6, abs=0.04)


def test_a_session_asks_one_to_five_questions_of_one_tenant_and_thinks_between_them():
    sessions: dict[str, list] = {}
    for ask in asks(3):
        sessions.setdefault(ask.session, []).append(ask)
    assert {len(session) for session in sessions.values()} == {1, 2, 3, 4, 5}
    assert {ask.tenant for ask in asks(3)} == {name for name, _ in TENANTS}
    for session in sessions.values():
        assert len({ask.tenant for ask in session}) == 1
        assert all(after.at_s - before.at_s >= 0.5 for before, after in pairwise(session))


def test_some_topics_are_asked_about_far_more_than_others():
    popular = Counter(ask.question.doc_id.rpartition("-")[0] for ask in asks(4) if ask.question.facts).most_common()
    assert popular[0][1] > 4 * popular[-1][1]
    assert len(popular) >= 45


def test_arrivals_come_in_bursts():
    """A plain Poisson process has a variance of counts near its mean; bursts and the day raise it."""
    counts = Counter(int(ask.at_s) for ask in asks(5, 8000))
    seconds = [counts[s] for s in range(20, int(max(counts)))]
    mean = sum(seconds) / len(seconds)
    assert sum((c - mean) ** 2 for c in seconds) / len(seconds) > 1.4 * mean


def test_a_few_questions_are_off_topic_and_phrasings_are_many():
    found = asks(6)
    assert 0.01 < sum(ask.question.style == "off_topic" for ask in found) / len(found) < 0.06
    assert len({ask.text for ask in found}) > 1500


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="more than 0"):
        Users(questions(), seed=1, rate=0.0)
