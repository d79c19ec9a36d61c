"""Rows on their way into a knowledge base: read, checked, or set aside with the reason. Nothing is lost.

A row is a JSON object with `text` and optionally `doc_id`, `title`, `lang`, `acl` (a list of roles that may see it);
anything else in it is ignored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rag.text import text_hash
from rag.types import Document
from slo.codec import NOT_JSON
from slo.errors import DataError

TEXT_CHARS_MAX = 100_000
"""Longest text of one row, characters. A longer one is a file that was meant to be chunked."""

_ID_CHARS_MAX = 200
_ROLE = re.compile(r"\*|[\w.:@-]{1,64}")
_ALLOWED_CONTROLS = frozenset("\t\n\r")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was found.

    place: `file:line`. value: the decoded JSON, None when `error` says why not.
    parent, start: what it was cut from (a file), and where its text begins there.
    """

    place: str
    raw: str
    value: object = None
    error: str = ""
    parent: str = ""
    start: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that does not go in, with the reason in one line."""

    place: str
    reason: str
    raw: str


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """Rows of a JSON lines file, with their line numbers; blank lines are no rows.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                place = f"{path.name}:{number}"
                raw = line.rstrip(b"\r\n")
                try:
                    text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
                    yield RawRow(place, text, msgspec.json.decode(text))
                except UnicodeDecodeError as error:
                    yield RawRow(place, raw.decode("utf-8", "backslashreplace"), error=f"not UTF-8 ({error.reason})")
                except NOT_JSON as error:
                    yield RawRow(place, text, error=f"not JSON ({error})")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def as_raw_rows(rows: Iterable[RawRow | Mapping[str, object]]) -> Iterator[RawRow]:
    """Give rows made in a program the place `row N`."""
    for number, row in enumerate(rows, 1):
        if isinstance(row, RawRow):
            yield row
        else:
            try:
                shown = msgspec.json.encode(row).decode()
            except (msgspec.EncodeError, TypeError, ValueError, UnicodeEncodeError):
                shown = repr(row)
            yield RawRow(f"row {number}", shown, dict(row))


def check_row(row: RawRow, *, allow_bad: bool = False) -> Document | Rejected:
    """The document of a row, or why there is none.

    allow_bad: let empty texts and control characters in, for rehearsing what they do to answers.
    """
    reason = row.error
    if not reason and not isinstance(row.value, dict):
        reason = f'not a JSON object but {type(row.value).__name__}; write {{"text": ...}}'
    if reason or not isinstance(row.value, dict):
        return Rejected(row.place, reason, row.raw)
    fields = {name: row.value.get(name) for name in ("text", "doc_id", "title", "lang", "acl")}
    text = fields["text"]
    if "text" not in row.value:
        reason = "no `text`"
    elif other := next((name for name in row.value if name != "acl" and str(name).strip().casefold() == "acl"), None):
        reason = f"`{str(other)[:20]}` is not read, and everybody could see the text; write `acl`"
    elif not isinstance(text, str):
        reason = f"`text` is {type(text).__name__}, not a string"
    elif not allow_bad and not text.strip():
        reason = "`text` is empty"
    elif len(text) > TEXT_CHARS_MAX:
        reason = f"`text` has {len(text)} characters, at most {TEXT_CHARS_MAX}; cut it into rows or files"
    else:
        reason = _bad_character(text, allow_bad) or _bad_fields(fields)
    if reason or not isinstance(text, str):
        return Rejected(row.place, reason, row.raw)
    digest = text_hash(text)
    doc_id = fields["doc_id"]
    return Document(
        doc_id=f"doc-{digest[:12]}" if doc_id is None or doc_id == "" else str(doc_id),
        text=text,
        text_hash=digest,
        title=str(fields["title"] or ""),
        lang=str(fields["lang"] or ""),
        parent=row.parent,
        start=row.start,
        acl=_roles(fields["acl"]),
    )


def _roles(value: object) -> tuple[str, ...]:
    return tuple(sorted({str(role).casefold() for role in value})) if isinstance(value, list | tuple) else ()


def _bad_fields(fields: dict[str, object]) -> str:
    doc_id = fields["doc_id"]
    # bool is an int in Python and an accident in a doc_id.
    if doc_id is not None and (isinstance(doc_id, bool) or not isinstance(doc_id, str | int)):
        return f"`doc_id` is {type(doc_id).__name__}, not a string"
    if len(str(doc_id)) > _ID_CHARS_MAX:
        return f"`doc_id` has {len(str(doc_id))} characters, at most {_ID_CHARS_MAX}"
    if isinstance(doc_id, str) and any(unicodedata.category(ch) in ("Cc", "Cs", "Zl", "Zp") for ch in doc_id):
        return "`doc_id` holds a control character"
    for name in ("title", "lang"):
        value = fields[name]
        if value is not None and not isinstance(value, str):
            return f"`{name}` is {type(value).__name__}, not a string"
        if isinstance(value, str) and (reason := _bad_character(value, False)):
            return f"`{name}`: {reason}"
    acl = fields["acl"]
    if acl is not None and not (
        isinstance(acl, list | tuple) and acl and all(isinstance(role, str) and _ROLE.fullmatch(role) for role in acl)
    ):
        # Never let in with the roles left out: everybody could see it then.
        return "`acl` is not a list of roles (letters, digits and . _ - : @); leave it out for everybody"
    return ""


def _bad_character(text: str, allow_bad: bool) -> str:
    for position, ch in enumerate(text):
        category = unicodedata.category(ch) if not ch.isalnum() else ""
        if category == "Cs":  # cannot be stored as UTF-8 at all
            return f"lone surrogate U+{ord(ch):04X} at character {position}"
        if category == "Cc" and ch not in _ALLOWED_CONTROLS and not allow_bad:
            return f"control character U+{ord(ch):04X} at character {position}"
    return ""
