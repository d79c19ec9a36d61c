"""Files of the state directory are for the guard's own user, also those that an earlier version left open."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from guard.private_state import tighten


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made(path: Path, bits: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    path.chmod(bits)
    return path


def test_what_was_open_is_closed_and_nothing_is_opened(tmp_path: Path) -> None:
    state = tmp_path / "state"
    files = [made(state / name, 0o644) for name in ("release.db", "exchanges/1.parquet", "anything")]
    tight = made(state / "lock", 0o400)
    outside = made(tmp_path / "outside", 0o644)
    (state / "link").symlink_to(outside)
    state.chmod(0o755)
    changed, problem = tighten(state, tmp_path)
    assert problem == ""
    assert changed == 3 + 2  # the directory, and exchanges in it
    assert [mode(path) for path in files] == [0o600] * 3
    assert (mode(state), mode(state / "exchanges"), mode(tight), mode(outside)) == (0o700, 0o700, 0o400, 0o644)
    assert tighten(state, tmp_path) == (0, "")


def test_a_directory_that_is_a_persons_own_keeps_what_is_not_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    page = made(tmp_path / "notes.json", 0o644)
    ours = made(tmp_path / "human_labels.json", 0o644)
    drift = made(tmp_path / "drift-cjk.npz", 0o644)  # questions of people stand in it
    log = made(tmp_path / "exchanges" / "1.jsonl", 0o644)
    assert tighten(tmp_path, tmp_path)[0] == 4
    assert (mode(page), mode(ours), mode(drift), mode(log)) == (0o644, 0o600, 0o600, 0o600)
    assert mode(tmp_path) == 0o755


def test_what_cannot_be_closed_is_told(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    made(tmp_path / "state" / "release.db", 0o644)

    def refuse(path: Path, bits: int) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(os, "chmod", refuse)
    changed, problem = tighten(tmp_path / "state", tmp_path)
    assert changed == 0
    assert "others may read it, and it cannot be changed (Operation not permitted)" in problem
