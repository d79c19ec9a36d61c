"""docs/metrics.md is what the table of names says."""

from __future__ import annotations

import os

from exporters.docs import PAGE, page
from slo.metric_names import INDICATORS, METRICS


def test_the_metrics_page_is_up_to_date() -> None:
    if os.environ.get("UPDATE_GOLDEN"):  # noqa: TID251 - test switch
        PAGE.write_text(page(), encoding="utf-8")
    assert page() == PAGE.read_text(encoding="utf-8"), (
        "names changed: review, then run `python -m exporters.docs` and commit docs/metrics.md"
    )


def test_every_metric_has_one_heading_and_every_indicator_a_row() -> None:
    lines = page().splitlines()
    for name in METRICS:
        assert lines.count(f"### `{name}`") == 1
    for name in INDICATORS:
        assert any(line.startswith(f"| `{name}` |") for line in lines)
