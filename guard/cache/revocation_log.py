"""What was taken back, on disk, so that a restarted guard does not believe a shared store that forgot it.

One JSON object a line in the state directory. A file that cannot be read makes everything older than now void: misses
cost money, the answer of a document that changed costs trust.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from guard.cache.revocations import Revocations
from guard.cache.types import Revocation, RevocationKind
from slo.codec import NOT_JSON

NAME = "cache-revoked.jsonl"


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    kind: RevocationKind
    value: str
    wall_s: float


_decode = msgspec.json.Decoder(_Line).decode


def load(directory: Path, revocations: Revocations, wall_s: float) -> bool:
    """Read the list into `revocations`; False: it was damaged, and everything up to `wall_s` is void."""
    path = directory / NAME
    sound = True
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError:
        lines, sound = [], False
    for number, raw in enumerate(lines):
        try:
            line = _decode(raw)
        except NOT_JSON:
            # The last line may be half of one: a process that is killed while it writes.
            sound = sound and number == len(lines) - 1
            continue
        revocations.add(Revocation(line.kind, line.value, line.wall_s))
    if not sound:
        revocations.add(Revocation("all", "", wall_s))
    revocations.prune(wall_s)
    return sound


def append(directory: Path, lines: Iterable[Revocation]) -> None:
    """Add lines. Raises OSError."""
    with (directory / NAME).open("ab") as file:
        file.write(b"".join(map(_encode, lines)))


def rewrite(directory: Path, lines: Iterable[Revocation]) -> None:
    """Replace the file by these lines. Raises OSError."""
    new = directory / (NAME + ".new")
    new.write_bytes(b"".join(map(_encode, lines)))
    new.replace(directory / NAME)


def _encode(line: Revocation) -> bytes:
    return msgspec.json.encode(_Line(line.kind, line.value, line.wall_s)) + b"\n"
