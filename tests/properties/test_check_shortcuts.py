"""Every short cut of the checks leads where the long way leads: quick tests, indexes and what is remembered."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.same_findings import made_up
from guard.checks import claims, facts, pii, polarity
from guard.checks.context import read_context
from guard.checks.lexicon import normalise
from guard.checks.number_index import NumberIndex
from guard.checks.numbers import Quantity, same
from guard.checks.passages import Passages
from guard.checks.pii_patterns import PATTERNS
from guard.safety.toxicity import WordLists, shipped_words

DIMENSIONS = ("", "time", "month", "byte", "twd", "yuan", "cny", "degree", "celsius", "clock")
VALUES = (0.0, 0.1 + 0.2, 0.3, 1.0, 1.0 + 1e-10, 7.0, 1000.0, 1024.0, 2e9, 2.048e9, 1e300, float("inf"))
numbers = st.builds(Quantity, st.sampled_from(DIMENSIONS), st.sampled_from(VALUES), st.sampled_from(VALUES), st.just(0))


def texts(count: int = 40) -> Iterator[str]:
    for text in made_up(count, 11):
        yield text.answer
        yield from (text.contexts or ())[:1]


def sentences() -> list[str]:
    return [s for text in texts() for s in claims.rag.text.sentences(text)]


def test_a_number_of_hundreds_of_digits_is_the_same_as_none() -> None:
    huge = facts.statement(f"The fee is {'9' * 400} EUR.").numbers[0]
    assert not same(facts.statement("The fee is 7 EUR.").numbers[0], huge)
    assert not same(Quantity("byte", 1e9, 1.0, 0), Quantity("byte", float("inf"), 2.0, 0))


@settings(max_examples=60)
@given(st.lists(numbers, max_size=12), numbers)
def test_the_index_finds_what_comparing_with_every_number_finds(there: list[Quantity], claimed: Quantity) -> None:
    found = NumberIndex(enumerate(there)).holders(claimed)
    assert sorted(found) == [i for i, number in enumerate(there) if same(claimed, number)]


def test_places_of_terms_and_numbers_over_several_contexts() -> None:
    contexts = [read_context("The fee is 5 EUR. Ask in 7 days."), read_context("Ask twice. The fee rose to 5 EUR.")]
    passages = Passages(contexts)
    assert list(passages.term("fee")[3]) == [0, 3]
    assert passages.holders(facts.statement("5 EUR").numbers[0]) == {0, 3}
    assert passages.clauses_of(3)[0].text.startswith("The fee rose")
    assert passages.pair_count([("fee", "rose"), ("fee", "fell"), ("fee", "rose")]) == 2


def test_personal_data_is_found_without_the_quick_tests_as_with_them() -> None:
    count = 0
    for text in texts():
        found: list[pii.Match] = []
        for kind, _, pattern, check in PATTERNS:
            for match in pattern.finditer(text):
                start, end = match.span("s" if "s" in pattern.groupindex else 0)
                if (check is None or check(text[start:end])) and all(end <= o.start or start >= o.end for o in found):
                    found.append(pii.Match(kind, start, end))
        assert pii.find_pii(text) == sorted(found, key=lambda m: m.start)
        count += len(found)
    assert count > 10


def test_identifiers_are_those_of_one_pass_over_the_whole_text() -> None:
    count = 0
    for sentence in sentences():
        lower = normalise(sentence).lower()
        found: list[str] = []
        whole: list[str] = []
        masked = facts._without_exact(lower, found)
        assert masked == facts._EXACT.sub(lambda m, into=whole: facts._take_exact(m, into), lower)  # type: ignore[misc]
        assert found == whole
        count += len(found)
    assert count > 50


def test_a_sentence_without_the_hints_neither_refuses_nor_denies() -> None:
    denied = 0
    for sentence in [*sentences(), "It's unpaid.", "We don't know the date.", "I am unable to answer.", "Nobody goes."]:
        lower = sentence.lower()
        if claims._REFUSAL_EN.search(lower):
            assert any(hint in lower for hint in claims._REFUSAL_HINTS)
        if polarity._NEGATION_EN.search(lower):
            denied += 1
            assert "n't" in lower or not polarity._NEGATORS.isdisjoint(re.findall("[a-z]+", lower))
    assert denied > 10


def test_listed_words_are_found_as_by_searching_every_text() -> None:
    lists, chance = WordLists(), random.Random(3)
    words = [w for w in shipped_words() if w.isascii()]
    assert lists._spaced is not None
    hit = 0
    for text in texts(30):
        plain = text.casefold()
        at = plain.find(" ", chance.randrange(len(plain)))
        word = chance.choice(words)
        for said in (plain, f"{plain[:at]} {word}{plain[at:]}", f"{plain} {word.split()[0]}"):
            assert lists._listed(said) == [m[0] for m in lists._spaced.finditer(said)]
            hit += bool(lists._listed(said))
    assert hit > 20
