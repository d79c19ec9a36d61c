"""Boards before any JSON: names of metrics hold, thresholds are those of the rules, both languages are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboards.build import boards
from dashboards.cost import budget_of
from dashboards.model import Board, Panel, series
from dashboards.objectives import steps_of, unit_of
from slo.metric_names import INDICATORS, METRICS
from slo.spec import PRESETS, load_slo_file

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = load_slo_file(ROOT / "slo" / "presets" / "support-faq.yaml").objectives
ALL = {name: boards(load_slo_file(ROOT / "slo" / "presets" / f"{name}.yaml").objectives) for name in PRESETS}
PANELS = [(board, panel) for made in ALL.values() for board in made for panel in board.panels()]


def test_a_metric_that_was_renamed_breaks_the_panel() -> None:
    with pytest.raises(KeyError, match="sft_gone"):
        series("sft_gone")
    for _, panel in PANELS:
        for query in panel.queries:
            names = re.findall(r"\bsft_[a-z0-9_]+", query.expr)
            assert names or "vector(" in query.expr
            for name in names:
                plain = name if name in METRICS else re.sub(r"_(bucket|sum|count)$", "", name)
                assert plain in METRICS or plain in INDICATORS, f"{panel.title.en}: {name}"
                assert (plain == name) is (METRICS[plain].kind != "histogram"), name


def test_every_label_that_is_asked_for_is_on_the_metric() -> None:
    for _, panel in PANELS:
        for query in panel.queries:
            for name, selector in re.findall(r"\b(sft_[a-z0-9_]+)\{([^}]*)\}", query.expr):
                plain = name if name in METRICS else re.sub(r"_(bucket|sum|count)$", "", name)
                labels = set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) - {"service"}
                assert labels <= set(METRICS[plain].labels), f"{panel.title.en}: {name}{{{selector}}}"


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda x: x.title.en if isinstance(x, Panel) else x.name)
def test_both_languages_say_something_and_an_empty_panel_is_explained(board: Board, panel: Panel) -> None:
    assert panel.title.en
    assert panel.title.zh
    assert bool(panel.empty.en) is bool(panel.empty.zh)
    assert bool(panel.about.en) is bool(panel.about.zh)
    assert panel.empty.en.isascii()
    assert panel.queries


def test_thresholds_are_those_of_the_rules_in_the_unit_of_the_metric() -> None:
    rules = {slo.name: slo for slo in SUPPORT}
    assert [(s.value, s.colour) for s in steps_of(rules["hallucination"])] == [(None, "green"), (0.05, "red")]
    assert [(s.value, s.colour) for s in steps_of(rules["p99"])] == [(None, "green"), (1800.0, "red")]
    assert [(s.value, s.colour) for s in steps_of(rules["availability"])] == [(None, "red"), (0.99, "green")]
    assert steps_of(rules["similarity"]) == ()  # known only with a baseline
    assert (unit_of(rules["p99"]), unit_of(rules["cost"]), unit_of(rules["hallucination"])) == (
        "ms", "currencyUSD", "percentunit",
    )  # fmt: skip
    assert budget_of(SUPPORT) == 3000.0


def test_each_objective_has_a_panel_and_the_burn_rate_its_four_windows() -> None:
    service = ALL["support-faq"][0]
    titles = [panel.title.en for panel in service.panels()]
    assert {slo.name for slo in SUPPORT} <= set(titles)
    burn = next(panel for panel in service.panels() if panel.title.en.startswith("Burn rate"))
    assert [query.legend for query in burn.queries] == [
        "1h (page at 14.4 x)", "6h (page at 6 x)", "1d (ticket at 3 x)", "3d (ticket at 1 x)",
    ]  # fmt: skip


def test_without_objectives_there_are_still_four_boards() -> None:
    assert [board.name for board in boards(())] == ["service", "release", "quality", "cost"]
