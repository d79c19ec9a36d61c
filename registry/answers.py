"""The whole body of an HTTP answer, and what is said when there is none. For the clients of this package."""

from __future__ import annotations

import aiohttp

from registry.errors import RegistryUnreachable


async def read_whole(response: aiohttp.ClientResponse, most_bytes: int, place: str) -> bytes:
    """All of it, however many pieces it comes in.

    Raises:
        RegistryUnreachable: more than `most_bytes`.
    """
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > most_bytes:
            raise RegistryUnreachable(f"{place}: an answer of more than {most_bytes >> 20} MiB; ask for less at once")
    return bytes(data)


def why(error: Exception) -> str:
    """The first line of what went wrong, without the words of the library around it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.os_error.strerror or type(error.os_error).__name__})"
    return (str(error) or type(error).__name__).splitlines()[0]
