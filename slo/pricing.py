"""What tokens cost: a dated price table, USD per 1M tokens.

The commonest mistake with prices is the unit: a price per 1k tokens read as one per 1M is a thousand times off, and a
month's budget is gone or a dashboard shows nothing. So the unit is written in the file, and prices that look like the
wrong one are refused with an explanation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from slo.errors import ConfigError
from slo.strict_yaml import load_yaml_file, validate_model

LOWEST_USD, HIGHEST_USD = 0.001, 200.0
"""USD per 1M tokens between which list prices have been; 0 is a model without a price per token (own hardware)."""

FAR_OFF = 100.0
"""A price this many times above or below the shipped one of the same model is taken for a unit mistake."""

_CACHE_SIZE = 1024
_DATED = re.compile(r"^[-@](\d{8}|\d{4}-\d{2}-\d{2}|\d{4}|latest)$")
_DAY = re.compile(r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")
_MILLION = 1e-6


def _day(value: object) -> object:
    if not isinstance(value, str) or not _DAY.match(value):
        raise ValueError('write a day such as "2026-03-31"')
    return value


Day = Annotated[str, BeforeValidator(_day)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    input: Usd
    output: Usd
    from_: Day | None = Field(None, alias="from")
    source: str = ""
    aliases: tuple[str, ...] = ()


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: Day
    unit: Literal["per_1M_tokens", "per_1k_tokens"]
    models: dict[str, Annotated[tuple[_Entry, ...], BeforeValidator(_one_or_more), Field(min_length=1)]]


@dataclass(frozen=True, slots=True)
class Price:
    """USD per 1M tokens since `since` (ISO day, "" for always)."""

    input_usd: float
    output_usd: float
    since: str = ""


class PriceTable:
    """Prices by model. Looking one up costs a dictionary access once the name was seen."""

    def __init__(self, prices: dict[str, Price], as_of: str) -> None:
        self.as_of = as_of
        self._prices = prices
        self._patterns = sorted((n for n in prices if n.endswith("*")), key=len, reverse=True)
        self._seen: dict[str, tuple[float, float] | None] = {}

    @classmethod
    def load(cls, path: Path | str | None = None, *, today: str = "9999-12-31") -> PriceTable:
        """Read a price table; None for the one shipped with the program.

        today: ISO day; of several dated entries of a model the latest not after it is used. Without it, the latest.

        Raises:
            ConfigError: not a price table, or a price that looks a thousand times off.
        """
        shipped_path = Path(__file__).parent / "prices.yaml"
        if path is None or Path(path) == shipped_path:
            return _table(shipped_path, today, {})
        return _table(Path(path), today, _table(shipped_path, today, {})._prices)

    def cost_usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """Return the cost of one inference, None when the model's price is unknown."""
        try:
            price = self._seen[model]
        except KeyError:
            price = self._remember(model)
        if price is None:
            return None
        return input_tokens * price[0] + output_tokens * price[1]

    def price(self, model: str) -> Price | None:
        """Return the price of a model, None when unknown.

        Found by name, by name without provider (`openai/gpt-4o`), by name without a date or `latest` at its end, by
        base of a fine-tuned name (`ft:gpt-4o-mini-2024-07-18:org::id`), or by an entry ending in `*`. Never by a mere
        prefix: gpt-4o-audio is not gpt-4o.
        """
        for name in _names(model):
            if name in self._prices:
                return self._prices[name]
        for name in _names(model):
            for pattern in self._patterns:
                if name.startswith(pattern[:-1]):
                    return self._prices[pattern]
        return None

    def _remember(self, model: str) -> tuple[float, float] | None:
        found = self.price(model)
        price = (found.input_usd * _MILLION, found.output_usd * _MILLION) if found else None
        if len(self._seen) < _CACHE_SIZE:  # names come from clients: bounded
            self._seen[model] = price
        return price


def _names(model: str) -> list[str]:
    """Names to try, the most exact first."""
    names = [model]
    bare = model.rpartition("/")[2]
    if bare.startswith("ft:"):
        bare = "ft:" + bare[3:].partition(":")[0]
    names.append(bare)
    for cut in re.finditer(r"[-@]", bare):
        if _DATED.match(bare[cut.start() :]):
            names.append(bare[: cut.start()])
            break
    return names


def _table(path: Path, today: str, shipped: dict[str, Price]) -> PriceTable:
    document, _ = load_yaml_file(path)
    file = validate_model(_File, _numbers_checked(document, path.name), path.name)
    scale = 1000.0 if file.unit == "per_1k_tokens" else 1.0
    prices: dict[str, Price] = {}
    for model, entries in file.models.items():
        dated = [Price(e.input * scale, e.output * scale, e.from_ or "") for e in entries]
        for entry, price in zip(entries, dated, strict=True):
            _plausible(entry, price, f"{path.name}: models.{model}", file.unit, shipped.get(model))
        valid = [price for price in dated if price.since <= today]
        if not valid:
            continue  # only prices of the future
        price = max(valid, key=lambda p: p.since)
        for name in (model, *(alias for entry in entries for alias in entry.aliases)):
            if name in prices:
                raise ConfigError(f"{path.name}: models.{model}", name, "this name or alias stands twice; keep one")
            prices[name] = price
    return PriceTable(prices, file.as_of)


def _numbers_checked(document: dict[str, Any], place: str) -> dict[str, Any]:
    """The unit is asked for before anything else: without it no number means anything."""
    if "unit" not in document:
        raise ConfigError(
            f"{place}: unit", None, "write unit: per_1M_tokens (as vendors list prices now) or per_1k_tokens"
        )
    return document


def _plausible(entry: _Entry, price: Price, place: str, unit: str, shipped: Price | None) -> None:
    """Refuse what looks like the wrong unit."""
    for name, written, usd, known in (
        ("input", entry.input, price.input_usd, shipped.input_usd if shipped else 0.0),
        ("output", entry.output, price.output_usd, shipped.output_usd if shipped else 0.0),
    ):
        if usd == 0.0:
            continue
        if usd > HIGHEST_USD or (known and usd > known * FAR_OFF):
            raise ConfigError(
                f"{place}.{name}", written, _explain(usd, known, unit, "per_1k_tokens", "per_1M_tokens", written)
            )
        if usd < LOWEST_USD or (known and usd < known / FAR_OFF):
            raise ConfigError(
                f"{place}.{name}", written, _explain(usd, known, unit, "per_1M_tokens", "per_1k_tokens", written)
            )


def _explain(usd: float, known: float, unit: str, mistaken: str, right: str, written: float) -> str:
    expected = (
        f"the list price is about {known:g}" if known else f"list prices lie between {LOWEST_USD:g} and {HIGHEST_USD:g}"
    )
    if unit == mistaken:
        cure = f"the unit of the file is {unit}; if this is a price {right.replace('_', ' ')}, write unit: {right}"
    else:
        factor = "divide by 1000" if right == "per_1M_tokens" else "multiply by 1000"
        cure = f"the unit of the file is {unit}, so check the number itself ({factor}?)"
    return f"that is {usd:g} USD per 1M tokens and {expected}: probably a thousand times off; {cure}"
