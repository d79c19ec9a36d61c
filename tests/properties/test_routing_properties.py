"""Whatever retrieval says and whoever is reachable: what a route must never do."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rag.fixed_answers import FixedAnswer, FixedAnswers
from rag.reachability import Circuit
from rag.routing import Models, Slot, Thresholds, is_confident, plan, signals

ratio = st.floats(0.0, 1.0)
slots = st.frozensets(st.sampled_from(Slot))
found = st.builds(
    lambda sims, confidence, trusted, lang: signals(sims, confidence=confidence, trusted=trusted, lang=lang),
    st.lists(st.floats(-1.0, 1.0), max_size=10), ratio, st.booleans(), st.sampled_from(("en", "zh-TW")),
)  # fmt: skip
lines = st.builds(
    Thresholds, best=ratio, mean=ratio, documents=st.integers(1, 5), margin=st.floats(0.0, 0.2), confidence=ratio,
    by=st.sampled_from(("similarity", "confidence")),
)  # fmt: skip
models = st.builds(Models, configured=slots, on_premises=slots)


@given(found, lines, models, st.booleans(), slots)
def test_a_sensitive_question_meets_no_model_off_the_premises(seen, line, given_models, sure, reachable) -> None:
    way = plan(seen, line, given_models, sensitive=True, reachable=reachable)
    assert {step for step in way.steps if step} <= given_models.on_premises & given_models.configured


@given(found, lines, models, st.booleans(), slots)
def test_there_is_always_a_step_each_model_is_asked_once_and_only_the_end_needs_none(
    seen, line, given_models, sensitive, reachable
) -> None:
    way = plan(seen, line, given_models, sensitive=sensitive, reachable=reachable)
    assert way.steps
    assert len(set(way.steps)) == len(way.steps)
    assert None not in way.steps[:-1]
    assert not way.escalate or {Slot.RAG, Slot.STRONG} <= set(way.steps)
    assert way.reason


@given(found, lines, models, slots)
def test_documents_answer_if_and_only_if_retrieval_is_confident(seen, line, given_models, reachable) -> None:
    sure, _ = is_confident(seen, line)
    way = plan(seen, line, given_models, reachable=reachable)
    assert way.from_documents is sure
    assert (way.steps[-1] is None) is (sure or not given_models.configured & {Slot.CLOUD, Slot.LOCAL})
    asked = {step for step in way.steps if step}
    assert asked <= ({Slot.RAG, Slot.STRONG} if sure else {Slot.CLOUD, Slot.LOCAL})


@given(found, lines, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_better_signals_never_take_a_question_away_from_the_knowledge_base(seen, line, more, surer) -> None:
    if is_confident(seen, line)[0]:
        better = replace(
            seen, best=seen.best + more, mean=seen.mean + more, margin=seen.margin + more, count=seen.count + 1,
            confidence=max(seen.confidence, surer),
        )  # fmt: skip
        assert is_confident(better, line)[0]


@given(st.lists(st.tuples(st.sampled_from(("ask", "fail", "wait")), st.floats(0.1, 30.0)), max_size=40))
def test_a_circuit_never_stays_open_longer_than_its_limit_and_one_answer_closes_it(steps) -> None:
    circuit, now_s = Circuit(), 0.0
    for what, seconds in steps:
        if what == "wait":
            now_s += seconds
        elif circuit.allows(now_s):
            circuit.started(now_s)
            if what == "fail":
                circuit.failed(now_s)
            else:
                circuit.succeeded()
                assert circuit.closed
    assert circuit.allows(now_s + 60.0)


@given(st.text(max_size=60), st.text(min_size=1, max_size=20).filter(lambda t: any(c.isalnum() for c in t)))
def test_a_listed_phrasing_always_finds_its_answer(noise, phrasing) -> None:
    rules = FixedAnswers([FixedAnswer("t", "fixed", phrasings=(phrasing,))])
    found_answer = rules.answer(f"  {phrasing.upper()} !? ")
    # Upper case and back is not the identity for every letter of the world; for those that keep it, it is found.
    if phrasing.upper().casefold() == phrasing.casefold():
        assert found_answer is not None
        assert found_answer.topic == "t"
    assert rules.answer(noise) is None or rules.answer(noise).topic == "t"
