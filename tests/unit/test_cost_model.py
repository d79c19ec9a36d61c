"""The cost model reproduces every figure of the practice, and says when a price looks like the wrong unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slo.economics.breakeven import compare
from slo.economics.estimate import estimate, inference_usd_per_request
from slo.economics.formulas import breakeven_tokens, cached_usd, canary_usd, forecast_usd, inference_usd
from slo.economics.scenario import Scenario, load_scenario
from slo.errors import ConfigError


@pytest.fixture(scope="module")
def practice() -> Scenario:
    return load_scenario("practice")


@pytest.mark.parametrize(
    ("item", "usd", "per"),
    [
        ("first embedding", 60.0, "once"),
        ("weekly additions", 0.60, "week"),
        ("local embedding", 0.12, "once"),  # the source says "about"
        ("inference, no cache", 585.0, "day"),
        ("inference, with cache", 234.0, "day"),
        ("saved by the cache", 351.0, "day"),
        ("canary", 3.63, "run"),
        ("cloud fine-tune, training", 16.0, "run"),
        ("cloud fine-tune, a year", 64.0, "year"),
        ("own LoRA, training", 14.0, "run"),
        ("own LoRA, data preparation", 600.0, "once"),
        ("index storage", 0.0015, "month"),
        ("cache memory", 1.0, "month"),
    ],
)
def test_each_line_of_the_practice(practice: Scenario, item: str, usd: float, per: str) -> None:
    line = next(line for line in estimate(practice) if line.item == item)
    assert (line.usd, line.per) == (pytest.approx(usd, abs=0.005 if usd > 0.01 else 1e-9), per)


@pytest.mark.parametrize(
    ("option", "usd", "with_people"),
    [
        ("openai-ft", (115, 115), None),
        ("own-gpu", (369, 469), (3669, 4869)),
        ("cloud-gpu", (1060, 2950), (2710, 5700)),
        ("hybrid", (2600, 3900), None),
    ],
)
def test_cost_of_ownership_at_30_million_tokens(
    practice: Scenario, option: str, usd: tuple[int, int], with_people: tuple[int, int] | None
) -> None:
    found = next(t for t in compare(practice).tco if t.option == option)
    assert found.usd == pytest.approx(usd)
    assert found.with_people_usd == (None if with_people is None else pytest.approx(with_people))


@pytest.mark.parametrize(
    ("option", "basis", "millions"),
    [
        ("own-gpu", "without_people", (115, 148)),
        ("own-gpu", "with_people", (1215, 1615)),
        ("cloud-gpu", "rounded", (325, 1000)),
        ("cloud-gpu", "without_people", (345, 975)),
    ],
)
def test_break_even_points(practice: Scenario, option: str, basis: str, millions: tuple[int, int]) -> None:
    point = next(p for p in compare(practice).break_evens if (p.option, p.basis) == (option, basis))
    assert tuple(round(tokens / 1e6) for tokens in point.tokens_per_month) == millions


@pytest.mark.parametrize(
    ("millions", "may_leave", "expected"),
    [
        (30, True, "openai-ft"), (999, True, "openai-ft"), (1000, True, "evaluate"), (1999, True, "evaluate"),
        (2000, True, "own-gpu"), (30, False, "own-gpu"),
    ],
)  # fmt: skip
def test_recommendation_by_volume(practice: Scenario, millions: int, may_leave: bool, expected: str) -> None:
    found = compare(practice, tokens_per_month=millions * 1e6, data_may_leave=may_leave)
    assert found.recommendation == expected


def test_the_source_prices_look_a_thousand_times_off_and_list_prices_do_not(practice: Scenario) -> None:
    (warning,) = practice.warnings()
    assert "input 150, output 600, embedding 20 USD per 1M tokens" in warning
    assert "per_1M_tokens" in warning
    prices = practice.prices.model_copy(update={"unit": "per_1M_tokens"})
    assert practice.model_copy(update={"prices": prices}).warnings() == ()


def test_the_unit_changes_the_day_by_a_thousand(practice: Scenario) -> None:
    prices = practice.prices.model_copy(update={"unit": "per_1M_tokens"})
    listed = practice.model_copy(update={"prices": prices})
    assert inference_usd_per_request(practice) == pytest.approx(1000 * inference_usd_per_request(listed))


def test_whole_requests_only_and_no_request_lost_to_floats() -> None:
    assert canary_usd(2000, 2, 0.2, 0.40, 0.29) == pytest.approx(33 * 0.11)
    assert canary_usd(2400, 24, 0.1, 2.0, 1.0) == pytest.approx(240.0)


def test_forecast_by_hand() -> None:
    # mean 12, s = 2: 1.645 x 2 x sqrt(30 + 900 / 4) = 52.54
    low, expected, high = forecast_usd([10.0, 12.0, 12.0, 14.0], 30)
    assert expected == 360.0
    s = (8 / 3) ** 0.5
    assert high - expected == pytest.approx(1.645 * s * (30 + 900 / 4) ** 0.5)
    assert expected - low == pytest.approx(high - expected)
    assert forecast_usd([5.0], 10) == (0.0, 50.0, float("inf"))


@given(st.floats(0, 1e6), st.floats(0, 1))
def test_paid_and_saved_add_up(usd: float, hit_ratio: float) -> None:
    paid = cached_usd(usd, hit_ratio)
    assert 0.0 <= paid <= usd
    assert paid + usd * hit_ratio == pytest.approx(usd)


@given(st.floats(0, 1e5), st.floats(0, 1e4), st.floats(0.01, 1e3))
def test_at_the_break_even_point_both_cost_the_same(fixed: float, other: float, per_1m: float) -> None:
    tokens = breakeven_tokens(fixed, other, per_1m)
    assert other + tokens / 1e6 * per_1m == pytest.approx(fixed, abs=1e-6)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 100), st.floats(0, 100))
def test_inference_grows_with_every_part(given_: int, answered: int, input_usd: float, output_usd: float) -> None:
    usd = inference_usd(given_, answered, input_usd, output_usd)
    assert usd <= inference_usd(given_ + 1, answered + 1, input_usd, output_usd)
    assert usd >= 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\n", "prices: got None; this key is required"),
        ("name: x\nprices: {unit: per_1k, input: 1, output: 1}\ntraffic: {requests_per_day: 1}\n", "prices.unit"),
        ("name: x\npricse: {}\n", "pricse: got"),
    ],
)
def test_a_mistake_in_a_scenario_is_one_line_with_place_and_cure(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(str(path))
    assert any(said in str(error) for error in (caught.value, *caught.value.more))


def test_an_option_of_fixed_cost_needs_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: x\nprices: {unit: per_1M_tokens, input: 1, output: 1}\n"
        "traffic: {requests_per_day: 1, question_tokens: 1, answer_tokens: 1}\n"
        "options: [{name: own, kind: fixed}]\n"
    )
    with pytest.raises(ConfigError, match="needs parts"):
        load_scenario(str(path))
