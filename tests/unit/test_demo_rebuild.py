"""The bad rebuild has exactly the faults it claims, and the healthy one has none."""

from __future__ import annotations

from collections import Counter

import pytest

from guard.demo.content import articles, holds_facts, questions
from guard.demo.rebuild import healthy, too_small, whole


@pytest.fixture(scope="module", params=[1, 2, 3])
def bad(request):
    return too_small(articles(), seed=request.param)


def test_fifteen_percent_of_the_rows_are_empty_exact_to_rounding(bad):
    assert sum(row.text == "" for row in bad.rows) == bad.empty_count == round(0.15 * len(bad.rows))


def test_three_point_two_percent_of_the_rows_are_duplicates_exact_to_rounding(bad):
    texts = Counter(row.text for row in bad.rows if row.text)
    assert sum(count - 1 for count in texts.values()) == bad.duplicate_count == round(0.032 * len(bad.rows))


def test_the_mean_row_shrinks_from_450_to_280(bad):
    assert bad.mean_length / whole(articles()).mean_length == pytest.approx(280 / 450, abs=0.01)


def test_sentences_are_cut_in_the_middle(bad):
    first_pieces = [row.text for row in bad.rows if row.doc_id.endswith(".1") and row.text]
    assert sum(text[-1] not in ".。！？" for text in first_pieces) > len(first_pieces) / 2


def test_document_ids_stay_unique(bad):
    assert max(Counter(row.doc_id for row in bad.rows).values()) == 1


def test_the_same_seed_gives_the_same_rows_and_another_seed_empties_others():
    assert too_small(articles(), 7) == too_small(articles(), 7)
    assert too_small(articles(), 7).rows != too_small(articles(), 8).rows


def test_a_bad_rebuild_loses_the_facts_of_about_one_question_in_seven(bad):
    held: dict[str, list[str]] = {}
    for row in bad.rows:
        held.setdefault(row.doc_id.split(".")[0], []).append(row.text)
    asked = [q for q in questions() if q.facts]
    lost = [q for q in asked if not any(holds_facts(text, q.facts) for text in held[q.doc_id])]
    assert 0.08 <= len(lost) / len(asked) <= 0.22


@pytest.mark.parametrize("build", [whole, healthy])
def test_a_healthy_build_keeps_every_fact_in_one_row_and_has_no_empty_or_double_row(build):
    made = build(articles())
    held: dict[str, list[str]] = {}
    for row in made.rows:
        held.setdefault(row.doc_id.split(".")[0], []).append(row.text)
    assert all(any(holds_facts(text, q.facts) for text in held[q.doc_id]) for q in questions() if q.facts)
    assert all(row.text for row in made.rows)
    assert max(Counter(row.text for row in made.rows).values()) == 1
    assert (made.empty_count, made.duplicate_count) == (0, 0)


def test_the_healthy_rebuild_is_chunked_otherwise_than_the_stable_one():
    assert len(healthy(articles()).rows) > 1.5 * len(whole(articles()).rows)
