"""Master keys: a ring in one file that only its owner may read.

    {"current": "3f2a...", "keys": {"3f2a...": "<32 bytes, base64>"}}

New artefacts are sealed with the current key; older keys stay in the ring to open what they sealed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lora.envelope import KEY_BYTES
from slo.errors import DataError, RefusedError


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys by id. Never printed: `repr` shows ids alone."""

    current_id: str
    keys: Mapping[str, bytes] = field(repr=False)

    @property
    def current(self) -> bytes:
        """The key that seals."""
        return self.keys[self.current_id]

    def key(self, key_id: str) -> bytes:
        """Key of an artefact sealed earlier. Raises RefusedError `no_key`."""
        try:
            return self.keys[key_id]
        except KeyError:
            raise RefusedError("no_key", f"the key ring has no key {key_id[:32]!r}; ask who sealed it") from None

    def mac(self, key_id: str, purpose: str, data: bytes) -> str:
        """Keyed hash (hex) for what is not secret but must not be changed: manifests and the audit log."""
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(self.key(key_id))
        return hmac.new(derived, data, sha256).hexdigest()


def id_of(key: bytes) -> str:
    """Short public name of a key; says nothing about it.

    >>> id_of(bytes(32))
    'e4d2c51eba0cf6b6'
    """
    return sha256(b"sft-guard key id" + key).hexdigest()[:16]


def make_ring(path: Path, *, chance: Callable[[int], bytes] = os.urandom) -> KeyRing:
    """Make the file with one new key, or add a new current key to the one that is there.

    Raises:
        DataError, RefusedError: the file that is there cannot be used, or cannot be written.
    """
    old = load_ring(path).keys if path.exists() else {}
    key = chance(KEY_BYTES)
    ring = KeyRing(id_of(key), {**old, id_of(key): key})
    encoded = {name: base64.b64encode(value).decode() for name, value in ring.keys.items()}
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode({"current": ring.current_id, "keys": encoded}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check path and permissions") from error
    return ring


def load_ring(path: Path) -> KeyRing:
    """Read the ring.

    Raises:
        DataError: not there or not a key ring. RefusedError: `open_key`, others may read it.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make a key with sft-guard lora key --keys {path}"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RefusedError("open_key", f"{path}: others may read it (mode {mode & 0o777:o}); chmod 600 {path}")
    return parse_ring(data, str(path))


def parse_ring(data: bytes, place: str) -> KeyRing:
    """A ring from its bytes, such as those of an environment variable. Raises DataError naming `place`."""
    try:
        found = msgspec.json.decode(data, type=dict[str, str | dict[str, str]])
        current, encoded = found["current"], found["keys"]
        if not isinstance(current, str) or not isinstance(encoded, dict):
            raise ValueError("wrong form")
        keys = {name: base64.b64decode(value, validate=True) for name, value in encoded.items()}
        if current not in keys or any(len(k) != KEY_BYTES or id_of(k) != name for name, k in keys.items()):
            raise ValueError("a key does not match its id")
    except (msgspec.DecodeError, KeyError, ValueError, binascii.Error) as error:
        raise DataError(f"{place}: not a key ring; restore it from your key store") from error
    return KeyRing(current, keys)
