"""One sealed file: AES-256-GCM in chunks, a data key of its own, wrapped by the master key. Pure but for chance.

    magic 8 | nonce 12 | nonce of the wrap 12 | wrapped data key 32 + 16 | chunk ... chunk     (a chunk: 1 MiB + tag 16)

Nothing is released before every tag was checked, so a file that was cut at a chunk border releases nothing either: the
last chunk says that it is the last. What a chunk belongs to (artefact, version, key, file, number, last or not) is
authenticated with it; chunks and files cannot be swapped, not even between versions sealed with one key.

Source of the form: STREAM, Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015; nonce by exclusive or with the chunk
number as TLS 1.3 does it (RFC 8446, 5.3).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from slo.errors import RefusedError

MAGIC = b"SFTSEAL1"
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
CHUNK_BYTES = 1 << 20
_WRAPPED_BYTES = KEY_BYTES + TAG_BYTES
HEAD_BYTES = len(MAGIC) + 2 * NONCE_BYTES + _WRAPPED_BYTES

Chance = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Label:
    """What a sealed file belongs to."""

    name: str
    version: str
    key_id: str
    file: str

    def bound(self, purpose: bytes, number: int = 0, last: bool = False) -> bytes:
        """Associated data: every part with its length, so that no two labels give the same bytes."""
        parts = (purpose, *(part.encode() for part in (self.name, self.version, self.key_id, self.file)))
        packed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return packed + number.to_bytes(8, "big") + bytes([last])


def seal_bytes(plain: bytes, master: bytes, label: Label, *, chunk_bytes: int = CHUNK_BYTES,
               chance: Chance = os.urandom) -> bytes:  # fmt: skip
    """Seal one file. master: 32 bytes. chance: source of data key and nonces; fixed in tests only."""
    data_key, nonce, wrap_nonce = chance(KEY_BYTES), chance(NONCE_BYTES), chance(NONCE_BYTES)
    wrapped = AESGCM(master).encrypt(wrap_nonce, data_key, label.bound(b"wrap"))
    cipher = AESGCM(data_key)
    parts = [MAGIC, nonce, wrap_nonce, wrapped]
    count = max(1, -(-len(plain) // chunk_bytes))
    for number in range(count):
        chunk = plain[number * chunk_bytes : (number + 1) * chunk_bytes]
        bound = label.bound(b"chunk", number, number == count - 1)
        parts.append(cipher.encrypt(_nonce(nonce, number), chunk, bound))
    return b"".join(parts)


def open_bytes(sealed: bytes, master: bytes, label: Label, *, chunk_bytes: int = CHUNK_BYTES) -> bytes:
    """Open one file.

    Raises:
        RefusedError: `decrypt_failed`; wrong key, changed, cut, lengthened or not the file that the label names.
    """
    head, body = sealed[:HEAD_BYTES], sealed[HEAD_BYTES:]
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        raise _refused(label, "not a sealed file")
    nonce = head[len(MAGIC) : len(MAGIC) + NONCE_BYTES]
    wrap_nonce = head[len(MAGIC) + NONCE_BYTES : len(MAGIC) + 2 * NONCE_BYTES]
    step = chunk_bytes + TAG_BYTES
    count = max(1, -(-len(body) // step))
    try:
        data_key = AESGCM(master).decrypt(wrap_nonce, head[-_WRAPPED_BYTES:], label.bound(b"wrap"))
        cipher = AESGCM(data_key)
        plain = [
            cipher.decrypt(
                _nonce(nonce, number), body[number * step : (number + 1) * step],
                label.bound(b"chunk", number, number == count - 1),
            )
            for number in range(count)
        ]  # fmt: skip
    except (InvalidTag, ValueError) as error:  # ValueError: a chunk shorter than its tag
        raise _refused(label, "wrong key, or the file was changed, cut or swapped") from error
    return b"".join(plain)


def _nonce(base: bytes, number: int) -> bytes:
    return (int.from_bytes(base, "big") ^ number).to_bytes(NONCE_BYTES, "big")


def _refused(label: Label, why: str) -> RefusedError:
    return RefusedError(
        "decrypt_failed", f"{label.name} {label.version}: {label.file}: {why}; nothing was released, seal it again"
    )
