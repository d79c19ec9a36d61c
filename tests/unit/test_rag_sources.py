"""Files of several kinds become rows; what cannot be read is set aside with the reason."""

from __future__ import annotations

import importlib.util
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from rag.kb import KnowledgeBase
from rag.rows import RawRow
from rag.sources import read_file, with_roles
from slo.errors import DataError


def rows(path: Path) -> list[Any]:
    return [row.value for row in read_file(path)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_markdown_gives_a_row_a_section_with_its_headings_as_title(tmp_path: Path) -> None:
    text = (
        "---\ntitle: x\n---\nBefore all.\n\n# Leave\nAsk early.\n\n## Sick leave ##\nA note.\n```\n# no heading\n```\n"
        "# Leave\nAgain.\n# Empty\n"
    )
    path = write(tmp_path / "hr.md", text)
    found = list(read_file(path))
    assert [row.value for row in found] == [
        {"doc_id": "hr", "text": "Before all.", "title": ""},
        {"doc_id": "hr#leave", "text": "Ask early.", "title": "Leave"},
        {"doc_id": "hr#sick-leave", "text": "A note.\n```\n# no heading\n```", "title": "Leave > Sick leave"},
        {"doc_id": "hr#leave-2", "text": "Again.", "title": "Leave"},
    ]
    assert [text[row.start : row.start + len(row.raw)] for row in found] == [row.raw for row in found]
    assert [row.place for row in found] == ["hr.md:4", "hr.md:7", "hr.md:10", "hr.md:15"]
    assert {row.parent for row in found} == {"hr"}


def test_chinese_headings_make_ids_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "f.md", "# \u8acb\u5047\u898f\u5b9a\n\u63d0\u524d\u4e09\u5929\u3002\n")
    assert rows(path)[0]["doc_id"] == "f#\u8acb\u5047\u898f\u5b9a"


def test_html_gives_what_a_browser_shows(tmp_path: Path) -> None:
    page = (
        "<!doctype html><html><head><title>The\n rules</title><style>p{}</style></head><body><nav>Home</nav>"
        "<h1>Leave</h1><p>Ask &amp; wait <b>3</b> days.<br>Then go.<script>var x = '<p>no</p>'</script></p>"
        "<table><tr><td>a</td><td>b</td></tr></table></body></html>"
    )
    found = rows(write(tmp_path / "rules.html", page))
    assert found == [{"doc_id": "rules", "text": "Leave\nAsk & wait 3 days.\nThen go.\na\nb", "title": "The rules"}]
    assert "not hidden" in rows(write(tmp_path / "broken.html", "<head><nav><body><p>not hidden"))[0]["text"]


