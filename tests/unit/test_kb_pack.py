"""Packs: the same bytes for the same content, and nothing else is ever taken for one."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag import pack as packing
from rag.pack import INDEX, MAPPINGS, META, ROWS, pack, verify
from rag.text import text_hash
from slo.errors import DataError, RefusedError

RULES = (Path(__file__).parents[1] / "data" / "rag_rules_zh.jsonl").read_bytes()


def four_files(texts: list[str] | None = None, *, index: bool = True) -> dict[str, Path | bytes]:
    rows = texts if texts is not None else [msgspec.json.decode(line)["text"] for line in RULES.splitlines()]
    ids = [f"doc-{n}" for n in range(len(rows))]
    lines = [
        msgspec.json.encode({"doc_id": i, "text": t, "text_hash": text_hash(t)}) + b"\n"
        for i, t in zip(ids, rows, strict=True)
    ]
    files: dict[str, Path | bytes] = {
        ROWS: b"".join(lines),
        MAPPINGS: msgspec.json.encode({"rowid_to_doc_id": ids}),
        META: msgspec.json.encode({"kb_version": 1, "doc_count": len(rows), "dim": 384, "model": "m"}),
    }
    return files | ({INDEX: random.Random(1).randbytes(3000)} if index else {})


def reason(path: Path, checksum: str = "") -> str:
    with pytest.raises(RefusedError) as caught:
        verify(path, checksum)
    assert "\n" not in str(caught.value)
    return f"{caught.value.reason}: {caught.value}"


def test_packing_twice_gives_one_checksum(tmp_path: Path) -> None:
    files = four_files()
    on_disk: dict[str, Path | bytes] = {}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)  # type: ignore[arg-type]
        os.utime(tmp_path / name, (1, 1))
        (tmp_path / name).chmod(0o600)
        on_disk[name] = tmp_path / name
    one = pack(files, tmp_path / "one.tar.gz")
    other = pack(dict(reversed(on_disk.items())), tmp_path / "other.tar.gz")
    assert one.checksum == other.checksum
    assert one.checksum.startswith("sha256:")
    assert one.members == (ROWS, INDEX, MAPPINGS, META)
    assert one.artifact_url == f"file://{tmp_path}/one.tar.gz"
    assert verify(one.path, one.checksum) == one
    assert pack(four_files(index=False), tmp_path / "words.tar.gz").members == (ROWS, MAPPINGS, META)


def test_every_tool_can_unpack_it(tmp_path: Path) -> None:
    files = four_files()
    made = pack(files, tmp_path / "kb.tar.gz")
    with tarfile.open(made.path) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == files  # type: ignore[union-attr]


def test_other_content_has_another_checksum(tmp_path: Path) -> None:
    one = pack(four_files(["a rule"]), tmp_path / "a.tar.gz")
    other = pack(four_files(["a rule."]), tmp_path / "b.tar.gz")
    assert one.checksum != other.checksum
    assert reason(other.path, one.checksum).startswith("checksum")


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=8))
@settings(max_examples=30)
def test_whatever_was_packed_verifies(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = pack(four_files(texts), Path(directory) / "kb.tar.gz")
        assert verify(made.path, made.checksum).meta["doc_count"] == len(texts)


def test_every_truncation_and_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    made = pack(four_files(["one rule"], index=False), tmp_path / "kb.tar.gz")
    whole = made.path.read_bytes()
    bad = tmp_path / "bad.tar.gz"
    for length in range(0, len(whole), 7):
        bad.write_bytes(whole[:length])
        assert reason(bad).startswith("damaged")
    taken = 0
    for bit in range(0, 8 * len(whole), 3):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        bad.write_bytes(flipped)
        try:
            verify(bad)
        except RefusedError:
            continue
        taken += 1  # a bit that changes nothing for gzip: the content is the same, and the checksum is not
        assert gzip.decompress(bytes(flipped)) == gzip.decompress(whole)
        assert reason(bad, made.checksum).startswith("checksum")
    assert taken < 30


def plain_tar(members: list[tuple[str, bytes]], change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            if name == members[0][0]:
                change(info)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(raw: bytes) -> bytes:
    body = gzip.compress(raw, mtime=0)
    return packing._GZIP + body[10:]


def ordered() -> list[tuple[str, bytes]]:
    files = four_files()
    return [(name, bytes(files[name])) for name in packing.MEMBERS]  # type: ignore[arg-type]


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def hard(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.LNKTYPE, "../../up", 0


def device(info: tarfile.TarInfo) -> None:
    info.type, info.size = tarfile.CHRTYPE, 0


def executable(info: tarfile.TarInfo) -> None:
    info.mode = 0o4755


def owned(info: tarfile.TarInfo) -> None:
    info.uname = "root"


@pytest.mark.parametrize("change", [link, hard, device, executable, owned], ids=lambda change: change.__name__)
def test_members_that_are_no_plain_files_are_refused(tmp_path: Path, change: Callable[..., None]) -> None:
    path = tmp_path / "odd.tar.gz"
    path.write_bytes(zipped(plain_tar(ordered(), change)))
    assert "belongs" in reason(path)


@pytest.mark.parametrize(
    ("name", "place"),
    [("../../etc/cron.d/x", 0), ("/abs/kb.jsonl", 0), ("kb.jsonl/../../x", 2), ("KB.jsonl", 0), ("evil.py", 4),
     ("kb.jsonl", 1), ("kb_meta.json", 4), ("./kb.jsonl", 0), ("..\\kb.jsonl", 0), ("kb.pkl", 2)],
)  # fmt: skip
def test_further_members_and_paths_that_lead_out_are_refused(tmp_path: Path, name: str, place: int) -> None:
    members = ordered()
    members.insert(place, (name, b"{}"))
    path = tmp_path / "odd.tar.gz"
    path.write_bytes(zipped(plain_tar(members)))
    assert "member" in reason(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["odd.tar.gz"]


def test_what_follows_the_end_is_refused(tmp_path: Path) -> None:
    made = pack(four_files(), tmp_path / "kb.tar.gz")
    whole = made.path.read_bytes()
    for tail in (b"\0", whole, gzip.compress(b"more")):
        made.path.write_bytes(whole + tail)
        assert "follows its end" in reason(made.path)
    small = four_files(["a rule"])
    members = [(name, bytes(small[name])) for name in packing.MEMBERS]  # type: ignore[arg-type]
    made.path.write_bytes(zipped(plain_tar(members)))  # another tool pads to 10 KiB
    assert "follows its end" in reason(made.path)


def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    head = packing._header(ROWS, packing.FILE_BYTES)
    path.write_bytes(zipped(head + bytes(40_000_000)))
    assert "a line of more than" in reason(path)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (ROWS, b'{"doc_id": "a", "text": "x", "text_hash": "00"}\n', "text_hash is not that of its text"),
        (ROWS, b"not json\n", "kb.jsonl:1"),
        (ROWS, b'{"doc_id": "a"', "not complete"),
        (MAPPINGS, b'{"rowid_to_doc_id": ["other"]}', "name other documents"),
        (MAPPINGS, b"[1]", "mappings.json"),
        (META, b'{"doc_count": 3}', "announces 3"),
        (META, b"{", "kb_meta.json"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    files = four_files(["a rule"]) | {name: content}
    with pytest.raises(RefusedError, match=why):
        pack(files, tmp_path / "kb.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_a_knowledge_base_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a pack holds"):
        pack({ROWS: b""}, tmp_path / "kb.tar.gz")
    with pytest.raises(DataError, match="cannot be read"):
        verify(tmp_path / "none.tar.gz")
    with pytest.raises(DataError, match="cannot be written"):
        pack(four_files(), tmp_path / "no" / "dir" / "kb.tar.gz")
    (tmp_path / "text").write_bytes(b"hello")
    assert "not a pack" in reason(tmp_path / "text")
