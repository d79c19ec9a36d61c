"""Threads share the one heap, and what is free goes back: seen in the memory of processes of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from guard.c_heap import heap_bytes
from guard.settings import load_settings
from guard.wiring import Guard
from guard.wiring.loops import give_memory_back
from slo.clock import HandClock

PROGRAM = """
import sys, threading
from guard.c_heap import share_one_arena
told = share_one_arena() if sys.argv[1] == "one" else None
held = []
def work():
    for _ in range(2000):
        held.append(bytearray(3000))
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
maps = [line.split()[:2] for line in open("/proc/self/maps")]
spans = [(*(int(end, 16) for end in span.split("-")), how) for span, how in maps]
room = 64 << 20  # of one such heap; what is not used of it yet may not be touched
print(told, sum(
    first % room == 0 and first + room == last and (here, then) == ("rw-p", "---p")
    for (first, _, here), (_, last, then) in zip(spans, spans[1:])
))
"""


def heaps(how: str, **environment: str) -> tuple[str, int]:
    """(what it was told, number of heaps of threads)."""
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: others do not tell")
def test_what_is_held_counts_as_used():
    before = heap_bytes()
    held = [bytearray(3000) for _ in range(2000)]
    during = heap_bytes()
    assert before is not None
    assert during is not None
    assert 5_900_000 < during[0] - before[0] < 12_000_000
    del held
    after = heap_bytes()
    assert after is not None
    assert during[0] - after[0] > 5_900_000


BURST = """
import os
from guard.c_heap import giver_back
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
give_back = giver_back()
burst = [bytearray(3000) for _ in range(10_000)]
last = bytearray(3000)  # behind the burst: nothing is free at the end of the heap
full = resident()
del burst
freed = resident()
told = give_back()
print(full - freed, told, freed - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: others have no malloc_trim")
def test_what_a_burst_left_behind_goes_back_to_the_system():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}  # noqa: TID251
    done = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, check=True, env=clean)
    by_itself_mib, told, given_back_mib = done.stdout.split()
    assert float(by_itself_mib) < 1.0
    assert told == "True"
    assert float(given_back_mib) > 25.0


def test_it_is_given_back_again_and_again():
    times_s: list[float] = []
    clock = HandClock()

    def give_back() -> bool:
        times_s.append(clock.now_s())
        if len(times_s) == 3:
            raise LookupError("enough")
        if len(times_s) == 2:
            raise RuntimeError("can't start new thread")
        return True

    with pytest.raises(LookupError, match="enough"):
        asyncio.run(give_memory_back(give_back, clock))
    assert times_s == [30.0, 60.0, 90.0]


GUARD = """\
service: faq-bot
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
slo: null
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {upstreams: ["http://127.0.0.1:9"], model: m}}
release: {stable: v1}
checks: {enabled: false}
exchange_log: {enabled: false}
"""


def test_a_guard_that_runs_gives_back_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = threading.Event()

    def give_back() -> bool:
        asked.set()
        return True

    monkeypatch.setattr("guard.wiring.loops.GIVE_BACK_EVERY_S", 0.01)
    monkeypatch.setattr("guard.wiring.guard.giver_back", lambda: give_back)
    (tmp_path / "guard.yaml").write_text(GUARD)

    async def run() -> None:
        guard = Guard(load_settings(tmp_path / "guard.yaml", {}))
        try:
            await guard.start()
            assert await asyncio.to_thread(asked.wait, 20.0)
            assert guard.dead_loops() == ()
        finally:
            await guard.stop(drain=False)
            gc.unfreeze()  # what a guard that serves leaves alone for good

    asyncio.run(run())
