"""Children that compute stand behind everybody, across sessions too."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporters import background

_GROUPS = pytest.mark.skipif(not background.GROUP.exists(), reason="this kernel has no scheduling groups of sessions")


def group_of(pid: int) -> str:
    return Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii")


def niceness_of(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


@contextlib.contextmanager
def checks_worker(own_session: bool) -> Iterator[int]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", "guard.checks.worker", str(theirs.fileno())]
        child = subprocess.Popen(command, pass_fds=(theirs.fileno(),), start_new_session=own_session)
        try:
            yield child.pid
        finally:
            child.kill()
            child.wait()


@_GROUPS
def test_the_worker_of_the_checks_lowers_its_session_too() -> None:
    with checks_worker(own_session=True) as pid:
        end_s = time.monotonic() + 60
        while not group_of(pid).endswith("nice 19\n") and time.monotonic() < end_s:
            time.sleep(0.05)
        assert group_of(pid).endswith("nice 19\n")
        assert niceness_of(pid) == 19


@_GROUPS
def test_who_leads_no_session_leaves_the_group_of_others_alone() -> None:
    before = group_of(os.getpid())
    with checks_worker(own_session=False) as pid:
        end_s = time.monotonic() + 60
        while niceness_of(pid) != 19 and time.monotonic() < end_s:
            time.sleep(0.05)
        assert niceness_of(pid) == 19
        assert group_of(os.getpid()) == before


class Group:
    """Refuses as often as told."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.written = list(errors), list[str]()

    def write_text(self, text: str, encoding: str) -> None:
        if self.errors:
            raise OSError(self.errors.pop(0), "refused")
        self.written.append(text)


@pytest.mark.parametrize(
    ("errors", "written"),
    [((), ["19"]), ((errno.EAGAIN, errno.EAGAIN), ["19"]), ((errno.EACCES,), []), ((errno.EAGAIN,) * 9, [])],
    ids=["at-once", "busy", "not-allowed", "always-busy"],
)
def test_a_busy_kernel_is_asked_again_and_a_refusal_costs_nothing(
    errors: tuple[int, ...], written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    niced, group = list[int](), Group(*errors)
    monkeypatch.setattr(background.os, "nice", niced.append)
    monkeypatch.setattr(background.os, "getsid", lambda _: os.getpid())
    monkeypatch.setattr(background.time, "sleep", lambda _: None)
    background.stay_behind(group)  # type: ignore[arg-type]
    assert (niced, group.written) == ([19], written)
