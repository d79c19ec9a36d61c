"""The heap of the C library: one for all threads of this process, and what is free in it goes back to the system.

glibc gives threads heaps of their own, against waiting for each other. Here threads are few and mostly hold the
interpreter's lock, and what they leave behind in such heaps is not given back: under load with faults these heaps
took 5 MiB after half a minute and 7.8 after 13 minutes. And glibc returns only what is free at the end of a heap: one
block that stays keeps the pages of a burst before it (docs/reliability.md, "Soak").
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

_M_ARENA_MAX = -8  # malloc.h


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def share_one_arena() -> bool:
    """Before the first thread starts; whether it was asked for and taken.

    A limit that is set in the environment stays, other C libraries have none.
    """
    environ = os.environ  # noqa: TID251 - glibc's own variables
    if "MALLOC_ARENA_MAX" in environ or "arena_max" in environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1


def giver_back() -> Callable[[], bool] | None:
    """What returns free whole pages, wherever they lie, to the system; None: not this C library's.

    A call took 0.1 to 2 ms with 4 MiB free of 34. Who asks for C memory meanwhile waits, the event loop too, for what
    is over 512 bytes; the rest of Python goes on. It says whether anything was returned.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0) == 1


def heap_bytes() -> tuple[int, int] | None:
    """(in use, free but kept) of the C heap, mappings of single large blocks left out; None: not this C library's."""
    asked = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if asked is None:
        return None
    asked.restype = _Mallinfo2
    found = asked()
    return found.uordblks, found.fordblks
