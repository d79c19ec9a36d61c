"""The decision of the gate on figures alone, and the report that goes with it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.gate import GateLimits, Side, decide
from rag.gate_report import ROWS_SHOWN, as_json, evaluation, markdown
from rag.golden import Found, GoldenQuestion, Outcome, ask_all, lost
from rag.profile import Profile, Profiler
from rag.profile_limits import OK, REFUSED, UNKNOWN

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdklmnrstx"]


def profile_of(mean: int, count: int, *, empty: int = 0, twins: int = 0, malformed: int = 0, seed: int = 1) -> Profile:
    rng = random.Random(seed)
    profiler = Profiler()
    plain = [" ".join(rng.choices(WORDS, k=max(5, round(rng.gauss(mean, mean / 5))))) for _ in range(count)]
    for number, text in enumerate([*plain, *plain[:twins], *[""] * empty], 1):
        profiler.take(f"new.jsonl:{number}", text)
    for extra in range(malformed):
        profiler.reject(f"new.jsonl:{count + twins + empty + extra + 1}", "not JSON (truncated)")
    return profiler.profile()


def outcome_of(ranks: list[int | None]) -> Outcome:
    questions = [GoldenQuestion(f"golden.jsonl:{n}", f"question {n}", (f"d{n}",)) for n in range(len(ranks))]

    def search(question: str) -> Found:
        number = int(question.split()[1])
        rank = ranks[number]
        hits = [(f"other-{n}", "text") for n in range(10)]
        if rank is None:
            return Found(())
        hits[rank - 1] = (f"d{number}", "text")
        return Found(tuple(hits))

    return ask_all(questions, search)


def states(decision: object) -> dict[str, str]:
    return {check.name: check.state for check in decision.checks}  # type: ignore[attr-defined]


def test_ranks_recall_and_zero_hits_by_hand() -> None:
    outcome = outcome_of([1, 3, 4, None])
    assert [a.rank for a in outcome.asked] == [1, 3, 4, None]
    assert [outcome.recall(d).estimate for d in (1, 3, 10)] == [0.25, 0.5, 0.75]  # type: ignore[union-attr]
    assert outcome.zero_hits is not None
    assert outcome.zero_hits.estimate == 0.25
    assert (round(outcome.zero_hits.low, 4), round(outcome.zero_hits.high, 4)) == (0.0456, 0.6994)  # Wilson, 1 of 4
    assert Outcome(()).recall(3) is None


@pytest.mark.parametrize(
    ("golden", "doc_id", "text", "right"),
    [
        (GoldenQuestion("g", "q", ("faq-7",)), "faq-7", "x", True),
        (GoldenQuestion("g", "q", ("faq-7",)), "faq-7#2", "x", True),
        (GoldenQuestion("g", "q", ("faq-7",)), "faq-77", "x", False),
        (GoldenQuestion("g", "q", ("a", "b")), "b", "x", True),
        (GoldenQuestion("g", "q", contains="Seven  Days"), "z", "after seven\ndays of", True),
        (GoldenQuestion("g", "q", contains="\uff16 \u500b\u6708"), "z", "\u6eff6 \u500b\u6708\u6709\u4e09\u5929", True),
        (GoldenQuestion("g", "q", contains="ten days"), "z", "seven days", False),
    ],
)
def test_what_counts_as_found(golden: GoldenQuestion, doc_id: str, text: str, right: bool) -> None:
    outcome = ask_all([golden], lambda _question: Found(((doc_id, text),)))
    assert (outcome.asked[0].rank == 1) is right


def test_the_first_incident_is_refused_and_its_rows_are_named() -> None:
    """8 % of the new rows malformed (empty fields, special characters), mean chunk 400 -> 280 tokens."""
    current = Side("kb_version 1", profile_of(400, 150), outcome_of([1] * 20))
    incoming = profile_of(280, 184, empty=8, malformed=8, seed=2)
    candidate = Side("kb_version 2", profile_of(340, 334, seed=2), outcome_of([1] * 17 + [None] * 3))
    decision = decide(current, candidate, incoming)
    found = states(decision)
    assert not decision.accepted
    assert (found["new rows: bad rows"], found["new rows: row length"]) == (REFUSED, REFUSED)
    assert (found["recall@3"], found["zero-hit"]) == (REFUSED, REFUSED)  # 15 % of the questions find nothing
    report = markdown(decision)
    assert report.startswith("# Knowledge base gate: refused")
    assert "- `new.jsonl:185` empty: no text" in report
    assert "- `new.jsonl:193` malformed: not JSON (truncated)" in report
    assert "- `golden.jsonl:17` question lost: 'question 17': rank 1 -\\> not found" in report
    assert "16 of 200 rows (8.0%)" in report


def test_the_second_incident_is_refused_and_its_rows_are_named() -> None:
    """15 % empty fields, 3.2 % duplicates, mean length 450 -> 280 tokens: a rebuild that let everything in."""
    current = Side("v1.2.0", profile_of(450, 150))
    candidate = Side("v1.2.1", profile_of(280, 409, empty=75, twins=16, seed=3))
    decision = decide(current, candidate)
    found = states(decision)
    assert [name for name, state in found.items() if state == REFUSED] == ["bad rows", "duplicates", "row length"]
    assert found["recall@3"] == UNKNOWN
    report = markdown(decision)
    assert "75 of 500 rows (15.0%): 75 empty" in report
    assert "16 of 500 rows (3.2%): 16 exact duplicate" in report
    assert "exact duplicate: the same text as new.jsonl:" in report
    assert "and 25 more" not in report  # 50 examples are kept of each kind
    assert report.count("- `new.jsonl:") == ROWS_SHOWN + 16
    kept = evaluation(decision)
    assert kept["accepted"] is False
    assert len(kept["refused"]) == 3  # type: ignore[arg-type]


def test_healthy_growth_is_accepted() -> None:
    current = Side("kb_version 1", profile_of(400, 150), outcome_of([1] * 27 + [4, 2, None]))
    incoming = profile_of(400, 30, seed=1)
    candidate = Side("kb_version 2", profile_of(400, 180), outcome_of([1] * 26 + [2, 3, 2, None]))
    decision = decide(current, candidate, incoming)
    assert decision.accepted
    assert set(states(decision).values()) == {OK}
    assert "accepted" in markdown(decision)
    assert as_json(decision)["accepted"] is True


def test_the_first_content_is_judged_by_the_limits_alone() -> None:
    empty = Side("kb_version 0", Profile())
    good = decide(empty, Side("kb_version 1", profile_of(100, 50), outcome_of([1] * 20)))
    assert good.accepted
    assert good.current is None
    poor = decide(empty, Side("kb_version 1", profile_of(100, 50), outcome_of([1] * 4 + [None] * 36)))
    assert states(poor)["recall@3"] == REFUSED
    assert "the whole interval is below 70.0%" in markdown(poor)
    few = decide(empty, Side("kb_version 1", profile_of(100, 50), outcome_of([1, None])))
    assert states(few)["recall@3"] == OK  # two questions prove nothing


def test_a_drop_within_the_limit_is_borne_and_a_question_more_is_not() -> None:
    current = Side("a", profile_of(100, 50), outcome_of([1] * 100))
    two = decide(current, Side("b", profile_of(100, 50), outcome_of([1] * 98 + [5] * 2)))
    three = decide(current, Side("b", profile_of(100, 50), outcome_of([1] * 97 + [5] * 3)))
    strict = decide(
        current, Side("b", profile_of(100, 50), outcome_of([1] * 99 + [5])), limits=GateLimits(recall_drop=0.0)
    )
    assert (two.accepted, three.accepted, strict.accepted) == (True, False, False)


def test_vectors_that_moved_are_refused() -> None:
    current, candidate = Side("a", profile_of(100, 50)), Side("b", profile_of(100, 50))
    assert "vectors" not in states(decide(current, candidate))
    assert states(decide(current, candidate, vector_shift=0.02))["vectors"] == OK
    assert states(decide(current, candidate, vector_shift=0.4))["vectors"] == REFUSED


def test_text_of_questions_and_rows_cannot_become_markup() -> None:
    golden = [GoldenQuestion("g`.jsonl:1", "<script>|x|\n# [a](b)", ("d",))]
    current = Side("a", profile_of(50, 30), ask_all(golden, lambda _q: Found((("d", "t"),))))
    candidate = Side("b", profile_of(50, 30), ask_all(golden, lambda _q: Found(())))
    report = markdown(decide(current, candidate))
    assert "<script>" not in report
    assert "\n# [" not in report
    assert "`g'.jsonl:1`" in report


@given(st.lists(st.tuples(st.none() | st.integers(1, 10), st.none() | st.integers(1, 10)), min_size=1, max_size=40))
def test_questions_lost_explain_every_drop(pairs: list[tuple[int | None, int | None]]) -> None:
    before, after = outcome_of([a for a, _ in pairs]), outcome_of([b for _, b in pairs])
    old, new = before.recall(3), after.recall(3)
    assert old is not None
    assert new is not None
    drop = round((old.estimate - new.estimate) * len(pairs))
    gained = lost(after, before, 3)
    assert len(lost(before, after, 3)) - len(gained) == drop
    assert old.low <= old.estimate <= old.high
