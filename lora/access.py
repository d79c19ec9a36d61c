"""Who may do what with sealed adapters: three roles, tokens kept as hashes only.

{"users": {"ada": {"role": "keyholder", "token_sha256": "..."}}}
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import msgspec

from slo.codec import NOT_JSON
from slo.errors import ConfigError, DataError, RefusedError


class Role(StrEnum):
    """Each may do what the one before it may, and more."""

    VIEWER = "viewer"  # list, verify, read the audit log
    RELEASER = "releaser"  # seal, and open into memory for serving
    KEYHOLDER = "keyholder"  # write plaintext to disk, make keys and tokens


class Deed(StrEnum):
    """What is asked for."""

    LIST = "list"
    VERIFY = "verify"
    AUDIT = "audit"
    SEAL = "seal"
    OPEN = "open"  # into memory
    UNSEAL = "unseal"  # to disk
    KEY = "key"
    TOKEN = "token"  # noqa: S105 - the word, not one


_ORDER = tuple(Role)
NEEDS = {
    Deed.LIST: Role.VIEWER,
    Deed.VERIFY: Role.VIEWER,
    Deed.AUDIT: Role.VIEWER,
    Deed.SEAL: Role.RELEASER,
    Deed.OPEN: Role.RELEASER,
    Deed.UNSEAL: Role.KEYHOLDER,
    Deed.KEY: Role.KEYHOLDER,
    Deed.TOKEN: Role.KEYHOLDER,
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. role None: nobody who is known."""

    name: str
    role: Role | None

    def may(self, deed: Deed) -> bool:
        """Whether the role is enough.

        >>> Person("bob", Role.RELEASER).may(Deed.SEAL), Person("bob", Role.RELEASER).may(Deed.UNSEAL)
        (True, False)
        """
        return self.role is not None and _ORDER.index(self.role) >= _ORDER.index(NEEDS[deed])


class _User(msgspec.Struct, forbid_unknown_fields=True):
    role: Role
    token_sha256: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    users: dict[str, _User]


class Access:
    """The users of one access file; without a file, whoever can read the keys is the key holder."""

    def __init__(self, users: dict[str, _User] | None = None) -> None:
        self._users = users

    @property
    def open_to_owner(self) -> bool:
        """Whether there is no access file."""
        return self._users is None

    def person(self, token: str | None, login: str) -> Person:
        """Who a token belongs to. All hashes are compared, each in constant time.

        login: name of the operating system's user, for the audit log and where there is no access file.
        """
        if self._users is None:
            return Person(login, Role.KEYHOLDER)
        digest = sha256((token or "").encode()).hexdigest()
        found = Person(login, None)
        for name, user in self._users.items():
            if hmac.compare_digest(user.token_sha256, digest) and token:
                found = Person(name, user.role)
        return found


def load_access(path: Path | None) -> Access:
    """Read the access file. Raises ConfigError with the place of the mistake; a file that is named must be there."""
    if path is None:
        return Access()
    try:
        if (mode := path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise RefusedError(
                "open_access", f"{path}: others may write it (mode {mode & 0o777:o}) and name themselves; chmod go-w"
            )
        return Access(msgspec.json.decode(path.read_bytes(), type=_File).users)
    except OSError as error:
        raise ConfigError(str(path), error.strerror, "make it with sft-guard lora token --access FILE") from error
    except NOT_JSON as error:
        raise ConfigError(
            str(path), str(error), 'write {"users": {NAME: {"role": ..., "token_sha256": ...}}}'
        ) from error


def issue_token(path: Path, name: str, role: Role) -> str:
    """Give a user a new token and return it; the file keeps its hash. The first user must be a key holder.

    Raises:
        ConfigError, DataError: the file cannot be used or written. RefusedError: `no_keyholder`.
    """
    users: dict[str, _User] = {}
    if path.exists():
        users = load_access(path)._users or {}
    elif role is not Role.KEYHOLDER:
        raise RefusedError("no_keyholder", f"{path}: the first user must be a keyholder, or nobody could add another")
    token = secrets.token_urlsafe(32)
    users[name] = _User(role, sha256(token.encode()).hexdigest())
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(users)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check path and permissions") from error
    return token


def refused(person: Person, deed: Deed) -> RefusedError:
    """The one line that a person without the right sees."""
    has = f"is {person.role}" if person.role else "gave no token that is known"
    return RefusedError("forbidden", f"{person.name} {has}; `{deed}` needs the role {NEEDS[deed]}; this was recorded")