def test_csv_rows_keep_their_columns_and_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", '\ufefftext,doc_id,acl,other\n"one, two",a,hr staff,x\nplain,,,\n')
    found = list(read_file(path))
    assert [row.value for row in found] == [
        {"text": "one, two", "doc_id": "a", "acl": ["hr", "staff"]},
        {"text": "plain"},
    ]
    assert [row.place for row in found] == ["t.csv:2", "t.csv:3"]
    for text, message in (
        ("a,b\n1,2\n", "no column `text` among 'a', 'b'"), ("", "no column `text`"),
        ("text,acl,ACL\na,hr,\n", "2 columns `acl`; keep one"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            rows(write(tmp_path / "wrong.csv", text))
    (tmp_path / "latin.csv").write_bytes(b"text\n\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        rows(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    "head", ["text, doc_id, acl", "Text,Doc_ID,ACL", " text ,doc_id\t, Acl "], ids=["gap", "case", "both"]
)
def test_roles_in_a_column_that_is_written_otherwise_are_not_lost(tmp_path: Path, head: str) -> None:
    path = write(tmp_path / "pay.csv", f"{head}\nThe pay of the board, pay-1 , hr\n")
    assert rows(path) == [{"text": "The pay of the board", "doc_id": "pay-1", "acl": ["hr"]}]


@pytest.mark.parametrize("name", ["ACL", "Acl", " acl"])
def test_a_row_whose_roles_have_another_name_is_set_aside(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "pay.jsonl", json.dumps({"text": "The pay of the board", name: ["hr"]}) + "\n")
    kb = KnowledgeBase.init(tmp_path / "kb")
    report = kb.add(read_file(path))
    assert (report.added, report.quarantined) == (0, 1)
    assert "everybody could see the text; write `acl`" in (tmp_path / "kb" / "quarantine.jsonl").read_text("utf-8")


def pdf(*pages: str) -> bytes:
    """A small PDF with these texts, one a page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        content = zlib.compress(f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode())
        objects.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(content), content))
        kids.append(len(objects) + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
    named = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), named)
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(data))
    return data + head + table + end


@pytest.mark.skipif(importlib.util.find_spec("pypdf") is None, reason="needs pypdf: pip install 'sft-guard[kb]'")
def test_pdf_gives_a_row_a_page_and_says_which_page_holds_no_text(tmp_path: Path) -> None:
    (tmp_path / "guide.pdf").write_bytes(pdf("Annual leave is 14 days", "", "Ask early"))
    kb = KnowledgeBase.init(tmp_path / "kb")
    report = kb.add(read_file(tmp_path / "guide.pdf"))
    assert (report.added, report.quarantined) == (2, 1)
    assert [(d.doc_id, d.text, d.parent) for d in kb.documents] == [
        ("guide#page-1", "Annual leave is 14 days", "guide"),
        ("guide#page-3", "Ask early", "guide"),
    ]
    kept = json.loads((tmp_path / "kb" / "quarantine.jsonl").read_text())
    assert (kept["place"], "no text (a scan?)" in kept["reason"]) == ("guide.pdf:page 2", True)
    assert kb.remove(["guide"]).removed == 2


@pytest.mark.skipif(importlib.util.find_spec("pypdf") is None, reason="needs pypdf: pip install 'sft-guard[kb]'")
@pytest.mark.parametrize("damage", [b"", b"%PDF-1.4\nnothing", pdf("a")[:200], b"plain text"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_pdf_is_set_aside_and_not_the_end_of_the_add(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.pdf").write_bytes(damage)
    found = list(read_file(tmp_path / "x.pdf"))
    assert all(row.error for row in found)
    assert found


def test_other_endings_are_plain_text_and_bytes_that_are_not_utf_8_are_set_aside(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "a.rules", "One.\nTwo.")) == [{"doc_id": "a", "text": "One.\nTwo."}]
    for ending in ("txt", "md", "html"):
        (tmp_path / f"bad.{ending}").write_bytes(b"\xff\xfe")
        assert "not UTF-8" in next(iter(read_file(tmp_path / f"bad.{ending}"))).error
    for ending in ("txt", "md", "html", "csv", "pdf", "jsonl"):
        with pytest.raises(DataError, match="cannot be read"):
            rows(tmp_path / f"nowhere.{ending}")


def test_roles_of_the_command_are_for_rows_that_name_none(tmp_path: Path) -> None:
    given = iter([RawRow("a:1", "", {"text": "x"}), RawRow("a:2", "", {"text": "y", "acl": ["it"]})])
    assert [row.value for row in with_roles(given, ("hr",))] == [
        {"text": "x", "acl": ["hr"]},
        {"text": "y", "acl": ["it"]},
    ]


def test_a_heading_line_of_a_million_marks_is_read_at_once(tmp_path: Path) -> None:
    # Matched from each mark in turn this would take hours.
    marks = "# a" + " #" * 500_000
    found = list(read_file(write(tmp_path / "x.md", f"{marks} b\nText.\n{marks}\nMore.\n")))
    assert [row.value["text"] for row in found] == ["Text.", "More."]
    assert found[1].value["title"] == "a"


@pytest.mark.skipif(importlib.util.find_spec("pypdf") is None, reason="needs pypdf: pip install 'sft-guard[kb]'")
def test_a_pdf_that_its_reader_cannot_decipher_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdf
    from pypdf.errors import DependencyError

    def needs_a_cipher(*_: object, **__: object) -> str:
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")

    (tmp_path / "x.pdf").write_bytes(pdf("Annual leave is 14 days"))
    monkeypatch.setattr(pypdf.PageObject, "extract_text", needs_a_cipher)
    assert ["AES" in row.error for row in read_file(tmp_path / "x.pdf")] == [True]
