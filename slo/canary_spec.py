"""The key `canary` of slo.yaml: how canary and stable are compared, for the file and for one objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from slo.errors import ConfigError
from slo.indicators import (
    AVAILABILITY,
    HALLUCINATION,
    HTTP_ERRORS,
    LATENCY_P95,
    LATENCY_P99,
    LLM_ERRORS,
    SIMILARITY,
    ZERO_HIT,
)
from slo.metric_names import INDICATORS
from slo.spec_fields import StrictModel, is_off, number
from slo.types import CanaryRule, OnBreach, Slo

COMPARED = (
    HALLUCINATION, SIMILARITY, ZERO_HIT, LATENCY_P95, LATENCY_P99, AVAILABILITY, HTTP_ERRORS, LLM_ERRORS,
)  # fmt: skip
"""Indicators that can be compared: harms of one answer, and scores in [0, 1]. Thumbs come without a session, a fresh
canary has a cold cache, and money has no upper end."""

FACTOR = 2.0
ALPHA = 0.01

Ratio = Annotated[float, BeforeValidator(number, json_schema_input_type=float | str)]


class CanaryForm(StrictModel):
    """How one objective is compared."""

    factor: Ratio | None = Field(
        None, ge=1, le=100, description="A canary more than this many times as bad as stable fails; default 2."
    )
    margin: Ratio | None = Field(
        None, gt=0, le=1,
        description="A canary certainly less than this much worse passes; share of events, or score. "
        "Default: what the limit allows, between 2% and 5%; 0.05 for scores.",
    )  # fmt: skip


class FileCanaryForm(CanaryForm):
    """How all objectives are compared that say nothing themselves."""

    alpha: Ratio = Field(
        ALPHA,
        ge=1e-6,
        le=0.2,
        description="Probability of a false fail over a rollout, shared by all objectives.",
    )


def _off(_: object) -> str:
    return "off"


def _tag(value: object) -> str | None:
    if is_off(value):
        return "[off]"
    return "[canary]" if isinstance(value, dict | CanaryForm) else None


_Off = Annotated[Literal["off"], BeforeValidator(_off), Tag("[off]")]
_WHICH = Discriminator(
    _tag,
    custom_error_type="canary_form",
    custom_error_message="write off, or a mapping such as {factor: 2, margin: 2%}",
)
CanaryOrOff = Annotated[Annotated[CanaryForm, Tag("[canary]")] | _Off, _WHICH]
FileCanaryOrOff = Annotated[Annotated[FileCanaryForm, Tag("[canary]")] | _Off, _WHICH]


def canary_problems(own: object, indicator: str, place: str) -> Iterator[ConfigError]:
    """What the structure cannot say of the key of one objective."""
    if not isinstance(own, CanaryForm):
        return
    if indicator not in COMPARED:
        yield ConfigError(f"{place}.canary", indicator, f"only these are compared: {', '.join(COMPARED)}; remove it")
    elif own.factor is not None and INDICATORS[indicator].kind == "mean":
        yield ConfigError(f"{place}.canary.factor", own.factor, "scores are compared by their difference; use margin")


def canary_rule(own: object, of_file: object, slo: Slo) -> CanaryRule | None:
    """Return the rule of one objective, alpha not yet shared; None: it is not compared.

    By itself an objective takes part when it is one of `COMPARED` and may act on a release.
    """
    if own == "off" or slo.indicator not in COMPARED or not isinstance(of_file, FileCanaryForm):
        return None
    if own is None and slo.action is OnBreach.TRACK:
        return None
    form = own if isinstance(own, CanaryForm) else CanaryForm()
    # A margin of the file is a share; as a difference of scores it would mean something else.
    margin_of_file = of_file.margin if INDICATORS[slo.indicator].kind != "mean" else None
    factor = form.factor or of_file.factor or FACTOR
    return CanaryRule(factor, form.margin if form.margin is not None else margin_of_file, of_file.alpha)


def share_alpha(slos: Sequence[Slo]) -> tuple[Slo, ...]:
    """Return the objectives with alpha divided by the number of those that are compared (Bonferroni)."""
    count = sum(slo.canary is not None for slo in slos)
    return tuple(
        replace(slo, canary=replace(slo.canary, alpha=slo.canary.alpha / count)) if slo.canary else slo for slo in slos
    )
