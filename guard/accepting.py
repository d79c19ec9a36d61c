"""The end of a listener."""

from __future__ import annotations

import asyncio
import select

_TURNS_MIN, _TURNS_MAX = 4, 4096


async def stop_accepting(server: asyncio.Server) -> None:
    """Close the listening sockets. Whom the kernel had let in by then is accepted, and known to its protocol on return.

    Closing would reset them. uvloop accepts one a turn, asyncio all, but makes the transport of an accepted socket a
    turn later, and fails, leaving the socket open for nobody, when the server has been closed in between.
    """
    loop = asyncio.get_running_loop()
    waiting = select.poll()
    for sock in server.sockets:
        waiting.register(sock.fileno(), select.POLLIN)
    for turn in range(_TURNS_MAX):
        if turn >= _TURNS_MIN and not waiting.poll(0):
            break
        await asyncio.sleep(0)
    for sock in server.sockets:
        loop.remove_reader(sock.fileno())  # uvloop does not know it: there accepting and transport are one step.
    await asyncio.sleep(0)
    server.close()
    await asyncio.sleep(0)
