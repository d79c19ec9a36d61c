"""Sealed adapters on disk: VAULT/NAME/VERSION/, each file sealed by itself, and a manifest that lists them all.

A version is written beside its place, synced and renamed: it is there whole or not at all, and it never changes. To
open it means: right role, manifest unchanged, every file listed, each tag right, and only then the bytes, in memory.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from lora.access import Deed, Person, refused
from lora.adapter_files import Adapter, content_hash, read_directory
from lora.artifact import check_artifact
from lora.audit import AuditLog, AuditProblem, Entry
from lora.envelope import Label, open_bytes, seal_bytes
from lora.keys import KeyRing
from slo.codec import NOT_JSON
from slo.errors import DataError, GuardError, RefusedError

MANIFEST = "manifest.json"
SUFFIX = ".sealed"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAC = "manifest"


class SealedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """plain_bytes: size before sealing. sealed_sha256: of the file on disk."""

    plain_bytes: int
    sealed_sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sealed version is made of. content_sha256: over names and plaintext, the same for every sealing."""

    name: str
    version: str
    key_id: str
    sealed_wall_s: float
    content_sha256: str
    files: dict[str, SealedFile]
    mac: str = ""


class Vault:
    """All sealed adapters under one directory, as one person may use them.

    Every deed is recorded before its result is given out; when it cannot be recorded, it is not done.
    """

    def __init__(self, directory: Path, ring: KeyRing, person: Person, wall_s: Callable[[], float]) -> None:
        self._directory, self._ring, self._person, self._wall_s = directory, ring, person, wall_s
        self._log = AuditLog(directory, ring)

    def seal(self, source: Path, name: str, version: str) -> Manifest:
        """Seal the files of an adapter directory as one version.

        Raises:
            RefusedError: `forbidden`, `bad_name`, `exists`, `artifact_rejected`. DataError: disk or audit log.
        """
        with self._recorded(Deed.SEAL, name, version):
            place = self._place(name, version)
            if place.exists():
                raise RefusedError(
                    "exists", f"{name} {version} is sealed already; versions never change, take a new one"
                )
            files = read_directory(source)
            check_artifact(files)
            return self._write(place, files, name, version)

    def open(self, name: str, version: str) -> Adapter:
        """Open a version into memory.

        Raises:
            RefusedError: `forbidden`, `bad_name`, `unknown`, `decrypt_failed`, `artifact_rejected`, `no_key`.
        """
        with self._recorded(Deed.OPEN, name, version):
            return self._open(name, version)

    def unseal(self, name: str, version: str, target: Path) -> Adapter:
        """Write the plaintext of a version into a new directory that only its owner may read.

        Raises: as `open`, and RefusedError `exists`, DataError.
        """
        with self._recorded(Deed.UNSEAL, name, version):
            adapter = self._open(name, version)
            try:
                target.mkdir(mode=0o700, parents=True)
            except FileExistsError as error:
                raise RefusedError("exists", f"{target} is there already; name a new directory") from error
            except OSError as error:
                raise DataError(f"{target}: cannot be made ({error.strerror}); check the path") from error
            try:
                for file, data in adapter.files.items():
                    descriptor = os.open(target / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                    with os.fdopen(descriptor, "wb") as out:
                        out.write(data)
            except OSError as error:
                shutil.rmtree(target, ignore_errors=True)  # half a plaintext is of no use to anybody who may have it
                raise DataError(f"{target}: cannot be written ({error.strerror}); check path and space") from error
            return adapter

    def verify(self, name: str, version: str) -> Manifest:
        """Check manifest and hashes of a version; nothing is decrypted.

        Raises:
            RefusedError: `forbidden`, `bad_name`, `unknown`, `decrypt_failed`, `no_key`.
        """
        with self._recorded(Deed.VERIFY, name, version):
            manifest = self._manifest(name, version)
            self._sealed(manifest)
            return manifest

    def versions(self) -> list[tuple[str, str, Manifest | None, str]]:
        """(name, version, manifest or None, what is wrong with it) of all. Raises RefusedError `forbidden`."""
        with self._recorded(Deed.LIST, "-", "-"):
            found: list[tuple[str, str, Manifest | None, str]] = []
            for path in sorted(self._directory.glob(f"*/*/{MANIFEST}")):
                name, version = path.parent.parent.name, path.parent.name
                if not NAME.fullmatch(name) or not NAME.fullmatch(version):
                    continue
                try:
                    found.append((name, version, self._manifest(name, version), ""))
                except GuardError as error:
                    found.append((name, version, None, str(error)))
            return found

    def audit(self) -> tuple[list[Entry], AuditProblem | None]:
        """The audit log, and the first thing wrong with it. Raises RefusedError `forbidden`."""
        if not self._person.may(Deed.AUDIT):
            raise refused(self._person, Deed.AUDIT)
        problem = self._log.verify()
        try:
            entries = self._log.entries()
        except DataError:
            return [], problem
        return entries, problem or self._untold(entries)

    def record(self, deed: Deed, about: str, detail: str = "") -> None:
        """Record a deed that was done elsewhere (a new key, a new token). Raises RefusedError `forbidden`."""
        with self._recorded(deed, about, "-", detail):
            pass

    def recorded(self, deed: Deed, about: str, detail: str = "") -> AbstractContextManager[None]:
        """Record a deed that is done within, as it ends. Raises RefusedError `forbidden` before it begins."""
        return self._recorded(deed, about, "-", detail)

    def _untold(self, entries: list[Entry]) -> AuditProblem | None:
        """A sealed version that no entry tells of: the log was taken away, head and all, and perhaps begun anew."""
        told = {entry.object for entry in entries if entry.deed == Deed.SEAL.value}
        for path in sorted(self._directory.glob(f"*/*/{MANIFEST}")):
            name, version = path.parent.parent.name, path.parent.name
            if NAME.fullmatch(name) and NAME.fullmatch(version) and f"{name} {version}" not in told:
                return AuditProblem(len(entries) + 1, f"{name} {version} lies here, and no entry tells who sealed it")
        return None

    @contextmanager
    def _recorded(self, deed: Deed, name: str, version: str, detail: str = "") -> Iterator[None]:
        about = f"{name} {version}".removesuffix(" -")
        if not self._person.may(deed):
            self._note(deed, about, "refused", f"needs {deed}")
            raise refused(self._person, deed)
        if deed in (Deed.SEAL, Deed.UNSEAL):  # these leave something on the disk: told of before, too
            self._note(deed, about, "begun", "")
        try:
            yield
        except GuardError as error:
            self._note(deed, about, "failed", str(error))
            raise
        self._note(deed, about, "ok", detail)

    def _note(self, deed: Deed, about: str, result: str, detail: str) -> None:
        role = self._person.role
        self._log.append(
            wall_s=self._wall_s(), user=self._person.name, role=role.value if role else "none", deed=deed.value,
            about=about, result=result, detail=detail,
        )  # fmt: skip

    def _place(self, name: str, version: str) -> Path:
        for what, value in (("name", name), ("version", version)):
            if not NAME.fullmatch(value) or ".." in value:
                raise RefusedError(
                    "bad_name",
                    f"{what}: got {value[:80]!r}; small letters, digits, dot, dash and underscore, at most 64",
                )
        return self._directory / name / version

    def _write(self, place: Path, files: Mapping[str, bytes], name: str, version: str) -> Manifest:
        key_id = self._ring.current_id
        temporary = place.with_name(f".{version}.new")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            sealed: dict[str, SealedFile] = {}
            for file, data in files.items():
                whole = seal_bytes(data, self._ring.current, Label(name, version, key_id, file))
                sealed[file] = SealedFile(len(data), sha256(whole).hexdigest())
                _write_synced(temporary / (file + SUFFIX), whole)
            manifest = Manifest(name, version, key_id, self._wall_s(), content_hash(files), sealed)
            manifest = msgspec.structs.replace(manifest, mac=self._mac(manifest))
            _write_synced(temporary / MANIFEST, msgspec.json.encode(manifest))
            _sync_directory(temporary)
            temporary.rename(place)
            _sync_directory(place.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise DataError(
                f"{place}: cannot be written ({error.strerror}); free space or check permissions"
            ) from error
        return manifest

    def _open(self, name: str, version: str) -> Adapter:
        manifest = self._manifest(name, version)
        sealed = self._sealed(manifest)
        master = self._ring.key(manifest.key_id)
        files = {
            file: open_bytes(data, master, Label(name, version, manifest.key_id, file)) for file, data in sealed.items()
        }
        if content_hash(files) != manifest.content_sha256:
            raise _damaged(manifest, "the content is not what was sealed")
        check_artifact(files)
        return Adapter(name, version, manifest.content_sha256, files)

    def _manifest(self, name: str, version: str) -> Manifest:
        path = self._place(name, version) / MANIFEST
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RefusedError(
                "unknown", f"{path}: cannot be read ({error.strerror}); see sft-guard lora vault"
            ) from error
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except NOT_JSON as error:
            raise RefusedError("decrypt_failed", f"{path}: not a manifest; restore it from a copy") from error
        one_form = msgspec.json.encode(manifest) == data
        if not one_form or manifest.mac != self._mac(manifest) or (manifest.name, manifest.version) != (name, version):
            raise _damaged(manifest, "the manifest was changed or belongs to another version")
        return manifest

    def _sealed(self, manifest: Manifest) -> dict[str, bytes]:
        place = self._place(manifest.name, manifest.version)
        listed = {file + SUFFIX for file in manifest.files} | {MANIFEST}
        try:
            found = {entry.name for entry in place.iterdir()}
            if found != listed:
                raise _damaged(manifest, f"files missing or added: {', '.join(sorted(found ^ listed))[:200]}")
            sealed = {file: (place / (file + SUFFIX)).read_bytes() for file in manifest.files}
        except OSError as error:
            raise _damaged(manifest, f"cannot be read ({error.strerror})") from error
        for file, data in sealed.items():
            if sha256(data).hexdigest() != manifest.files[file].sealed_sha256:
                raise _damaged(manifest, f"{file} was changed, cut or swapped")
        return sealed

    def _mac(self, manifest: Manifest) -> str:
        plain = msgspec.json.encode(msgspec.structs.replace(manifest, mac=""))
        return self._ring.mac(manifest.key_id, _MAC, plain)


def _damaged(manifest: Manifest, why: str) -> RefusedError:
    return RefusedError(
        "decrypt_failed", f"{manifest.name} {manifest.version}: {why}; refused, restore it or seal it again"
    )


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
