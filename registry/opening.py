"""One address, the right kind of registry behind the port."""

from __future__ import annotations

from registry.client import RegistryClient
from registry.local import LocalRegistry
from registry.port import RegistryPort
from registry.store import RegistryStore

MLFLOW = "mlflow+"
FORMS = "http(s)://HOST:PORT, sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE, or mlflow+http(s)://HOST:PORT"


def open_registry(url: str, *, token: str | None = None, timeout_s: float = 10.0) -> RegistryPort:
    """Return the registry at `url`, which is one of `FORMS`. Close it when done.

    Raises:
        RegistryRefused: an address that cannot be one. RegistryUnreachable: a database that cannot be opened.
    """
    if url.startswith(MLFLOW):
        from registry.mlflow import MlflowRegistry

        return MlflowRegistry(url.removeprefix(MLFLOW), token=token, timeout_s=timeout_s)
    if url.startswith(("http://", "https://")):
        return RegistryClient(url, token=token, timeout_s=timeout_s)
    return LocalRegistry(RegistryStore(url))
