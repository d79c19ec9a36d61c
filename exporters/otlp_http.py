"""The HTTP session of the OTLP exporters: it calls addresses that the receiver's name may have, and follows nobody.

Needs the `otel` extra, whose HTTP exporters send through `requests`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from slo.dialling import NotAllowed, Permits, dial

Tell = Callable[[str], None]


def checked_session(permits: Permits, tell: Tell) -> requests.Session:
    """For one exporter, which closes it. tell: why nothing could be sent, where the library would keep it to itself.

    Proxies and passwords (netrc) of the environment are left alone: a proxy would look the name up anew.
    """
    session = requests.Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(permits, tell))
    return session


class _Refused(Exception):
    """No address of the receiver may be called. No OSError, so that nobody tries again."""


class _Adapter(HTTPAdapter):
    def __init__(self, permits: Permits, tell: Tell) -> None:
        self._permits, self._tell = permits, tell
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _pools(self._permits)

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        """The library takes every status below 400 for success: what was sent to a login page would be lost unseen."""
        try:
            response = super().send(request, *args, **more)
        except _Refused as error:
            raise self._failure(str(error)) from error
        if 300 <= response.status_code < 400:
            response.close()
            raise self._failure(f"the receiver answers {response.status_code}, a redirect, which is not followed")
        return response

    def _failure(self, problem: str) -> requests.RequestException:
        self._tell(problem)
        return requests.RequestException(problem)


def _pools(permits: Permits) -> dict[str, type[HTTPConnectionPool]]:
    def dialled(connection: HTTPConnection) -> socket.socket:
        timeout = connection.timeout
        try:
            timeout_s = float(timeout) if isinstance(timeout, int | float) else None
            host = connection.host.strip("[]")
            return dial(host, connection.port or connection.default_port, timeout_s, permits)
        except NotAllowed as error:
            raise _Refused(str(error)) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(connection, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(connection, str(error)) from error

    # urllib3 has no public place for a resolver; its own SOCKS connections replace the same method.
    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return dialled(self)

    class Tls(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return dialled(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}
