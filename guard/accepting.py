"""The end of a listener."""

from __future__ import annotations

import asyncio

_LOOK_TURNS = 4  # until a loop has looked at its sockets and accepted: asyncio two, uvloop four


async def stop_accepting(server: asyncio.Server) -> None:
    """Close the listening sockets. Who had connected by then is served, and known to its protocol on return.

    Whom the kernel let in is accepted first; closing would reset them. asyncio makes the transport of an accepted
    socket a turn later, and fails, leaving the socket open for nobody, when the server has been closed in between.
    """
    loop = asyncio.get_running_loop()
    for _ in range(_LOOK_TURNS):
        await asyncio.sleep(0)
    for sock in server.sockets:
        loop.remove_reader(sock.fileno())  # uvloop does not know it: there accepting and transport are one step.
    await asyncio.sleep(0)
    server.close()
    await asyncio.sleep(0)
