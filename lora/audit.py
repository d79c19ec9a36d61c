"""An audit log that shows when it was changed: every entry is bound to the one before it by a keyed hash.

Lines are only ever appended. A second small file holds how many entries there are and the hash of the last, so that
cutting lines off the end is seen too. Who can put *both* files back to an older copy is not seen from here: copy the
lines to another machine as they come (each is one line of JSON) and compare.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lora.keys import KeyRing
from slo.codec import NOT_JSON
from slo.errors import DataError, GuardError

LOG, HEAD = "audit.jsonl", "audit.head"
_PURPOSE, _HEAD_PURPOSE = "audit entry", "audit head"
_FIRST = "0" * 64


class Entry(msgspec.Struct, frozen=True):
    """One deed. wall_s: Unix seconds. previous: hash of the entry before it."""

    number: int
    wall_s: float
    user: str
    role: str
    deed: str
    object: str
    result: str  # begun | ok | refused | failed
    detail: str
    key_id: str
    previous: str
    hash: str = ""


class _Head(msgspec.Struct, frozen=True):
    count: int
    last: str
    key_id: str
    hash: str = ""


@dataclass(frozen=True, slots=True)
class AuditProblem:
    """What is wrong, and at which entry (counted from 1)."""

    number: int
    what: str


class AuditLog:
    """The log of one vault."""

    def __init__(self, directory: Path, ring: KeyRing) -> None:
        self._directory, self._ring = directory, ring

    def append(
        self, *, wall_s: float, user: str, role: str, deed: str, about: str, result: str, detail: str = ""
    ) -> Entry:
        """Add one entry and sync it to the disk.

        Raises:
            DataError: it could not be written, or the log was changed; what was to be recorded must not happen then.
        """
        try:
            with self._locked():
                head = self._head()
                entries = self.entries()
                if head is None and not entries:  # there is always a head from now on, so a missing one tells
                    head = self._write_head(_Head(0, _FIRST, self._ring.current_id))
                problem = self._problem(entries, head, known_keys=False)
                if problem:
                    raise DataError(
                        f"{self._directory / LOG}: entry {problem.number}: {problem.what}; keep it and ask why"
                    )
                last = entries[-1] if entries else None
                made = Entry(
                    (last.number if last else 0) + 1, wall_s, user, role, deed, about[:300], result, detail[:300],
                    self._ring.current_id, last.hash if last else _FIRST,
                )  # fmt: skip
                made = msgspec.structs.replace(made, hash=self._hash(made))
                with (self._directory / LOG).open("ab") as file:
                    file.truncate(self._whole_bytes())  # the torn line of a crash was never acknowledged
                    file.write(msgspec.json.encode(made) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._write_head(_Head(made.number, made.hash, self._ring.current_id))
                return made
        except OSError as error:
            raise DataError(
                f"{self._directory / LOG}: cannot be written ({error.strerror}); nothing was done, free space or check "
                "permissions"
            ) from error

    def entries(self) -> list[Entry]:
        """All entries, oldest first; a last line without its end is no entry. Raises DataError: a line is none."""
        try:
            data = (self._directory / LOG).read_bytes()
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                found.append(msgspec.json.decode(line, type=Entry))
            except NOT_JSON as error:
                raise DataError(f"{self._directory / LOG}:{number}: not an entry; the log was changed") from error
        return found

    def verify(self) -> AuditProblem | None:
        """The first thing that is not as it was written; None when all is."""
        try:
            return self._problem(self.entries(), self._head())
        except GuardError as error:
            return AuditProblem(0, str(error))

    def _whole_bytes(self) -> int:
        try:
            return (self._directory / LOG).read_bytes().rfind(b"\n") + 1
        except FileNotFoundError:
            return 0

    def _problem(self, entries: list[Entry], head: _Head | None, *, known_keys: bool = True) -> AuditProblem | None:
        """known_keys: an entry whose key has left the ring is a problem; to go on it is none, as the head holds all."""
        previous = _FIRST
        for number, entry in enumerate(entries, 1):
            if entry.number != number or entry.previous != previous:
                return AuditProblem(number, "an entry before it was taken out, added or moved")
            if entry.key_id not in self._ring.keys:
                if known_keys or head is None or number > head.count:
                    why = f"its key {entry.key_id[:32]} is not in the ring; look with a copy of a ring that has it"
                    return AuditProblem(number, why)
            elif self._hash(entry) != entry.hash:
                return AuditProblem(number, "was changed")
            previous = entry.hash
        if head is None:
            return AuditProblem(1, f"{HEAD} is missing") if entries else None
        if self._head_hash(head) != head.hash:
            return AuditProblem(head.count, f"{HEAD} was changed")
        # One entry more than the head is a crash between the two writes, and no loss.
        if not head.count <= len(entries) <= head.count + 1:
            return AuditProblem(len(entries) + 1, f"the log ends here, {head.count} entries were written")
        if head.count and entries[head.count - 1].hash != head.last:
            return AuditProblem(head.count, f"is not the one that {HEAD} names")
        return None

    def _hash(self, entry: Entry) -> str:
        return self._ring.mac(entry.key_id, _PURPOSE, msgspec.json.encode(msgspec.structs.replace(entry, hash="")))

    def _head_hash(self, head: _Head) -> str:
        return self._ring.mac(head.key_id, _HEAD_PURPOSE, msgspec.json.encode(msgspec.structs.replace(head, hash="")))

    def _head(self) -> _Head | None:
        try:
            return msgspec.json.decode((self._directory / HEAD).read_bytes(), type=_Head)
        except FileNotFoundError:
            return None
        except NOT_JSON as error:
            raise DataError(f"{self._directory / HEAD}: not readable; the audit log was changed") from error

    def _write_head(self, head: _Head) -> _Head:
        head = msgspec.structs.replace(head, hash=self._head_hash(head))
        temporary = self._directory / (HEAD + ".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(head))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._directory / HEAD)
        return head

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / ".audit.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
