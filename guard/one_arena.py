"""One heap for all threads of this process: `share_one_arena()` before the first thread starts.

glibc gives threads heaps of their own, against waiting for each other. Here threads are few and mostly hold the
interpreter's lock, and what they leave behind in such heaps is not given back: under load with faults these heaps
took 5 MiB after half a minute and 7.8 after 13 minutes (docs/reliability.md, "Soak").
"""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h


def share_one_arena() -> bool:
    """Whether it was asked for and taken; a limit that is set in the environment stays, other libraries have none."""
    environ = os.environ  # noqa: TID251 - glibc's own variables
    if "MALLOC_ARENA_MAX" in environ or "arena_max" in environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
