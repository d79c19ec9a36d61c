"""The HTTP client of what is no upstream: it connects to addresses that a name of the configuration may have, only.

The address that was looked at is the one that is called; a name that points inside by the next lookup reaches nothing.
"""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from guard.limits import Egress
from slo.dialling import not_allowed


class CheckedNames(AbstractResolver):
    """Lookups whose answers pass through `egress`; addresses written in the configuration are not looked up."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._names = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError: no such name, or none of its addresses is one that it may have."""
        found = await self._names.resolve(host, port, family)
        allowed = [one for one in found if self._egress.permits(host, one["host"])]
        if found and not allowed:
            raise OSError(None, not_allowed(host, found[0]["host"]))
        return allowed

    async def close(self) -> None:
        await self._names.close()


def checked_connector(egress: Egress) -> aiohttp.TCPConnector:
    """For one session, which closes it."""
    return aiohttp.TCPConnector(resolver=CheckedNames(egress))
