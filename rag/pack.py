"""One file of a knowledge base: a tar.gz of the practice's four files, the same bytes for the same content.

    kb.jsonl  kb.index (when there are vectors)  mappings.json  kb_meta.json

Names, order, owner, mode and times are fixed, so packing twice gives one checksum. `verify` reads a pack as a stream,
unpacks nothing, and takes nothing but what `pack` writes: every header is compared with the one that belongs there, so
links, paths, further members and other kinds of archives have no way in. A checksum catches every flipped bit; without
one, the CRC of gzip stands for the content.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec

from rag.text import text_hash
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

ROWS, INDEX, MAPPINGS, META = "kb.jsonl", "kb.index", "mappings.json", "kb_meta.json"
MEMBERS = (ROWS, INDEX, MAPPINGS, META)
FILE_BYTES = 8 * 2**30 - 1  # what a tar header can say
LINE_BYTES = 4 * 2**20
MAPPING_BYTES = 512 * 2**20
META_BYTES = 2**20
_BLOCK, _PIECE = 512, 256 * 1024
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, no system
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that was written or verified.

    checksum: `sha256:` of the file; data_hash: of kb.jsonl in it. meta: content of kb_meta.json.
    """

    path: Path
    checksum: str
    byte_count: int
    members: tuple[str, ...]
    meta: Mapping[str, object]
    data_hash: str

    @property
    def artifact_url(self) -> str:
        """As the registry wants it."""
        return self.path.resolve().as_uri()


