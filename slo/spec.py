"""slo.yaml: one file from which the sidecar, Prometheus, Grafana and the docs are generated.

Strict: unknown keys, duplicate names, aliases and oversized files are refused, every error with file, path, value and
cure. Milliseconds and percent exist only here at the border; inside it is seconds and ratios.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from slo.artefact import QUANTILES
from slo.canary_spec import CanaryOrOff, FileCanaryForm, FileCanaryOrOff, canary_problems, canary_rule, share_alpha
from slo.codec import text_hash
from slo.errors import ConfigError
from slo.indicators import AVAILABILITY, COST
from slo.metric_names import INDICATORS, Indicator
from slo.outside import OutsideRule
from slo.spec_fields import StrictModel as _Model
from slo.spec_fields import is_off
from slo.spec_fields import number as _number
from slo.strict_yaml import INIT, load_yaml_file, parse_yaml, validate_model
from slo.thresholds import TIERS
from slo.types import FastPath, OnBreach, Slo, Threshold, Window
from slo.windows import MAX_LENGTH_S

PRESETS: dict[str, str] = {
    "support-faq": "customer-service FAQ bot: hallucination < 5 %, P95 < 500 ms, success 99 %",
    "finance": "financial questions: hallucination < 1 %, P95 < 300 ms, success 99.9 %",
    "internal-kb": "internal knowledge base: hallucination < 10 %, P95 < 1000 ms, success 95 %",
}
"""Name and meaning; the numbers are starting points, to be adjusted to the service."""

FORMS = ("baseline", "current", "limit", "sla", "budget_usd", "tier", "previous", "absolute")
"""The key that tells which form a threshold has."""

_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNIT_S), re.ASCII)
_STATISTICS = ("mean", *QUANTILES)


def parse_duration_s(text: str) -> float:
    """Return the seconds of `10m`, `1h`, `30d`, `90s` or `1h30m`.

    Raises:
        ValueError: anything else; the message says how to write it.

    >>> parse_duration_s("1h30m"), parse_duration_s("30d")
    (5400.0, 2592000.0)
    """
    match = _DURATION.fullmatch(text.strip()) if len(text) <= 40 else None
    if not match or not any(match.groups()):
        raise ValueError(f"`{text[:40]}`: write a duration such as 90s, 10m, 1h, 1h30m or 30d")
    return sum(float(part) * size for part, size in zip(match.groups(), _UNIT_S.values(), strict=True) if part)


def _duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError("write a duration with its unit, such as 90s, 10m, 1h or 30d")
    return parse_duration_s(value)


Seconds = Annotated[float, BeforeValidator(_duration, json_schema_input_type=str)]
Number = Annotated[
    float, BeforeValidator(_number, json_schema_input_type=float | str), Field(allow_inf_nan=False, ge=0, le=1e12)
]
Factor = Annotated[float, BeforeValidator(_number, json_schema_input_type=float | str), Field(gt=0, le=1000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Lower-case letters, digits, . _ -")]


class _Form(_Model):
    """Base of the eight forms."""


def _known_statistic(value: object) -> object:
    if value not in _STATISTICS:
        raise ValueError(f"write one of {', '.join(_STATISTICS)}")
    return value


StatisticName = Annotated[str, BeforeValidator(_known_statistic), Field(json_schema_extra={"enum": list(_STATISTICS)})]


class BaselineForm(_Form):
    """Quantile over the baseline's window-sized values, times a factor. Unknown without a fresh baseline."""

    baseline: StatisticName = Field(description="p95 of the baseline's values per window, say; or mean.")
    factor: Factor = Field(1.5, description="Tolerance; 1.5 is the practice for hallucination.")


class CurrentForm(_Form):
    """The value measured now on the evaluation set, times a factor."""

    current: Literal["mean"] = Field(description="The mean measured on the evaluation set, stored in the baseline.")
    factor: Factor = Field(0.9, description="0.9: worse than nine tenths of today is a breach.")


