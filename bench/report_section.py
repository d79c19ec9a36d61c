"""Sections of a page that commands write: each bench replaces what stands between its own two markers, nothing else.

    <!-- begin: grounding (make bench-checks) -->
    ...
    <!-- end: grounding -->

Text outside the markers is written by hand and stays.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ACCURACY = ROOT / "docs" / "accuracy.md"


def replace_section(page: str, name: str, body: str) -> str:
    """The page with the body of section `name` exchanged; the markers stay as they are.

    Raises:
        ValueError: the page has no such section, or its markers stand twice or in the wrong order.
    """
    begin = list(re.finditer(rf"^<!-- begin: {re.escape(name)}(?: \([^)\n]*\))? -->$", page, re.MULTILINE))
    end = list(re.finditer(rf"^<!-- end: {re.escape(name)} -->$", page, re.MULTILINE))
    if len(begin) != 1 or len(end) != 1 or begin[0].end() > end[0].start():
        raise ValueError(
            f"section {name!r}: the page needs `<!-- begin: {name} (COMMAND) -->`"
            f" and `<!-- end: {name} -->` once, in this order"
        )
    inner = body.strip("\n")  # an indented first line is code: its spaces stay
    return f"{page[: begin[0].end()]}\n{inner}\n{page[end[0].start() :]}"


def write_section(name: str, body: str, path: Path = ACCURACY) -> None:
    """Write one section of a page (default docs/accuracy.md) in place."""
    path.write_text(replace_section(path.read_text(encoding="utf-8"), name, body), encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table.

    >>> print(table(["set", "AUROC"], [["a", ".9"]]))
    | set | AUROC |
    |---|---|
    | a | .9 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(r)} |" if r[0] != "---" else f"|{'|'.join(r)}|" for r in lines)
