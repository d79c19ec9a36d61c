"""Files of several kinds as rows: text, Markdown, HTML, PDF, CSV, JSON lines. By their ending.

A file that is cut into sections gives one row a section; `parent` is the name of the file, so that `kb add --update`
and `kb remove` know what belongs together. What cannot be read is a rejected row with the reason, not an end.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec

from rag.rows import RawRow, read_jsonl
from slo.errors import DataError

FILE_BYTES_MAX = 64 * 1024 * 1024
"""Largest text, Markdown, HTML or PDF file; a CSV or JSON lines file is read row by row."""
PDF_INSTALL = "pip install 'sft-guard[kb]'"

_HEADING = re.compile(r"(?P<marks>#{1,6})[ \t]+")
_FENCE = re.compile(r"[ ]{0,3}(```|~~~)")
_SLUG = re.compile(r"[^\w]+")
_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg", "nav", "head"})
_BLOCKS = frozenset(
    """
    address article aside blockquote br dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr li main
    ol p pre section table td th tr ul
    """.split()  # noqa: SIM905 - a list of 35 strings reads worse
)
_COLUMNS = ("text", "doc_id", "title", "lang", "acl")


def read_file(path: Path) -> Iterator[RawRow]:
    """Rows of a file, by its ending: .jsonl, .csv, .md, .html, .pdf; anything else is plain text.

    Raises:
        DataError: it cannot be read, is too large, or needs a package that is not installed.
    """
    return _READERS.get(path.suffix.lower(), read_text)(path)


def read_text(path: Path) -> Iterator[RawRow]:
    """A plain text file as one row; its name without the ending is the doc_id."""
    text = _decoded(path)
    if isinstance(text, RawRow):
        yield text
    else:
        yield RawRow(f"{path.name}:1", text, {"doc_id": path.stem, "text": text})


def read_markdown(path: Path) -> Iterator[RawRow]:
    """One row a section, with its headings as the title; a front matter is left out, code stays with its section."""
    text = _decoded(path)
    if isinstance(text, RawRow):
        yield text
        return
    used: dict[str, int] = {}
    for start, line, titles, body in _sections(text):
        slug = _SLUG.sub("-", titles[-1].casefold()).strip("-")[:80] if titles else ""
        name = f"{path.stem}#{slug}" if slug else path.stem
        used[name] = used.get(name, 0) + 1
        if used[name] > 1:
            name = f"{name}-{used[name]}"
        row = {"doc_id": name, "text": body, "title": " > ".join(titles)}
        yield RawRow(f"{path.name}:{line}", body, row, parent=path.stem, start=start)


def read_html(path: Path) -> Iterator[RawRow]:
    """The visible text as one row, a line for each block; <title> is the title."""
    text = _decoded(path)
    if isinstance(text, RawRow):
        yield text
        return
    page = _Page()
    page.feed(text)
    page.close()
    row = {"doc_id": path.stem, "text": page.text(), "title": " ".join("".join(page.title).split())}
    yield RawRow(f"{path.name}:1", text[:2000], row)


def read_pdf(path: Path) -> Iterator[RawRow]:
    """One row a page. Scanned pages hold no text and are set aside with that reason."""
    if importlib.util.find_spec("pypdf") is None:
        raise DataError(f"{path}: reading PDF needs pypdf: {PDF_INSTALL}")
    import pypdf

    _check_size(path)
    number = 0
    try:
        reader = pypdf.PdfReader(path)
        title = str(reader.metadata.title or "") if reader.metadata else ""
        for number, page in enumerate(reader.pages, 1):
            place, text = f"{path.name}:page {number}", page.extract_text()
            if not text.strip():
                yield RawRow(place, "", error="the page holds no text (a scan?); recognise its text first")
                continue
            row = {"doc_id": f"{path.stem}#page-{number}", "text": text, "title": title}
            yield RawRow(place, text, row, parent=path.stem)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except Exception as error:
        # A damaged or encrypted PDF makes its reader fail in too many ways to name; pages before that are fine.
        yield RawRow(f"{path.name}:page {number + 1}", "", error=f"not a readable PDF ({' '.join(str(error).split())})")


def read_csv(path: Path) -> Iterator[RawRow]:
    """Rows of a CSV file with a header: `text`, and doc_id, title, lang, acl (roles separated by spaces) if present.

    Raises:
        DataError: no header with a column `text`, not UTF-8, or it cannot be read.
    """
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            # "text, acl" and "Text,ACL" name them as well: roles that were left out would show the text to everybody.
            names = [name.strip().casefold() for name in reader.fieldnames or ()]
            if "text" not in names:
                named = ", ".join(map(repr, reader.fieldnames or ()))
                raise DataError(f"{path}:1: no column `text` among {named or 'nothing'}; name the columns in line 1")
            if twice := next((name for name in _COLUMNS if names.count(name) > 1), None):
                raise DataError(f"{path}:1: {names.count(twice)} columns `{twice}`; keep one")
            reader.fieldnames = names
            for cells in reader:
                row: dict[str, object] = {name: cells[name] for name in _COLUMNS if cells.get(name)}
                row |= {name: str(row[name]).strip() for name in ("doc_id", "title", "lang") if name in row}
                row.setdefault("text", "")
                if "acl" in row:
                    row["acl"] = str(row["acl"]).split()
                yield RawRow(f"{path.name}:{reader.line_num}", msgspec.json.encode(row).decode(), row)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); convert it first") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file ({error}); check its quotes") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def with_roles(rows: Iterator[RawRow], roles: tuple[str, ...]) -> Iterator[RawRow]:
    """Rows that name no roles of their own get these."""
    for row in rows:
        if isinstance(row.value, dict) and row.value.get("acl") is None:
            row = RawRow(row.place, row.raw, {**row.value, "acl": list(roles)}, row.error, row.parent, row.start)
        yield row


def _decoded(path: Path) -> str | RawRow:
    _check_size(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        shown = content[:2000].decode("utf-8", "backslashreplace")
        return RawRow(f"{path.name}:1", shown, error=f"not UTF-8 ({error.reason})")


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if size > FILE_BYTES_MAX:
        raise DataError(f"{path}: {size} bytes, at most {FILE_BYTES_MAX}; cut it into several files")


def _sections(text: str) -> Iterator[tuple[int, int, list[str], str]]:
    """(first character, line number, headings from the top, body) of every section that holds text."""
    titles: dict[int, str] = {}
    begin, begin_line, position, fenced = 0, 1, 0, False
    front = text.startswith("---\n")
    lines = text.splitlines(keepends=True)

    def section(end: int) -> Iterator[tuple[int, int, list[str], str]]:
        body = text[begin:end]
        if stripped := body.strip():
            yield begin + body.index(stripped[0]), begin_line, [titles[level] for level in sorted(titles)], stripped

    for number, line in enumerate(lines, 1):
        position += len(line)
        if front:
            if number > 1 and line.rstrip() in ("---", "..."):
                front, begin, begin_line = False, position, number + 1
            continue
        fenced ^= _FENCE.match(line) is not None
        match = None if fenced else _HEADING.match(line)
        # Stripped and not matched: a line of a million marks would be tried from each of them.
        title = line[match.end() :].rstrip("# \t\r\n") if match else ""
        if match and title:
            yield from section(position - len(line))
            level = len(match["marks"])
            titles = {known: above for known, above in titles.items() if known < level} | {level: title}
            begin, begin_line = position, number + 1
    yield from section(len(text))


class _Page(HTMLParser):
    """Collects what a browser would show."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self._parts: list[str] = []
        self._hidden: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":  # ends whatever a broken head has left open
            self._hidden.clear()
        elif tag in _HIDDEN:
            self._hidden.append(tag)
        self._in_title = tag == "title"
        if tag in _BLOCKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        self._in_title = False
        if tag in _BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._hidden:
            self._parts.append(data)

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line)


_READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".csv": read_csv, ".md": read_markdown, ".markdown": read_markdown,
    ".html": read_html, ".htm": read_html, ".pdf": read_pdf,
}  # fmt: skip
