"""What must hold for any text: facts, the simulated model, the rebuilds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from guard.demo.content import Article, general_policies, holds_fact
from guard.demo.model import SimulatedModel
from guard.demo.rebuild import healthy, too_small, whole

MODEL = SimulatedModel(general_policies(), 1)
TEXTS = st.text(max_size=200)


@given(before=st.text(max_size=20), fact=st.from_regex(r"[1-9][0-9]{0,3} (days|hours)", fullmatch=True))
def test_a_fact_is_found_in_any_text_that_states_it_as_a_word_of_its_own(before: str, fact: str):
    assert holds_fact(f"{before} x {fact}.", fact)


@given(number=st.integers(1, 999), digit=st.integers(1, 9))
def test_a_number_is_never_found_inside_a_larger_one(number: int, digit: int):
    assert not holds_fact(f"It takes {digit}{number} days", f"{number} days")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=4))
def test_the_model_answers_any_prompt_with_some_text(messages: list[tuple[str, str]]):
    reply = MODEL.reply(messages)
    assert reply.text.strip()
    assert reply == MODEL.reply(messages)
    assert reply.output_tokens > 0


ARTICLES = st.lists(
    st.builds(
        Article,
        doc_id=st.uuids().map(str),
        lang=st.sampled_from(["en", "zh-TW"]),
        title=st.just("t"),
        text=st.lists(st.integers(0, 999), min_size=30, max_size=120).map(
            lambda numbers: " ".join(f"word{n}" + "." * (n % 7 == 0) for n in numbers)
        ),
    ),
    min_size=8,
    max_size=30,
    unique_by=lambda article: article.doc_id,
)


@settings(max_examples=8)
@given(ARTICLES, st.integers(0, 100))
def test_the_faults_of_the_bad_rebuild_are_exact_to_rounding_whatever_is_rebuilt(made: list[Article], seed: int):
    bad = too_small(made, seed)
    assert sum(row.text == "" for row in bad.rows) == bad.empty_count == round(0.15 * len(bad.rows))
    assert bad.duplicate_count == sum(row.doc_id.endswith(".again") for row in bad.rows)
    assert abs(bad.duplicate_count - 0.032 * len(bad.rows)) <= 0.5 + 1e-9
    assert bad.mean_length < whole(made).mean_length


@settings(max_examples=8)
@given(ARTICLES)
def test_a_healthy_rebuild_loses_no_word(made: list[Article]):
    held: dict[str, str] = {}
    for row in healthy(made).rows:
        name = row.doc_id.rpartition(".")[0]
        held[name] = held.get(name, "") + " " + row.text
    for article in made:
        assert set(article.text.replace(".", " ").split()) <= set(held[article.doc_id].replace(".", " ").split())
