"""A process that computes without hurry stands behind all others: `stay_behind()` at its start.

`nice` alone is not enough on Linux: with automatic grouping (the default of most distributions) each session is a group
of its own and niceness counts only within it, so a busy child in its own session took a full share beside the bot, the
model and the load of a bench (added p99 3.6 ms at 500 requests/s; 0.6 ms without). In a container or a systemd unit the
group is the container's or the unit's: its limits are set there.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

NICE = 19
GROUP = Path("/proc/self/autogroup")
_TRIES, _PAUSE_S = 5, 0.12  # the kernel takes one change in 0.1 s from all users without privileges together


def stay_behind(group: Path = GROUP) -> None:
    """Lowest priority for this process and, when it leads a session of its own, for the session's scheduling group.

    When it leads none, others share its group: then only its own niceness changes. Where the kernel has no groups, or
    refuses, the process goes on with its niceness alone.
    """
    os.nice(NICE)
    if os.getsid(0) != os.getpid():
        return
    for _ in range(_TRIES):
        try:
            group.write_text(str(NICE), encoding="ascii")
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                return
            time.sleep(_PAUSE_S)
