"""What everybody who registers a version does first."""

from __future__ import annotations

from registry.errors import RegistryRefused
from registry.port import RegistryPort


async def ensure_model(port: RegistryPort, name: str, owner: str, description: str) -> None:
    """Make the model unless it is there; one that somebody else made, in other words, is just as good.

    Raises:
        RegistryRefused, RegistryUnreachable: safe to repeat.
    """
    try:
        await port.create_model(name, owner, description)
    except RegistryRefused as error:
        if error.reason != "exists":
            raise
