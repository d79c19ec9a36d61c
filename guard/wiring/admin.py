"""The second listener: console, status, release commands, metrics, alerts coming in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from guard.admin.api import create_admin_app
from guard.admin.server import AdminHandle, serve_admin
from guard.backend import GuardBackend
from guard.cache_backend import CacheBackend
from guard.settings import split_host_port

if TYPE_CHECKING:
    from guard.parts import Parts

log = logging.getLogger("sft-guard")


async def open_admin(guard: Parts) -> tuple[AdminHandle, str]:
    """The open listener, and its host:port.

    Raises:
        ConfigError: the address is taken.
    """
    file = guard.settings.file
    host, port = split_host_port(file.listen.admin)
    app = create_admin_app(
        GuardBackend(guard),
        token=guard.settings.admin_token,
        allowed_hosts=file.admin.allowed_hosts,
        clock=guard.clock,
        on_refusal=lambda refusal: log.warning("admin: refused %s", refusal),
        cache=CacheBackend(guard),
    )
    handle = await serve_admin(app, host, port)
    return handle, f"{host}:{handle.port}"
