"""Connections to origins of the configuration for libraries that block: the address that was looked at is called.

A name is looked up once, each address it leads to is judged, and the socket goes to one of those. Whoever answers for
the name a moment later reaches nothing.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from urllib.parse import SplitResult

Permits = Callable[[str, str], bool]
"""(host of the configuration, address that it leads to) -> whether that may be called."""


class NotAllowed(OSError):
    """None of the addresses of a name is one that it may have; the text holds no secret."""


def not_allowed(host: str, address: str) -> str:
    """What is said then."""
    return f"{host} is at {address}, inside; name the network in limits.egress_networks if it is meant"


def dial(host: str, port: int, timeout_s: float | None, permits: Permits | None = None) -> socket.socket:
    """A socket connected to the first address of `host` that may be called and answers.

    timeout_s: for each address. permits: None lets every address pass.

    Raises:
        NotAllowed: there are addresses, and none may be called; nothing was connected to.
        OSError: no such name, or nobody answers.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host} is no host name") from error
    allowed = [one for one in found if permits is None or permits(host, str(one[4][0]))]
    if found and not allowed:
        raise NotAllowed(not_allowed(host, str(found[0][4][0])))
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in allowed:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def http_connection(url: SplitResult, timeout_s: float, permits: Permits | None = None) -> http.client.HTTPConnection:
    """To the origin of an http(s) URL; connects at its first request, which raises what `dial` raises.

    TLS verifies certificate and name with the system's authorities.
    """
    host, tls = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if tls else 80)
    if tls:
        return _Tls(host, port, timeout_s, permits)
    return _Plain(host, port, timeout_s, permits)


class _Plain(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, timeout_s: float, permits: Permits | None) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._timeout_s, self._permits = timeout_s, permits

    def connect(self) -> None:
        self.sock = dial(self.host, self.port, self._timeout_s, self._permits)


class _Tls(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int, timeout_s: float, permits: Permits | None) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=timeout_s, context=self._tls)
        self._timeout_s, self._permits = timeout_s, permits

    def connect(self) -> None:
        sock = dial(self.host, self.port, self._timeout_s, self._permits)
        self.sock = self._tls.wrap_socket(sock, server_hostname=self.host)
