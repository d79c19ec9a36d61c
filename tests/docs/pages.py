"""The pages a user reads, and what stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `line` is that of its first fence."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def pages() -> dict[str, str]:
    """Every page of the project by its name below the root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    kept = [path for path in sorted(found) if "generated" not in path.parts]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in kept}


def blocks(page: str) -> list[Block]:
    """The fenced blocks of one page, in order, without their indentation."""
    text = pages()[page]
    found = []
    for match in _FENCE.finditer(text):
        indent = match[1]
        inner = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[2].strip(), inner))
    return found


def all_blocks(language: str | None = None) -> list[Block]:
    """The blocks of all pages, or those of one language."""
    return [b for page in pages() for b in blocks(page) if language is None or b.language == language]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", pages()[page])


def spans(page: str) -> list[str]:
    """What stands in single backticks outside of blocks."""
    return _SPAN.findall(prose(page))


def links(page: str) -> list[str]:
    """Targets of the links outside of blocks."""
    return _LINK.findall(prose(page))


def commands(text: str) -> list[str]:
    """Lines of a shell block with continued ones joined, comments and blank lines left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]