class LimitForm(_Form):
    """The capacity limit found by a load test, times a factor."""

    limit: Number = Field(description="In the indicator's unit; milliseconds for latency.")
    factor: Factor = Field(0.7, description="Head room below the limit.")


class SlaForm(_Form):
    """The agreed value minus a margin."""

    sla: Number = Field(description="In the indicator's unit; milliseconds for latency.")
    margin: Number = Field(200.0, description="In the indicator's unit; milliseconds for latency.")


class BudgetForm(_Form):
    """Budget divided by expected requests, times a factor."""

    budget_usd: Number = Field(description="USD per period.")
    requests: Annotated[float, Field(gt=0, le=1e15)] = Field(description="Requests expected in the same period.")
    factor: Factor = Field(1.2, description="Tolerance.")


class TierForm(_Form):
    """Success rate by kind of service: internal 95 %, general 99 %, critical 99.9 %."""

    tier: Literal["internal", "general", "critical"]


class PreviousForm(_Form):
    """As `baseline`, but of the previous release and scaled to this hour of the week."""

    previous: StatisticName = Field(description="p95 of the previous release's values per window, say; or mean.")
    factor: Factor = Field(1.2, description="Tolerance.")


class AbsoluteForm(_Form):
    """The number itself."""

    absolute: Number = Field(description="A ratio such as 0.05 or 5%, milliseconds for latency, USD for cost.")


def _form_of(value: object) -> str | None:
    """Tag of the one form whose key is there; the tag has a bracket so that error paths leave it out."""
    if isinstance(value, _Form):
        value = dict(value)
    found = [form for form in FORMS if form in value] if isinstance(value, dict) else []
    return f"[{found[0]}]" if len(found) == 1 else None


AnyForm = Annotated[
    Annotated[BaselineForm, Tag("[baseline]")]
    | Annotated[CurrentForm, Tag("[current]")]
    | Annotated[LimitForm, Tag("[limit]")]
    | Annotated[SlaForm, Tag("[sla]")]
    | Annotated[BudgetForm, Tag("[budget_usd]")]
    | Annotated[TierForm, Tag("[tier]")]
    | Annotated[PreviousForm, Tag("[previous]")]
    | Annotated[AbsoluteForm, Tag("[absolute]")],
    Discriminator(
        _form_of,
        custom_error_type="threshold_form",
        custom_error_message=f"write exactly one of the eight forms; its key is {', '.join(FORMS)}",
    ),
]


class FastForm(_Model):
    """Catastrophe rule beside the slow one: so much bad in so short a time acts at once."""

    over: Annotated[float, BeforeValidator(_number, json_schema_input_type=float | str)] = Field(
        0.20, gt=0, lt=1, description="Share of bad events, 20% or 0.2."
    )
    window: Seconds = Field(60.0, ge=10, le=3600, description="Short window.")
    min_events: int = Field(20, ge=5, le=1_000_000, description="Fewer events than this say nothing.")


def _fast_tag(value: object) -> str | None:
    if is_off(value):
        return "[off]"
    return "[fast]" if isinstance(value, dict | FastForm) else None


def _off(_: object) -> str:
    return "off"


FastOrOff = Annotated[
    Annotated[FastForm, Tag("[fast]")] | Annotated[Literal["off"], BeforeValidator(_off), Tag("[off]")],
    Discriminator(
        _fast_tag,
        custom_error_type="fast_form",
        custom_error_message="write off, or a mapping such as {over: 20%, window: 1m, min_events: 20}",
    ),
]