def pack(files: Mapping[str, Path | bytes], path: Path) -> Pack:
    """Write `files` (name to content) as one pack; a file that is there is replaced when the new one is complete.

    Raises:
        DataError: a member is missing, not one of the four, or too large; the disk refuses.
    """
    if not {ROWS, MAPPINGS, META} <= files.keys() <= set(MEMBERS):
        raise DataError(f"{path}: a pack holds {', '.join(MEMBERS)}; got {', '.join(sorted(files))}")
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as out:
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            crc, size = 0, 0
            out.write(_GZIP)
            for piece in _tar(files):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                out.write(packer.compress(piece))
            out.write(packer.flush() + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
            out.flush()
            os.fsync(out.fileno())
        made = verify(temporary)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check path and free space") from error
    finally:
        temporary.unlink(missing_ok=True)
    return replace(made, path=path)


def verify(path: Path, checksum: str = "") -> Pack:
    """Read a pack from end to end.

    checksum: `sha256:...` that it must have, from the registry for instance.

    Raises:
        RefusedError: `checksum`, it is another file; `damaged`, it is not what `pack` writes, with the reason.
        DataError: it cannot be read.
    """
    digest = sha256()
    try:
        with path.open("rb") as file:
            byte_count = os.fstat(file.fileno()).st_size
            while piece := file.read(_PIECE):
                digest.update(piece)
            found = f"sha256:{digest.hexdigest()}"
            if checksum and checksum != found:
                raise RefusedError("checksum", f"{path}: checksum is {found[:19]}..., not {checksum[:19]}...; refused")
            file.seek(0)
            try:
                members, meta, data_hash = _checked(_Tape(_unzipped(iter(lambda: file.read(_PIECE), b""))))
            except _Damaged as error:
                raise RefusedError("damaged", f"{path}: {error}; refused, pack it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return Pack(path, found, byte_count, members, meta, data_hash)


def documents(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """doc_id, text and filled fields of every row of a pack that was verified before."""
    with path.open("rb") as file:
        tape = _Tape(_unzipped(iter(lambda: file.read(_PIECE), b"")))
        _, size = _next_member(tape, (ROWS,))
        for number, line in enumerate(_lines(tape.stream(size)), 1):
            row = _row(line, number)
            yield row.doc_id, row.text, [name for name in ("text", "title", "lang", "acl") if getattr(row, name)]


class _Damaged(Exception):
    """Why a pack is refused."""


def _tar(files: Mapping[str, Path | bytes]) -> Iterator[bytes]:
    for name in MEMBERS:
        content = files.get(name)
        if content is None:
            continue
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size > FILE_BYTES:
            raise DataError(f"{name}: {size} bytes, a pack takes {FILE_BYTES} in one file; split the knowledge base")
        yield _header(name, size)
        if isinstance(content, bytes):
            yield content
        else:
            with content.open("rb") as file:
                sent = 0
                while piece := file.read(min(_PIECE, size - sent)):
                    sent += len(piece)
                    yield piece
            if sent != size:
                raise DataError(f"{content}: changed while it was packed; pack again")
        yield bytes(-size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _unzipped(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Content of exactly one gzip member, in pieces: a bomb stays as small as what is read of it."""
    head = next(raw, b"")
    if head[: len(_GZIP)] != _GZIP:
        raise _Damaged("not a pack of this program")
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    waiting = head
    try:
        while not unpacker.eof:
            if not waiting:
                raise _Damaged("it ends too early")
            yield unpacker.decompress(waiting, _PIECE)
            waiting = unpacker.unconsumed_tail or (b"" if unpacker.eof else next(raw, b""))
    except zlib.error as error:
        raise _Damaged(f"compressed data is damaged ({error})") from error
    if unpacker.unused_data or next(raw, b""):
        raise _Damaged("something follows its end")


class _Tape:
    """Reads a stream of pieces to the byte."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, b""

    def take(self, count: int) -> bytes:
        """Exactly so many bytes, a small number."""
        while len(self._held) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise _Damaged("it ends too early")
            self._held += piece
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def stream(self, count: int) -> Iterator[bytes]:
        """So many bytes in pieces."""
        while count:
            if not self._held:
                self._held = self.take(1) + self._held
            piece, self._held = self._held[:count], self._held[count:]
            count -= len(piece)
            yield piece

    def end(self) -> None:
        """Nothing may be left."""
        if self._held or any(self._pieces):
            raise _Damaged("something follows its end")


def _checked(tape: _Tape) -> tuple[tuple[str, ...], Mapping[str, object], str]:
    members: list[str] = []
    rows = ids = 0
    row_digest = id_digest = data_hash = ""
    meta: dict[str, object] = {}
    awaited = list(MEMBERS)
    while awaited:
        name, size = _next_member(tape, (INDEX, MAPPINGS) if awaited[0] == INDEX else (awaited[0],))
        del awaited[: awaited.index(name) + 1]
        members.append(name)
        content = tape.stream(size)
        if name == ROWS:
            rows, row_digest, data_hash = _read_rows(content)
        elif name == INDEX:
            for _ in content:
                pass  # FAISS would load most damaged ones: the checksum is what protects it
        elif name == MAPPINGS:
            ids, id_digest = _read_mappings(_whole(content, size, MAPPING_BYTES, name))
        else:
            meta = _read_meta(_whole(content, size, META_BYTES, name))
        if any(tape.take(-size % _BLOCK)):
            raise _Damaged(f"{name}: something stands behind its end")
    if any(tape.take(2 * _BLOCK)):
        raise _Damaged("a further member")
    tape.end()
    if (rows, row_digest) != (ids, id_digest):
        raise _Damaged(f"{ROWS} and {MAPPINGS} name other documents ({rows} and {ids})")
    if meta.get("doc_count") != rows:
        raise _Damaged(f"{META} announces {meta.get('doc_count')} documents, {ROWS} has {rows}")
    return tuple(members), meta, data_hash


def _next_member(tape: _Tape, names: Sequence[str]) -> tuple[str, int]:
    """Name and size of the next member, whose header must be byte for byte the one that belongs there."""
    block = tape.take(_BLOCK)
    digits = block[124:135]
    size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1
    for name in names:
        if 0 <= size <= FILE_BYTES and block == _header(name, size):
            return name, size
    got = block[:100].split(b"\0")[0].decode("ascii", "backslashreplace")
    kind = "a link or another kind of member" if got in names and block[156:157] != b"0" else "an odd header"
    what = kind if got in names else f"member {got[:80]!r}" if got else "the end"
    raise _Damaged(f"{what} where {' or '.join(names)} belongs")


def _read_rows(content: Iterator[bytes]) -> tuple[int, str, str]:
    """Number of rows, a digest of their ids, and `sha256:` of all."""
    ids, whole, count = sha256(), sha256(), 0
    for line in _lines(content):
        count += 1
        row = _row(line, count)
        ids.update(row.doc_id.encode("utf-8", "surrogatepass") + b"\x1e")
        whole.update(line + b"\n")
    return count, ids.hexdigest(), f"sha256:{whole.hexdigest()}"


def _lines(content: Iterator[bytes]) -> Iterator[bytes]:
    rest, count = b"", 0
    for piece in content:
        *lines, rest = (rest + piece).split(b"\n")
        count += len(lines)
        if len(rest) > LINE_BYTES:
            raise _Damaged(f"{ROWS}:{count + 1}: a line of more than {LINE_BYTES} bytes")
        yield from lines
    if rest:
        raise _Damaged(f"{ROWS}:{count + 1}: the last line is not complete")


class _Row(msgspec.Struct):
    doc_id: str
    text: str
    text_hash: str
    title: str = ""
    lang: str = ""
    acl: tuple[str, ...] = ()


def _row(line: bytes, number: int) -> _Row:
    try:
        row = msgspec.json.decode(line, type=_Row)
    except NOT_JSON as error:
        raise _Damaged(f"{ROWS}:{number}: {error}") from error
    if text_hash(row.text) != row.text_hash:
        raise _Damaged(f"{ROWS}:{number}: text_hash is not that of its text")
    return row


def _read_mappings(data: bytes) -> tuple[int, str]:
    try:
        ids = msgspec.json.decode(data, type=dict[str, list[str]])["rowid_to_doc_id"]
    except (*NOT_JSON, KeyError) as error:
        raise _Damaged(f"{MAPPINGS}: {error}") from error
    digest = sha256()
    for doc_id in ids:
        digest.update(doc_id.encode("utf-8", "surrogatepass") + b"\x1e")
    return len(ids), digest.hexdigest()


def _read_meta(data: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except NOT_JSON as error:
        raise _Damaged(f"{META}: {error}") from error


def _whole(content: Iterator[bytes], size: int, limit: int, name: str) -> bytes:
    if size > limit:
        raise _Damaged(f"{name}: {size} bytes, at most {limit}")
    return b"".join(content)
