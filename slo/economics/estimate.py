"""The table of `cost estimate`: every item of a scenario with its formula, in words and in numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from slo.economics import formulas
from slo.economics.scenario import Scenario

WEEKS_PER_MONTH = 365.25 / 12 / 7
DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True, slots=True)
class Line:
    """One item. per: once | day | week | month | year | run. monthly_usd: None for what is paid once."""

    item: str
    formula: str
    usd: float
    per: str
    monthly_usd: float | None


def inference_usd_per_request(scenario: Scenario) -> float:
    """Cost of one inference that is not answered from the cache."""
    traffic, prices = scenario.traffic, scenario.prices
    return formulas.inference_usd(
        traffic.question_tokens + traffic.context_tokens,
        traffic.answer_tokens,
        prices.per_1m("input"),
        prices.per_1m("output"),
    )


def estimate(scenario: Scenario) -> tuple[Line, ...]:
    """Return every line that the scenario has numbers for."""
    return (*_knowledge_base(scenario), *_inference(scenario), *_training(scenario), *_storage(scenario))


def _inference(scenario: Scenario) -> list[Line]:
    traffic, prices = scenario.traffic, scenario.prices
    per_day = traffic.requests_per_day * inference_usd_per_request(scenario)
    paid = formulas.cached_usd(per_day, traffic.cache_hit_ratio)
    words = (
        f"{traffic.requests_per_day:g} x (({traffic.question_tokens:g} + {traffic.context_tokens:g}) x "
        f"{prices.input:g} + {traffic.answer_tokens:g} x {prices.output:g}) {prices.unit.replace('_', ' ')}"
    )
    lines = [_daily("inference, no cache", words, per_day)]
    if traffic.cache_hit_ratio:
        miss = 1.0 - traffic.cache_hit_ratio
        lines.append(_daily("inference, with cache", f"{miss:g} x {per_day:g}", paid))
        lines.append(_daily("saved by the cache", f"{traffic.cache_hit_ratio:g} x {per_day:g}", per_day - paid))
    if scenario.canary is not None:
        c = scenario.canary
        usd = formulas.canary_usd(
            traffic.requests_per_day, c.hours, c.weight, c.canary_usd_per_request, c.stable_usd_per_request
        )
        words = (
            f"whole requests of {traffic.requests_per_day:g} x {c.hours:g}/24 x {c.weight:g}, each "
            f"{c.canary_usd_per_request:g} - {c.stable_usd_per_request:g}"
        )
        lines.append(Line("canary", words, usd, "run", None))
    return lines


def _knowledge_base(scenario: Scenario) -> list[Line]:
    kb, usd = scenario.knowledge_base, scenario.prices.per_1m("embedding")
    if kb is None:
        return []
    first = formulas.tokens_usd(kb.chunks * kb.tokens_per_chunk, usd)
    weekly = formulas.tokens_usd(kb.new_chunks_per_week * kb.tokens_per_chunk, usd)
    price = f"{scenario.prices.embedding:g} {scenario.prices.unit.replace('_', ' ')}"
    lines = [
        Line("first embedding", f"{kb.chunks:g} x {kb.tokens_per_chunk:g} x {price}", first, "once", None),
        Line(
            "weekly additions", f"{kb.new_chunks_per_week:g} x {kb.tokens_per_chunk:g} x {price}",
            weekly, "week", weekly * WEEKS_PER_MONTH,
        ),
    ]  # fmt: skip
    if kb.local_embedding is not None:
        local = kb.local_embedding
        usd = formulas.gpu_usd(local.minutes / 60.0, local.usd_per_hour)
        lines.append(Line("local embedding", f"{local.minutes:g} min x {local.usd_per_hour:g}/h", usd, "once", None))
    return lines


def _training(scenario: Scenario) -> list[Line]:
    lines = []
    if scenario.fine_tune is not None:
        ft, usd = scenario.fine_tune, scenario.prices.per_1m("training")
        run = formulas.tokens_usd(ft.training_tokens, usd)
        price = f"{scenario.prices.training:g} {scenario.prices.unit.replace('_', ' ')}"
        lines.append(Line("cloud fine-tune, training", f"{ft.training_tokens:g} x {price}", run, "run", None))
        year = run * ft.runs_per_year
        lines.append(Line("cloud fine-tune, a year", f"{ft.runs_per_year:g} x {run:g}", year, "year", year / 12))
    if scenario.lora is not None:
        lora = scenario.lora
        run = formulas.gpu_usd(lora.gpu_hours, lora.usd_per_hour)
        lines.append(Line("own LoRA, training", f"{lora.gpu_hours:g} h x {lora.usd_per_hour:g}/h", run, "run", None))
        if lora.data_preparation_usd:
            lines.append(Line("own LoRA, data preparation", "as given", lora.data_preparation_usd, "once", None))
    return lines


def _storage(scenario: Scenario) -> list[Line]:
    lines, kb, cache = [], scenario.knowledge_base, scenario.cache
    if kb is not None and kb.index_mb:
        usd = formulas.storage_usd_per_month(kb.index_mb / formulas.MB_PER_GB, kb.storage_usd_per_gb_month)
        words = f"{kb.index_mb:g} MB x {kb.storage_usd_per_gb_month:g}/GB"
        lines.append(Line("index storage", words, usd, "month", usd))
    if cache is not None:
        usd = formulas.storage_usd_per_month(cache.gb, cache.usd_per_gb_month)
        lines.append(Line("cache memory", f"{cache.gb:g} GB x {cache.usd_per_gb_month:g}/GB", usd, "month", usd))
    return lines


def _daily(item: str, formula: str, usd: float) -> Line:
    return Line(item, formula, usd, "day", usd * DAYS_PER_MONTH)