class Objective(_Model):
    """One rule: an indicator, how its limit is obtained, and what to do on a breach."""

    name: Name
    indicator: str = Field(
        description="What is measured.", json_schema_extra={"enum": list(INDICATORS)}, max_length=100
    )
    window: Seconds = Field(ge=60, le=MAX_LENGTH_S, description="Rolling window, 1m to 30d.")
    threshold: AnyForm = Field(description="How the limit is obtained: one of eight forms.")
    for_: Seconds = Field(0.0, alias="for", le=86_400, description="The breach must be found this long.")
    keep_firing_for: Seconds = Field(300.0, le=86_400, description="A breach keeps firing this long after its end.")
    min_events: int = Field(400, ge=1, le=100_000_000, description="Fewer events in the window are unknown.")
    action: Literal["track", "page", "shed", "rollback"] = Field(
        "track", description="track: metric and ticket. page: alert. shed: less traffic. rollback: back to stable."
    )
    fast: FastOrOff | None = Field(
        None, description="Catastrophe rule, or off. Ratio rules that roll back have it by default."
    )
    burn_rate: bool = Field(False, description="Judge by how fast the error budget burns, in pairs of windows.")
    routes: tuple[Name, ...] = Field((), description="Only these routes of guard.yaml; default all.")
    canary: CanaryOrOff | None = Field(
        None, description="How a canary is compared with stable: {factor, margin}, or off. Default: as for the file."
    )

    @field_validator("indicator")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in INDICATORS:
            near = difflib.get_close_matches(value, INDICATORS, n=1)
            raise ValueError(
                f"unknown indicator; did you mean `{near[0]}`?" if near else f"write one of {', '.join(INDICATORS)}"
            )
        return value

    @field_validator("action", mode="before")
    @classmethod
    def _near_action(cls, value: object) -> object:
        words = [a.value for a in OnBreach]
        if isinstance(value, str) and value not in words:
            near = difflib.get_close_matches(value, words, n=1, cutoff=0.5)
            raise ValueError(f"did you mean `{near[0]}`?" if near else f"write one of {', '.join(words)}")
        return value


class OutsideAlertForm(_Model):
    """A rule on an alert that somebody else raises and Alertmanager sends to the guard."""

    name: Name
    alert: str = Field(
        pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:.-]{0,99}$", description="Its `alertname`, as Alertmanager sends it."
    )
    labels: dict[str, str] = Field({}, max_length=16, description="Labels that it must carry besides, word for word.")
    for_: Seconds = Field(0.0, alias="for", le=86_400, description="It must be known to fire this long.")
    max_age: Seconds = Field(
        3600.0, ge=60, le=86_400, description="Not repeated for so long, it is unknown whether it still fires."
    )
    action: Literal["track", "page", "shed", "rollback"] = Field(
        "track", description="What a firing alert asks for; as for objectives."
    )

    @field_validator("alert")
    @classmethod
    def _not_our_own(cls, value: str) -> str:
        if value.startswith("SftGuard"):
            raise ValueError("this alert is raised by the guard itself; a rule on it would feed on its own word")
        return value


