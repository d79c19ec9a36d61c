"""Threads share the one heap: seen in the mappings of a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from guard.one_arena import share_one_arena
told = share_one_arena() if sys.argv[1] == "one" else None
held = []
def work():
    for _ in range(2000):
        held.append(bytearray(3000))
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
starts = [int(line.split("-")[0], 16) for line in open("/proc/self/maps")]
print(told, sum(start % (64 << 20) == 0 for start in starts))
"""


def heaps(how: str, **environment: str) -> tuple[str, int]:
    """(what it was told, number of heaps of threads: they begin at multiples of 64 MiB)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}  # noqa: TID251
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, env=clean | environment
    )
    told, count = done.stdout.split()
    return told, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: others have no heaps of threads")
def test_threads_have_no_heaps_of_their_own():
    assert heaps("many")[1] >= 1
    assert heaps("one") == ("True", 0)
    for environment in ({"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}):
        assert heaps("one", **environment)[0] == "False"
