"""A baseline of simulated healthy days, for rules relative to one: counted hour by hour, no exchange made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from bench.traffic.arrivals import Load
from bench.traffic.behaviour import Behaviour
from bench.traffic.counting import Counts, draw
from bench.traffic.service import MONDAY_S
from slo.artefact import QUANTILES, Baseline, IndicatorBaseline, Measured, Statistic, sealed
from slo.indicators import HALLUCINATION, LLM_ERRORS, SIMILARITY, ZERO_HIT
from slo.statistics import quantile
from slo.thresholds import Known

HOUR_S = 3600.0
DAY_S = 86_400.0
EVALUATION_COUNT = 500


def known_from(behaviour: Behaviour, load: Load, *, seed: int, days: int = 7, valid_days: float = 400.0) -> Known:
    """Return what a guard knows that watched `days` of this behaviour just before the simulation began.

    Hourly windows of hallucination, zero-hit, failed calls and similarity, and a similarity measured on a test set.
    """
    chance = numpy.random.default_rng(seed)
    # Hour h of the baseline is hour h of the simulation's first week, so both have the same cycle.
    hours = [draw(chance, load.rate(h * HOUR_S) * HOUR_S, behaviour, {}) for h in range(24 * days)]
    similarity = behaviour.similarity_mean
    found = (
        _indicator(HALLUCINATION, [(h.hallucinated, h.judged) for h in hours]),
        _indicator(ZERO_HIT, [(h.zero_hits, h.fresh) for h in hours]),
        _indicator(LLM_ERRORS, [(h.failed, h.fresh + h.failed) for h in hours]),
        _indicator(SIMILARITY, [(h.similarity_sum, h.similarity_count) for h in hours]),
    )
    baseline = Baseline(
        created_wall_s=MONDAY_S,
        expires_wall_s=MONDAY_S + valid_days * DAY_S,
        first_wall_s=MONDAY_S - days * DAY_S,
        last_wall_s=MONDAY_S,
        days=float(days),
        window_s=HOUR_S,
        exchange_count=_total(hours),
        indicators=found,
        measured=(Measured(SIMILARITY, similarity, EVALUATION_COUNT, MONDAY_S),),
    )
    return Known(baseline=sealed(baseline))


def _indicator(name: str, windows: Sequence[tuple[float, float]]) -> IndicatorBaseline:
    values = sorted(part / whole for part, whole in windows if whole)
    mean = sum(values) / len(values)
    quantiles = {name: quantile(values, at) for name, at in QUANTILES.items()}
    statistics = tuple(Statistic(name, v, v, v) for name, v in {"mean": mean, **quantiles}.items())
    events = sum(whole for _, whole in windows)
    return IndicatorBaseline(
        indicator=name,
        window_s=HOUR_S,
        window_count=len(values),
        event_count=int(events),
        overall=sum(part for part, _ in windows) / events,
        statistics=statistics,
    )


def _total(hours: Sequence[Counts]) -> int:
    return sum(hour.questions for hour in hours)
