"""The vault: whole versions or none, roles, and an audit log that tells when it was touched."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from guard.cli import main
from lora.access import Deed, Person, Role, issue_token, load_access
from lora.audit import HEAD, LOG
from lora.keys import KeyRing, load_ring, make_ring
from lora.vault import MANIFEST, SUFFIX
from slo.errors import ConfigError, DataError, RefusedError
from tests.lora_kit import (
    KEYHOLDER,
    RELEASER,
    VIEWER,
    adapter_directory,
    adapter_files,
    ring_of,
    safetensors_bytes,
    vault_of,
)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    vault_of(tmp_path, ring_of(tmp_path)).seal(adapter_directory(tmp_path / "adapter"), "hr-rules", "v1")
    return tmp_path


def place(sealed: Path, version: str = "v1") -> Path:
    return sealed / "vault" / "hr-rules" / version


def test_what_is_sealed_opens_in_memory_and_the_disk_holds_no_plaintext(sealed: Path) -> None:
    vault = vault_of(sealed, load_ring(sealed / "keys.json"), RELEASER)
    assert dict(vault.open("hr-rules", "v1").files) == adapter_files()
    for path in (sealed / "vault").rglob("*"):
        if path.is_file():
            assert b"lora_alpha" not in path.read_bytes()
            assert b"lora_A" not in path.read_bytes()


def test_a_version_never_changes(sealed: Path) -> None:
    with pytest.raises(RefusedError, match="versions never change"):
        vault_of(sealed, load_ring(sealed / "keys.json")).seal(sealed / "adapter", "hr-rules", "v1")


def test_every_bit_of_a_small_version_counts(sealed: Path) -> None:
    """Each bit of manifest and configuration, and every eighth byte of the weights, flipped in turn."""
    vault = vault_of(sealed, load_ring(sealed / "keys.json"))
    refused = tried = 0
    for path in sorted(place(sealed).iterdir()):
        data = path.read_bytes()
        step = 1 if path.name == MANIFEST else 8
        for position in range(0, len(data), step):
            changed = bytearray(data)
            changed[position] ^= 1 << (position % 8)
            path.write_bytes(bytes(changed))
            tried += 1
            try:
                vault._open("hr-rules", "v1")
            except RefusedError as error:
                refused += error.reason in ("decrypt_failed", "no_key")
        path.write_bytes(data)
    assert refused == tried > 500
    assert vault.open("hr-rules", "v1").files


def test_swapped_missing_added_and_older_files_are_refused(sealed: Path) -> None:
    vault = vault_of(sealed, load_ring(sealed / "keys.json"))
    vault.seal(sealed / "adapter", "hr-rules", "v2")
    config, weights = (place(sealed) / (name + SUFFIX) for name in adapter_files())
    other = place(sealed, "v2") / config.name
    whole = {path: path.read_bytes() for path in (config, weights)}

    def refused() -> bool:
        try:
            vault.open("hr-rules", "v1")
        except RefusedError as error:
            return error.reason == "decrypt_failed"
        finally:
            for path, data in whole.items():
                path.write_bytes(data)
        return False

    config.write_bytes(whole[weights])
    weights.write_bytes(whole[config])
    assert refused()
    config.write_bytes(other.read_bytes())  # the same name and plaintext, of another version
    assert refused()
    config.unlink()
    assert refused()
    (place(sealed) / "more.sealed").write_bytes(b"x")
    assert refused()
    (place(sealed) / "more.sealed").unlink()
    manifest = place(sealed) / MANIFEST
    kept = manifest.read_bytes()
    manifest.write_bytes((place(sealed, "v2") / MANIFEST).read_bytes())
    assert refused()
    manifest.write_bytes(kept)
    assert vault.open("hr-rules", "v1").version == "v1"


def test_after_a_key_rotation_the_old_version_opens_and_the_new_one_has_the_new_key(sealed: Path) -> None:
    ring = make_ring(sealed / "keys.json")
    vault = vault_of(sealed, ring)
    manifest = vault.seal(sealed / "adapter", "hr-rules", "v2")
    assert manifest.key_id == ring.current_id
    assert vault.verify("hr-rules", "v1").key_id != ring.current_id
    assert vault.open("hr-rules", "v1").content_sha256 == vault.open("hr-rules", "v2").content_sha256


def test_a_key_that_others_may_read_is_refused_and_another_key_opens_nothing(sealed: Path) -> None:
    (sealed / "other").mkdir()
    with pytest.raises(RefusedError, match="no key"):
        vault_of(sealed, ring_of(sealed / "other")).open("hr-rules", "v1")
    (sealed / "keys.json").chmod(0o640)
    with pytest.raises(RefusedError, match="chmod 600"):
        load_ring(sealed / "keys.json")


@pytest.mark.parametrize(
    ("person", "deed", "allowed"),
    [
        (VIEWER, Deed.VERIFY, True),
        (VIEWER, Deed.SEAL, False),
        (VIEWER, Deed.OPEN, False),
        (RELEASER, Deed.OPEN, True),
        (RELEASER, Deed.UNSEAL, False),
        (KEYHOLDER, Deed.UNSEAL, True),
        (Person("nobody", None), Deed.LIST, False),
    ],
    ids=lambda value: value.name if isinstance(value, Person) else str(value),
)
def test_each_role_may_what_it_needs(person: Person, deed: Deed, allowed: bool) -> None:
    assert person.may(deed) is allowed


def test_the_wrong_role_is_refused_and_recorded(sealed: Path) -> None:
    ring = load_ring(sealed / "keys.json")
    with pytest.raises(RefusedError, match="eve is viewer; `open` needs the role releaser"):
        vault_of(sealed, ring, VIEWER).open("hr-rules", "v1")
    with pytest.raises(RefusedError, match="needs the role keyholder"):
        vault_of(sealed, ring, RELEASER).unseal("hr-rules", "v1", sealed / "out")
    assert not (sealed / "out").exists()
    entries, problem = vault_of(sealed, ring, VIEWER).audit()
    assert problem is None
    assert [(e.user, e.deed, e.result) for e in entries[-2:]] == [
        ("eve", "open", "refused"),
        ("bob", "unseal", "refused"),
    ]


def test_unsealed_files_are_the_owner_s_alone_and_a_directory_that_is_there_is_left_alone(sealed: Path) -> None:
    vault = vault_of(sealed, load_ring(sealed / "keys.json"))
    vault.unseal("hr-rules", "v1", sealed / "out")
    assert {path.name: path.read_bytes() for path in (sealed / "out").iterdir()} == adapter_files()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (sealed / "out", *(sealed / "out").iterdir()))
    with pytest.raises(RefusedError, match="is there already"):
        vault.unseal("hr-rules", "v1", sealed / "out")


def test_every_change_to_the_audit_log_is_found(sealed: Path) -> None:
    vault = vault_of(sealed, load_ring(sealed / "keys.json"))
    for _ in range(3):
        vault.open("hr-rules", "v1")
    log, head = sealed / "vault" / LOG, sealed / "vault" / HEAD
    lines, kept = log.read_bytes().splitlines(keepends=True), head.read_bytes()
    assert vault.audit()[1] is None

    def found(changed: list[bytes], number: int) -> bool:
        log.write_bytes(b"".join(changed))
        problem = vault.audit()[1]
        log.write_bytes(b"".join(lines))
        return problem is not None and problem.number == number

    entry = json.loads(lines[1])
    assert found(
        [lines[0], json.dumps({**entry, "user": "bob"}, separators=(",", ":")).encode() + b"\n", *lines[2:]], 2
    )
    assert found([lines[0], *lines[2:]], 2)  # taken out
    assert found([lines[1], lines[0], *lines[2:]], 1)  # moved
    assert found([lines[0], lines[0], *lines[1:]], 2)  # added
    assert found(lines[:-1], len(lines))  # cut off at the end
    assert found([*lines[:-1], lines[-1].rstrip(b"\n")], len(lines))
    head.unlink()
    assert found(lines, 1)
    head.write_bytes(kept.replace(b'"count":', b'"count": '))
    assert vault.audit()[1] is None  # white space says the same
    head.write_bytes(kept)
    log.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(DataError, match="the log ends here"):
        vault.open("hr-rules", "v1")  # what cannot be recorded is not done


def test_a_torn_last_line_of_a_crash_is_no_tampering(sealed: Path) -> None:
    vault = vault_of(sealed, load_ring(sealed / "keys.json"))
    log = sealed / "vault" / LOG
    with log.open("ab") as file:
        file.write(b'{"number":3,"wall_')
    assert vault.audit()[1] is None
    vault.open("hr-rules", "v1")
    assert vault.audit()[1] is None
    assert b'"wall_{' not in log.read_bytes()


def _pickled() -> bytes:
    return pickle.dumps({"x": 1})


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"adapter_model.bin": _pickled()}, "may not be in an adapter"),
        ({"modeling.py": b"import os"}, "may not be in an adapter"),
        ({"adapter_config.json": b'{"auto_map": {"AutoModel": "evil.Model"}}'}, "asks for code"),
        ({"tokenizer_config.json": b'{"a": [{"auto_map": "x"}]}'}, "asks for code"),
        ({"adapter_config.json": b"not json"}, "is not JSON"),
        ({"adapter_model.safetensors": _pickled()}, "header"),
        ({"adapter_model.safetensors": b"\xff" * 16}, "header has"),
        ({"adapter_model.safetensors": safetensors_bytes() + b"tail"}, "no tensor owns"),
        ({"adapter_model.safetensors": safetensors_bytes().replace(b'"shape": [4]', b'"shape": [5]')}, "wrongly"),
        ({"adapter_model.safetensors": b""}, "too short"),
    ],
    ids=[
        "pickle",
        "code",
        "auto-map",
        "nested-auto-map",
        "json",
        "pickle-as-safetensors",
        "header-bomb",
        "tail",
        "shape",
        "empty",
    ],
)
def test_what_could_run_code_or_lies_about_itself_is_not_sealed(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    vault = vault_of(tmp_path, ring_of(tmp_path))
    with pytest.raises(RefusedError, match=reason) as caught:
        vault.seal(adapter_directory(tmp_path / "adapter", **files), "hr-rules", "v1")
    assert caught.value.reason == "artifact_rejected"
    assert not (tmp_path / "vault" / "hr-rules" / "v1").exists()


def test_links_and_strange_names_are_refused(tmp_path: Path) -> None:
    vault = vault_of(tmp_path, ring_of(tmp_path))
    source = adapter_directory(tmp_path / "adapter")
    for name, version in (("../x", "v1"), ("hr", ".."), ("hr", "a/b"), ("", "v1"), ("HR", "v1"), ("hr", "a..b")):
        with pytest.raises(RefusedError) as caught:
            vault.seal(source, name, version)
        assert caught.value.reason == "bad_name"
    (source / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(RefusedError, match="no plain file"):
        vault.seal(source, "hr-rules", "v1")


def test_tokens_are_kept_as_hashes_and_the_first_user_holds_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    with pytest.raises(RefusedError, match="the first user must be a keyholder"):
        issue_token(path, "bob", Role.VIEWER)
    ada, bob = issue_token(path, "ada", Role.KEYHOLDER), issue_token(path, "bob", Role.RELEASER)
    assert ada not in path.read_text()
    access = load_access(path)
    assert access.person(ada, "root") == Person("ada", Role.KEYHOLDER)
    assert access.person(bob, "root") == Person("bob", Role.RELEASER)
    assert access.person("guess", "root") == Person("root", None)
    assert access.person(None, "root") == Person("root", None)
    again = issue_token(path, "bob", Role.VIEWER)
    assert load_access(path).person(bob, "root").role is None
    assert load_access(path).person(again, "root").role is Role.VIEWER
    path.write_text('{"users": {"ada": {"role": "king", "token_sha256": ""}}}')
    with pytest.raises(ConfigError, match=r"king"):
        load_access(path)


def test_the_vault_goes_on_without_an_old_key_and_says_which_entries_cannot_be_checked(sealed: Path) -> None:
    make_ring(sealed / "keys.json")
    whole = load_ring(sealed / "keys.json")
    vault_of(sealed, whole).open("hr-rules", "v1")
    new = KeyRing(whole.current_id, {whole.current_id: whole.current})
    vault = vault_of(sealed, new)
    vault.seal(sealed / "adapter", "hr-rules", "v2")
    assert vault.open("hr-rules", "v2").files
    problem = vault.audit()[1]
    assert problem is not None
    assert (problem.number, "is not in the ring" in problem.what) == (1, True)
    assert vault_of(sealed, whole).audit()[1] is None
    # An entry beyond the head is a crash only when its key is known.
    log = sealed / "vault" / LOG
    last = json.loads(log.read_bytes().splitlines()[-1])
    forged = {**last, "number": last["number"] + 1, "previous": last["hash"], "key_id": "f" * 16}
    log.write_bytes(log.read_bytes() + json.dumps(forged, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(DataError, match="is not in the ring"):
        vault.open("hr-rules", "v2")


def test_a_log_that_was_taken_away_with_its_head_is_missed(sealed: Path) -> None:
    vault = vault_of(sealed, load_ring(sealed / "keys.json"))
    for name in (LOG, HEAD):
        (sealed / "vault" / name).unlink()
    problem = vault.audit()[1]
    assert problem is not None
    assert "hr-rules v1 lies here" in problem.what
    vault.open("hr-rules", "v1")
    assert vault.audit()[1] is not None


def test_half_a_plaintext_does_not_stay(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault, real, count = vault_of(sealed, load_ring(sealed / "keys.json")), os.open, iter(range(99))

    def full(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if Path(path).parent.name == "out" and next(count):
            raise OSError(28, "No space left on device")
        return real(path, flags, mode, **more)

    monkeypatch.setattr("lora.vault.os.open", full)
    with pytest.raises(DataError, match="No space left"):
        vault.unseal("hr-rules", "v1", sealed / "out")
    assert not (sealed / "out").exists()


def test_an_access_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    issue_token(path, "ada", Role.KEYHOLDER)
    path.chmod(0o644)
    assert load_access(path)
    path.chmod(0o664)
    with pytest.raises(RefusedError, match="others may write it"):
        load_access(path)


def test_tokens_are_told_to_the_audit_log(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lora", "token", "--access", str(sealed / "access.json"), "--user", "ada", "--role", "keyholder"]
    assert main([*command, "--vault", str(sealed / "vault")]) == 2
    assert "give both" in capsys.readouterr().err
    keys = ["--keys", str(sealed / "keys.json")]
    assert main([*command, "--vault", str(sealed / "vault"), *keys]) == 0
    entry = vault_of(sealed, load_ring(sealed / "keys.json")).audit()[0][-1]
    assert (entry.deed, entry.object, entry.result, entry.detail) == ("token", "ada", "ok", "keyholder")
