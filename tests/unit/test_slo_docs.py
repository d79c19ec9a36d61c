"""The reference of slo.yaml says what is true, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slo.baselines import collect
from slo.explain import explain, explain_one
from slo.metric_names import INDICATORS
from slo.spec import FORMS, PRESETS, Objective, SloYaml, parse_slo, preset_text
from slo.thresholds import TIERS, Limit, limit_for
from slo.types import OnBreach
from tests.slo_builders import AVAILABILITY, COST, P95, SIMILARITY, make_slo
from tests.unit.test_slo_baselines import WEEK_END_S, week

DOC = (Path(__file__).parents[2] / "docs" / "slo-spec.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS)
def test_every_example_of_the_reference_loads(text: str) -> None:
    assert parse_slo(text, "docs/slo-spec.md").objectives


def test_the_second_example_shows_all_eight_forms_with_the_numbers_of_the_table() -> None:
    found = parse_slo(BLOCKS[1]).objectives
    assert len({o.threshold.form for o in found}) == len(FORMS) == 8
    limits = {o.name: limit_for(o).value for o in found}
    assert [limits[n] for n in "cdefh"] == [pytest.approx(v) for v in (3.01, 1.8, 0.06, 0.999, 0.01)]


@pytest.mark.parametrize(
    "word",
    [*INDICATORS, *(f.alias or n for n, f in Objective.model_fields.items()), *SloYaml.model_fields, *FORMS, *TIERS,
     *PRESETS, *OnBreach],
)  # fmt: skip
def test_the_reference_mentions(word: str) -> None:
    assert word in DOC


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_explained_rule_by_rule(preset: str) -> None:
    file = parse_slo(preset_text(preset))
    page = explain(file)
    assert page.count("\n\n") == len(file.objectives)
    assert all(f"\n{slo.name}: " in page for slo in file.objectives)
    assert "UNKNOWN now: no baseline" in page
    assert "TODO" not in page


def test_a_burn_rule_says_what_a_ticket_does() -> None:
    acting = make_slo(AVAILABILITY, burn_rate=True)
    tracked = make_slo(AVAILABILITY, burn_rate=True, action=OnBreach.TRACK)
    assert "a ticket only stops the release from advancing" in explain_one(acting, limit_for(acting))
    assert "a ticket only" not in explain_one(tracked, limit_for(tracked))


def test_a_baseline_gives_the_unknown_rule_its_limit() -> None:
    baseline = collect(week(), now_wall_s=WEEK_END_S)
    file = parse_slo(preset_text("support-faq"))
    page = explain(file, baseline)
    assert f"baseline {baseline.sha256[:12]}: 6720 exchanges, 7.0 days" in page
    assert "UNKNOWN" not in page
    assert "limit 0.765 = baseline's overall value, n 6720: 0.85 x 0.9" in page
    expired = explain(file, baseline, now_wall_s=WEEK_END_S + 31 * 86_400.0)
    assert "UNKNOWN now: the baseline expired 1.0 days ago" in expired


def test_each_kind_of_rule_reads_as_a_sentence() -> None:
    def words(indicator: str, value: float, **changes: object) -> str:
        return explain_one(make_slo(indicator, **changes), Limit(value, "", "absolute"))

    assert "more than 5 % of the requests take longer than 500 ms, with 95 % confidence" in words(P95, 0.5)
    assert "the mean is below 0.8" in words(SIMILARITY, 0.8)
    assert "the mean is above 0.06 USD" in words(COST, 0.06)
    assert "the share is below 99 %" in words(AVAILABILITY, 0.99)
    assert "14.4 x over 1h and 5m (page)" in words(AVAILABILITY, 0.99, burn_rate=True)
    assert "only on the routes chat" in words(P95, 0.5, routes=("chat",))
    assert "found at every evaluation for 10m" in words(P95, 0.5, for_s=600.0)
    assert "keeps firing" not in words(P95, 0.5, keep_firing_for_s=0.0)
