"""Where a load test may be aimed: loopback, or a host that was named for it. Anything else is refused.

A load test against the wrong address is an attack on somebody. So the name is resolved once, every address is checked,
and the connections then go to exactly these addresses: a name that resolves to something else later changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from slo.errors import ConfigError

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses as text. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Aim:
    """A checked target. addresses: where connections go, whatever the name resolves to later."""

    url: str
    host: str
    port: int
    addresses: tuple[str, ...]


def resolve(host: str, port: int) -> Sequence[str]:
    """Addresses of a host, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def take_aim(url: str, allowed_hosts: Sequence[str] = (), lookup: Resolve = resolve) -> Aim:
    """Return the target of a load test.

    allowed_hosts: host names or addresses that may be loaded beside loopback, exactly as they stand in the URL.

    Raises:
        ConfigError: no http(s) URL, a name that cannot be resolved, or an address that is not allowed.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("URL", url, f"write http://host:port/path ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("URL", url, "write http://host:port/path")
    if parts.username or parts.password:
        raise ConfigError("URL", f"{parts.scheme}://...@{host}", "name the variable with the token in --token-env")
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = tuple(lookup(host, port))
    except (OSError, UnicodeError) as error:
        raise ConfigError("URL", host, f"cannot be resolved ({error}); check the name") from error
    if not addresses:
        raise ConfigError("URL", host, "has no address; check the name")
    if host.lower() not in {allowed.lower() for allowed in allowed_hosts}:
        outside = [address for address in addresses if not _is_loopback(address)]
        if outside:
            raise ConfigError(
                "URL", host,
                f"resolves to {outside[0]}, which is not loopback; name it with --allow-host {host} if you may load it",
            )  # fmt: skip
    return Aim(url, host, port, addresses)


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)
