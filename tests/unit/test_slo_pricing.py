"""Prices: found by name, dated, and refused when the unit looks wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from slo.errors import ConfigError
from slo.pricing import PriceTable


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    return tmp_path / "prices.yaml"


def written(path: Path, models: str, unit: str = "per_1M_tokens") -> Path:
    path.write_text(f'as_of: "2026-05-01"\nunit: {unit}\nmodels: {{{models}}}\n')
    return path


def test_the_shipped_table_prices_the_model_of_the_practice() -> None:
    table = PriceTable.load(None)
    # 950 input and 250 output tokens at 0.15 and 0.60 USD per 1M.
    assert table.cost_usd("gpt-4o-mini", 950, 250) == pytest.approx(0.0002925)
    assert table.as_of >= "2026-01-01"
    assert table.cost_usd("nobody-knows-it", 1, 1) is None


@pytest.mark.parametrize(
    ("asked", "same_as"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai/gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4o-mini-latest", "gpt-4o-mini"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4-5"),
        ("ft:gpt-4o-mini-2024-07-18:org:name:id", "ft:gpt-4o-mini"),
    ],
)
def test_names_are_found_by_alias_provider_and_date(asked: str, same_as: str) -> None:
    table = PriceTable.load(None)
    assert table.price(asked) == table.price(same_as)
    assert table.price(same_as) is not None


@pytest.mark.parametrize(
    "asked", ["gpt-4o-audio-preview", "gpt-4", "", "gpt-4o-mini-", "ft:gpt-3.5-turbo:org::id", "-", "x" * 10_000]
)
def test_a_mere_prefix_is_another_model(asked: str) -> None:
    assert PriceTable.load(None).price(asked) is None


def test_a_fine_tune_costs_more_than_its_base() -> None:
    table = PriceTable.load(None)
    base, tuned = table.price("gpt-4o-mini"), table.price("ft:gpt-4o-mini")
    assert base is not None
    assert tuned is not None
    assert tuned.input_usd > base.input_usd


def test_the_latest_price_not_after_today_counts(prices: Path) -> None:
    dated = (
        '{input: 3, output: 6, from: "2026-06-01"}',
        "{input: 1, output: 2}",
        '{input: 2, output: 4, from: "2026-01-01"}',
    )
    models = f"m: [{', '.join(dated)}]"
    path = written(prices, models)
    found = {day: PriceTable.load(path, today=day).price("m") for day in ("2025-12-31", "2026-01-01", "2026-06-01")}
    assert [p.input_usd for p in found.values() if p] == [1.0, 2.0, 3.0]


def test_a_price_of_the_future_only_is_no_price(prices: Path) -> None:
    path = written(prices, 'm: {input: 3, output: 6, from: "2026-06-01"}')
    assert PriceTable.load(path, today="2026-05-31").cost_usd("m", 1, 1) is None


def test_patterns_match_the_longest_first(prices: Path) -> None:
    table = PriceTable.load(written(prices, '"q*": {input: 1, output: 1}, "qwen-*": {input: 2, output: 2}'))
    assert table.cost_usd("qwen-7b", 1_000_000, 0) == pytest.approx(2.0)
    assert table.cost_usd("q1", 1_000_000, 0) == pytest.approx(1.0)


def test_own_hardware_has_price_zero_not_unknown(prices: Path) -> None:
    assert PriceTable.load(written(prices, "local: {input: 0, output: 0}")).cost_usd("local", 1000, 1000) == 0.0


def test_prices_per_1k_are_converted(prices: Path) -> None:
    table = PriceTable.load(written(prices, "gpt-4o-mini: {input: 0.00015, output: 0.0006}", "per_1k_tokens"))
    assert table.cost_usd("gpt-4o-mini", 950, 250) == pytest.approx(0.0002925)


@pytest.mark.parametrize(
    ("models", "unit", "message"),
    [
        # The worked table of the practice: 0.15 and 0.60 are list prices per 1M, called per 1k.
        ("gpt-4o-mini: {input: 0.15, output: 0.60}", "per_1k_tokens", "price per 1M tokens, write unit: per_1M_tokens"),
        ("gpt-4o-mini: {input: 0.00015, output: 0.0006}", "per_1M_tokens", "write unit: per_1k_tokens"),
        ("unheard-of: {input: 0.00015, output: 0.0006}", "per_1M_tokens", "write unit: per_1k_tokens"),
        ("unheard-of: {input: 0.15, output: 0.60}", "per_1k_tokens", "that is 600 USD per 1M tokens"),
        ("unheard-of: {input: 1500, output: 3000}", "per_1M_tokens", "divide by 1000"),
        ("unheard-of: {input: 0.0000001, output: 0.0000001}", "per_1k_tokens", "multiply by 1000"),
    ],
)  # fmt: skip
def test_a_price_a_thousand_times_off_is_refused_with_the_cure(
    prices: Path, models: str, unit: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        PriceTable.load(written(prices, models, unit))
    assert str(caught.value).startswith("prices.yaml: models.")
    assert "probably a thousand times off" in str(caught.value)
    assert message in str(caught.value)


HEAD = 'as_of: "2026-05-01"\nunit: per_1M_tokens\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('as_of: "2026-05-01"\nmodels: {}\n', "unit: got None; write unit: per_1M_tokens"),
        ('as_of: "2026-05-01"\nunit: per_token\nmodels: {}\n', "unit: got 'per_token'"),
        ('as_of: "May"\nunit: per_1M_tokens\nmodels: {}\n', "as_of: got 'May'; write a day"),
        (HEAD + "models: {m: {input: -1, output: 1}}\n", "input: got -1"),
        (HEAD + "models: {m: {input: 1}}\n", "output"),
        (HEAD + "models: {m: {input: 1, outptu: 1, output: 1}}\n", "did you mean `output`"),
        (HEAD + "models: {m: {input: 1, output: 1, aliases: [n]}, n: {input: 1, output: 1}}\n", "stands twice"),
    ],
)
def test_what_is_no_price_table(prices: Path, text: str, message: str) -> None:
    prices.write_text(text)
    with pytest.raises(ConfigError) as caught:
        PriceTable.load(prices)
    assert message in str(caught.value)


def test_names_from_clients_do_not_fill_the_memory() -> None:
    table = PriceTable.load(None)
    for number in range(5000):
        table.cost_usd(f"m{number}", 1, 1)
    assert len(table._seen) == 1024
    assert table.cost_usd("gpt-4o", 1, 1) is not None
