"""Profiles of rows, by hand and by property; the two data incidents of the practice as numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.defects import EMPTY, EXACT, MALFORMED, NEAR, SPECIAL, text_defect
from rag.likeness import NearTwins, alike_ratio, sketch_of
from rag.profile import EXAMPLES, Profile, Profiler, centroid_shift, lengths_of
from rag.profile_limits import OK, REFUSED, UNKNOWN, Limits, check_lengths, check_place, check_rows
from rag.text import count_tokens

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdklmnrstx"]
LEAVE = "特別休假依年資計算\uff0c滿六個月有三天\uff0c滿一年有七天\uff0c滿兩年有十天\u3002"


def words(count: int, rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def profile_of(texts: Iterable[str], rejected: int = 0, **options: int) -> Profile:
    profiler = Profiler(**options)
    number = 0
    for number, text in enumerate(texts, 1):
        profiler.take(f"rows.jsonl:{number}", text)
    for extra in range(rejected):
        profiler.reject(f"rows.jsonl:{number + 1 + extra}", "not JSON (truncated)")
    return profiler.profile()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", EMPTY),
        (" \u3000\n", EMPTY),
        ("N/A", EMPTY),
        ("null", EMPTY),
        ("\u2014\u2014 \u3002", EMPTY),
        ("VPN\x00 access", SPECIAL),
        ("caf\u00c3\u00a9 opens", SPECIAL),
        ("don\u00e2\u20ac\u2122t share it", SPECIAL),
        ("broken \ufffd\ufffd text", SPECIAL),
        ("\ue000 icon", SPECIAL),
        ("@@##$$%%^^&&**(( a", SPECIAL),
    ],
)
def test_what_is_wrong_with_a_text_is_named(text: str, kind: str) -> None:
    found = text_defect(text)
    assert found is not None
    assert found[0] == kind
    assert "\n" not in found[1]


@pytest.mark.parametrize(
    "text",
    [
        LEAVE,
        "Ask HR.\n\tThen wait.",
        "\u00dcbergr\u00f6\u00dfe \u00e0 la carte",
        "C++ (v1.2.1): $3.50/h",
        "\u0e01\u0e33\u0e25\u0e31\u0e07",
        "\U0001f600 ok",
        "none of these rules apply",
        "\u00abD\u00e9cid\u00e9\u00bb, dit-il",
        "S\u00c3O PAULO",
    ],
)
def test_ordinary_texts_of_any_script_are_fine(text: str) -> None:
    assert text_defect(text) is None


def test_a_small_set_by_hand() -> None:
    profile = profile_of(["one two three", "one two three!", LEAVE, ""], rejected=1)
    assert profile.row_count == 5
    assert dict(profile.kinds) == {EMPTY: 1, EXACT: 1, MALFORMED: 1}
    assert (profile.lengths.count, profile.lengths.smallest) == (3, 3)
    assert dict(profile.language_ratio) == pytest.approx({"cjk": 1 / 3, "other": 2 / 3})
    assert [(i.place, i.kind) for i in profile.issues] == [
        ("rows.jsonl:4", EMPTY),
        ("rows.jsonl:2", EXACT),
        ("rows.jsonl:5", MALFORMED),
    ]
    assert "rows.jsonl:1" in profile.issues[1].reason


def test_near_duplicates_are_found_and_other_texts_are_not() -> None:
    rng = random.Random(3)
    originals = [words(200, rng) for _ in range(200)]
    edited = [text.replace(text.split()[90], "changed", 1) for text in originals[:40]]
    profile = profile_of([*originals, *edited])
    assert profile.count_of(EXACT) == 0
    assert 36 <= profile.count_of(NEAR) <= 40
    assert all(issue.reason.startswith("nearly the same text as rows.jsonl:") for issue in profile.issues)


def test_rules_that_differ_in_one_number_are_told_apart_from_copies() -> None:
    one = sketch_of("Hotel costs are paid up to 3200 dollars a night for every employee on a business trip abroad")
    other = sketch_of("Taxi receipts are handed in within two weeks and need the signature of the manager on duty")
    assert one is not None
    assert other is not None
    assert alike_ratio(one, one) == 1.0
    assert alike_ratio(one, other) < 0.3
    assert sketch_of("too short") is None


def test_memory_is_bounded_and_counts_become_estimates() -> None:
    rng = random.Random(5)
    texts = [words(12, rng) for _ in range(1200)]
    profile = profile_of([*texts, *texts[:400]], hash_count=300)
    assert profile.estimated
    assert 250 <= profile.count_of(EXACT) <= 550  # 400 in truth
    assert len([i for i in profile.issues if i.kind == EXACT]) <= EXAMPLES


def test_sketches_let_go_keep_a_fair_sample() -> None:
    rng = random.Random(7)
    twins, found = NearTwins(keep_count=100), 0
    texts = [words(100, rng) for _ in range(600)]
    for number, text in enumerate([*texts, *texts]):
        sketch = sketch_of(text)
        assert sketch is not None
        found += twins.take(sketch, str(number)) is not None
    assert twins.scale >= 8
    assert 300 <= found * twins.scale <= 1200  # 600 in truth


@given(st.lists(st.text(max_size=60), max_size=30))
def test_every_row_is_counted_once(texts: list[str]) -> None:
    profile = profile_of(texts)
    assert profile.row_count == len(texts)
    assert profile.lengths.count + profile.count_of(EMPTY) == len(texts)
    assert profile.bad_count + profile.duplicate_count <= len(texts)
    assert len(profile.issues) == profile.bad_count + profile.duplicate_count


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_lengths_are_those_of_the_rows(lengths: list[int]) -> None:
    found = lengths_of({n: lengths.count(n) for n in lengths})
    ordered = sorted(lengths)
    assert found.mean == pytest.approx(sum(lengths) / len(lengths))
    assert (found.smallest, found.largest) == (ordered[0], ordered[-1])
    assert dict(found.quantiles)[0.5] == ordered[(len(ordered) + 1) // 2 - 1]


@given(st.lists(st.text(min_size=1, max_size=80), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_figure(texts: list[str], rng: random.Random) -> None:
    shuffled = list(texts)
    rng.shuffle(shuffled)
    one, other = profile_of(texts), profile_of(shuffled)
    assert (one.row_count, one.lengths, one.language_ratio) == (other.row_count, other.lengths, other.language_ratio)
    assert one.centroid == pytest.approx(other.centroid, abs=2e-6)


def rows(count: int, mean: int, seed: int, spread: float = 0.2) -> list[str]:
    rng = random.Random(seed)
    return [words(max(1, round(rng.gauss(mean, mean * spread))), rng) for _ in range(count)]


def states(*checks: object) -> dict[str, str]:
    return {check.name: check.state for check in checks}  # type: ignore[attr-defined]


def test_first_incident_malformed_rows_and_shorter_chunks() -> None:
    """Field notes: 8 % of new rows malformed, mean chunk 400 -> 280 tokens."""
    before = profile_of(rows(150, 400, 1))
    after = profile_of([*rows(184, 280, 2), *[""] * 8], rejected=8)
    assert before.lengths.mean == pytest.approx(400, abs=15)
    bad, twins, _ = check_rows(after, Limits())
    length = check_lengths(before, after, Limits())
    assert (bad.state, twins.state, length.state) == (REFUSED, OK, REFUSED)
    assert bad.value == 0.08
    assert "16 of 200 rows (8.0%)" in bad.reason
    assert len(bad.rows) == 16
    assert "400" in length.reason or "39" in length.reason or "40" in length.reason


def test_second_incident_empty_rows_duplicates_and_shorter_chunks() -> None:
    """Field notes: 15 % empty fields, 3.2 % duplicates, mean length 450 -> 280 tokens."""
    before = profile_of(rows(150, 450, 1))
    fresh = rows(409, 280, 2)
    after = profile_of([*fresh, *fresh[:16], *[""] * 75])
    assert after.row_count == 500
    found = {c.name: c for c in (*check_rows(after, Limits()), check_lengths(before, after, Limits()))}
    assert {name: check.state for name, check in found.items()} == {
        "bad rows": REFUSED,
        "duplicates": REFUSED,
        "near duplicates": OK,
        "row length": REFUSED,
    }
    assert (found["bad rows"].value, found["duplicates"].value) == (0.15, 0.032)


def test_healthy_growth_passes_every_check() -> None:
    old = rows(150, 400, 1)
    new = rows(60, 410, 9)
    before, after = profile_of(old), profile_of([*old, *new])
    checks = (
        *check_rows(profile_of(new), Limits()),
        check_lengths(before, profile_of(new), Limits()),
        *check_place(before, after, Limits()),
    )
    assert set(states(*checks).values()) == {OK}


def test_few_rows_say_nothing_about_lengths_and_one_bad_row_refuses_nothing() -> None:
    before = profile_of(rows(150, 400, 1))
    after = profile_of([*rows(5, 100, 2), ""])
    assert check_lengths(before, after, Limits()).state == UNKNOWN
    assert check_rows(after, Limits())[0].state == OK
    assert check_rows(profile_of([]), Limits())[0].state == UNKNOWN


def test_lists_that_differ_in_a_word_are_near_duplicates_and_bear_more_of_them() -> None:
    lists = [f"{' '.join(WORDS[:60])} {WORDS[100 + n]} {' '.join(WORDS[60:90])}" for n in range(8)]
    some = profile_of([*rows(92, 60, 1), *lists])
    assert some.count_of(NEAR) == 7
    assert {check.state for check in check_rows(some, Limits())} == {OK}
    many = profile_of([*rows(40, 60, 1), *lists])
    assert [check.name for check in check_rows(many, Limits()) if check.state == REFUSED] == ["near duplicates"]


def test_what_was_bad_before_is_not_held_against_the_new_rows() -> None:
    before = profile_of([*rows(50, 50, 1), *[""] * 10])
    after = profile_of([*rows(50, 50, 1), *rows(50, 50, 2), *[""] * 10])
    assert check_rows(after, Limits())[0].state == REFUSED
    assert check_rows(after, Limits(), before)[0].state == OK


def test_another_language_another_subject_and_a_lost_field_are_seen() -> None:
    before = profile_of(rows(60, 40, 1))
    chinese = profile_of([LEAVE + chr(0x4E00 + i) for i in range(60)])
    assert states(*check_place(before, chinese, Limits())) == {"language": REFUSED, "subject": REFUSED, "schema": OK}
    titled = Profiler()
    for number, text in enumerate(rows(60, 40, 1)):
        titled.take(str(number), text, ("text", "title"))
    lost = check_place(titled.profile(), before, Limits())
    assert states(*lost) == {"language": OK, "subject": OK, "schema": REFUSED}
    assert "`title` filled in 100% -> 0%" in lost[2].reason
    assert check_place(Profile(), before, Limits()) == ()


def test_the_shift_of_centroids_is_small_for_growth_and_large_for_another_subject() -> None:
    assert centroid_shift(Profile(), profile_of(["a leave rule"])) is None
    rng = random.Random(1)
    other = [" ".join(rng.choices([w.upper() + "q" for w in WORDS[:80]], k=40)) for _ in range(100)]
    base = rows(200, 40, 1)
    grown = centroid_shift(profile_of(base), profile_of([*base, *rows(20, 40, 2)]))
    moved = centroid_shift(profile_of(base), profile_of(other))
    assert grown is not None
    assert moved is not None
    assert grown < 0.05 < 0.3 < moved


def test_tokens_of_the_profile_are_those_of_the_chunker() -> None:
    assert profile_of([LEAVE]).lengths.mean == count_tokens(LEAVE)