class SloYaml(_Model):
    """slo.yaml: what the service promises and what happens when it does not keep it."""

    service: Name = Field(description="The bot's name; label `service` of every metric.")
    preset: str | None = Field(
        None,
        description="Objectives of the preset are added unless one of the same name is given here.",
        json_schema_extra={"enum": [*PRESETS, None]},
    )
    objectives: tuple[Objective, ...] = Field((), max_length=100)
    outside_alerts: tuple[OutsideAlertForm, ...] = Field(
        (), max_length=50, description="Alerts of others that act here; one that no rule names never does."
    )
    canary: FileCanaryOrOff = Field(
        FileCanaryForm(), description="How canaries are compared with stable: {factor, margin, alpha}, or off."
    )

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            near = difflib.get_close_matches(value, PRESETS, n=1)
            raise ValueError(f"did you mean `{near[0]}`?" if near else f"write one of {', '.join(PRESETS)}")
        return value

    @field_validator("objectives")
    @classmethod
    def _unique(cls, value: tuple[Objective, ...]) -> tuple[Objective, ...]:
        names = [objective.name for objective in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two objectives are called `{twice[0]}`; give each its own name")
        return value

    @model_validator(mode="after")
    def _something_to_do(self) -> SloYaml:
        if not self.objectives and not self.outside_alerts and self.preset is None:
            raise ValueError("write at least one objective, or a preset")
        names = [*(o.name for o in self.objectives), *(rule.name for rule in self.outside_alerts)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules are called `{twice[0]}`; give each its own name")
        return self


@dataclass(frozen=True, slots=True)
class SloFile:
    """A checked slo.yaml. text_hash: of the file's text, so that two processes can compare what they run."""

    service: str
    preset: str | None
    objectives: tuple[Slo, ...]
    text_hash: str
    outside: tuple[OutsideRule, ...] = ()


def load_slo_file(path: Path | str) -> SloFile:
    """Read and check slo.yaml.

    Raises:
        ConfigError: the first error; `.more` holds the others.
    """
    document, text = load_yaml_file(path, INIT)
    return _checked(document, text, Path(path).name)


def parse_slo(text: str, place: str = "slo.yaml") -> SloFile:
    """Check the text of an slo.yaml; `place` names it in errors.

    Raises:
        ConfigError: the first error; `.more` holds the others.
    """
    return _checked(parse_yaml(text, place), text, place)


def preset_text(name: str) -> str:
    """Return the preset as a complete, commented slo.yaml of a service called `faq-bot`.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise ConfigError("preset", name, f"write one of {', '.join(PRESETS)}")
    return (Path(__file__).parent / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def slo_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of slo.yaml, for editors."""
    schema = SloYaml.model_json_schema(mode="validation", by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "slo.yaml"}


def _checked(document: dict[str, Any], text: str, place: str) -> SloFile:
    parsed = validate_model(SloYaml, document, place)
    own = {o.name: slo for o, slo in zip(parsed.objectives, _objectives(parsed, place, parsed.canary), strict=True)}
    objectives = tuple(own.values())
    if parsed.preset is not None:
        preset_place = f"{parsed.preset}.yaml"
        preset = validate_model(SloYaml, parse_yaml(preset_text(parsed.preset), preset_place), preset_place)
        given = _objectives(preset, preset_place, parsed.canary)
        objectives = (
            *(own.get(slo.name, slo) for slo in given),
            *(slo for slo in own.values() if slo.name not in {g.name for g in given}),
        )
    outside = tuple(
        OutsideRule(o.name, o.alert, o.labels, o.for_, o.max_age, OnBreach(o.action)) for o in parsed.outside_alerts
    )
    taken = {slo.name for slo in objectives}
    for place_number, rule in enumerate(outside):
        if rule.name in taken:  # the preset's names are known only here
            at = f"{place}: outside_alerts[{place_number}].name"
            raise ConfigError(at, rule.name, "an objective of the preset has this name; choose another")
    return SloFile(parsed.service, parsed.preset, share_alpha(objectives), text_hash(text), outside)


def _objectives(parsed: SloYaml, place: str, canary: object) -> tuple[Slo, ...]:
    """Convert all, collecting the errors of all. canary: the key of the file that is read, not of its preset."""
    slos: list[Slo] = []
    errors: list[ConfigError] = []
    for index, objective in enumerate(parsed.objectives):
        found = list(_problems(objective, f"{place}: objectives[{index}]"))
        errors += found
        if not found:
            slo = _slo(objective)
            slos.append(replace(slo, canary=canary_rule(objective.canary, canary, slo)))
    if errors:
        errors[0].more = tuple(errors[1:])
        raise errors[0]
    return tuple(slos)


def _slo(o: Objective) -> Slo:
    indicator = INDICATORS[o.indicator]
    action = OnBreach(o.action)
    fast: FastPath | None = None
    if isinstance(o.fast, FastForm):
        fast = FastPath(o.fast.over, Window(o.fast.window), o.fast.min_events)
    elif o.fast is None and indicator.kind == "ratio" and action is OnBreach.ROLLBACK:
        fast = FastPath()
    return Slo(
        name=o.name,
        indicator=o.indicator,
        window=Window(o.window),
        threshold=_threshold(o.threshold, indicator),
        for_s=o.for_,
        keep_firing_for_s=o.keep_firing_for,
        min_events=o.min_events,
        action=action,
        fast=fast,
        burn_rate=o.burn_rate,
        routes=o.routes,
    )


def _threshold(form: _Form, indicator: Indicator) -> Threshold:
    """The form with its numbers in inside units: milliseconds become seconds."""
    name = type(form).__name__.removesuffix("Form").lower()
    params: dict[str, float | str] = dict(form)
    if indicator.kind == "latency":
        for key in ("limit", "sla", "margin", "absolute"):
            if key in params:
                params[key] = round(float(params[key]) / indicator.scale, 9)
    return Threshold(name, params)


def _problems(o: Objective, place: str) -> Iterator[ConfigError]:
    """What the structure cannot say: which form fits which indicator, and numbers in the wrong unit."""
    indicator, form = INDICATORS[o.indicator], o.threshold
    at = f"{place}.threshold"
    if isinstance(form, TierForm) and o.indicator != AVAILABILITY:
        yield ConfigError(
            f"{at}.tier", form.tier, f"tiers ({', '.join(TIERS)}) are success rates; use {AVAILABILITY}, or absolute"
        )
    if isinstance(form, BudgetForm) and o.indicator != COST:
        yield ConfigError(f"{at}.budget_usd", form.budget_usd, f"a budget limits {COST}; use another form here")
    if isinstance(form, LimitForm | SlaForm) and indicator.worse == "down":
        key = "limit" if isinstance(form, LimitForm) else "sla"
        yield ConfigError(
            f"{at}.{key}",
            getattr(form, key),
            "this form is for what must stay below a limit; use tier, current or absolute",
        )
    if isinstance(form, SlaForm) and form.margin >= form.sla:
        yield ConfigError(
            f"{at}.margin", form.margin, f"must be smaller than sla ({form.sla:g}); it is subtracted from it"
        )
    factor_problem = _wrong_way(form, indicator)
    if factor_problem:
        yield ConfigError(f"{at}.factor", getattr(form, "factor", None), factor_problem)
    for key in ("limit", "sla", "margin", "absolute"):
        value = getattr(form, key, None)
        if value is None:
            continue
        if indicator.unit == "ratio" and value > 1:
            yield ConfigError(f"{at}.{key}", value, f"a share is between 0 and 1; write {value:g}% or {value / 100:g}")
        elif indicator.kind == "latency" and key != "margin" and value < 1:
            yield ConfigError(
                f"{at}.{key}", value, f"latency limits are in milliseconds; {value * 1000:g} for {value:g} s"
            )
    if isinstance(o.fast, FastForm) and indicator.kind == "mean":
        yield ConfigError(f"{place}.fast", o.indicator, "a mean has no bad events to count; remove `fast`")
    if o.burn_rate and indicator.kind != "ratio":
        yield ConfigError(
            f"{place}.burn_rate", o.indicator, "only ratio indicators have an error budget; remove `burn_rate`"
        )
    yield from canary_problems(o.canary, o.indicator, place)


def _wrong_way(form: _Form, indicator: Indicator) -> str:
    """Why a factor makes a limit that healthy traffic breaches from the start, and what to write; "" when it does not.

    Shares that should be high are bounded by what their baseline can tell (`slo.thresholds`); a mean is not.
    """
    if not isinstance(form, BaselineForm | CurrentForm | PreviousForm):
        return ""
    if indicator.kind == "mean" and indicator.worse == "down" and form.factor > 1:
        return "smaller is worse here: a factor over 1 is a breach from the start; write at most 1, such as 0.9"
    if isinstance(form, CurrentForm) and indicator.worse == "up" and "factor" not in form.model_fields_set:
        return "larger is worse here: the default of 0.9 is a breach from the start; write 1 or more, such as 1.2"
    return ""
