"""Generated sections of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report_section import ACCURACY, replace_section, write_section

PAGE = "# A\n\n<!-- begin: x (make x) -->\nold\n<!-- end: x -->\n\nby hand\n<!-- begin: y -->\n<!-- end: y -->\n"


def test_only_the_named_section_changes(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    write_section("x", "\nnew\n", path)
    write_section("y", "more", path)
    assert path.read_text(encoding="utf-8") == PAGE.replace("old", "new").replace("y -->\n<", "y -->\nmore\n<", 1)


@pytest.mark.parametrize("page", ["", PAGE + PAGE, PAGE.replace("begin", "END").replace("end", "begin")], ids=[
    "missing", "twice", "order"])  # fmt: skip
def test_a_page_without_the_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="section 'x'"):
        replace_section(page, "x", "new")


def test_the_accuracy_page_has_every_section_that_a_command_writes() -> None:
    page = ACCURACY.read_text(encoding="utf-8")
    for name in ("grounding", "near misses", "drift", "safety",
                 "cache judgement", "retrieval", "routing"):  # fmt: skip
        assert replace_section(page, name, "x") != page
