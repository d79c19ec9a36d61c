"""Which adapters are served, by the name a request asks for, and where their bytes come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora.adapter_files import Adapter, adapter_hash, read_directory
from lora.artifact import check_artifact
from rag.probing import probe_bytes
from slo.errors import ConfigError, RefusedError

SEALED = "sealed:"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")

OpenSealed = Callable[[str, str, str | None], Adapter]
"""Opens NAME, VERSION of the vault into memory, for whoever the token belongs to (None: for the server itself)."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model by name. handle: of its adapter; None is the base. sha256: as the registry knows it, "" for the base.

    source: as it was asked for; shown to those with the admin token only.
    """

    name: str
    handle: str | None
    group: str
    source: str
    sha256: str
    loaded_wall_s: float


@dataclass(frozen=True, slots=True)
class Sources:
    """Where adapters may come from. root: directories named at run time lie under it; None allows none.

    look: shown the source and files of each that is read. probe: a child that reads the files first; returns how it was
    kept from the network, which `isolated` is told.
    """

    open_sealed: OpenSealed | None = None
    root: Path | None = None
    look: Callable[[str, Mapping[str, bytes]], None] = lambda source, files: None
    probe: Callable[[Mapping[str, bytes]], str] = probe_bytes
    isolated: Callable[[str], None] = lambda isolation: None

    def read(self, source: str, token: str | None, *, anywhere: bool = False) -> tuple[Mapping[str, bytes], str]:
        """Files and hash of `sealed:NAME@VERSION` or of a directory. anywhere: whoever started the server asks.

        Raises:
            ConfigError: it cannot be named like this. RefusedError, DataError: as the vault, or no such directory.
        """
        if source.startswith(SEALED):
            name, at, version = source.removeprefix(SEALED).partition("@")
            if not at:
                raise ConfigError("lora_path", source[:200], "write sealed:NAME@VERSION such as sealed:hr-rules@v3")
            if self.open_sealed is None:
                raise ConfigError("lora_path", source[:200], "start the server with --vault and --keys")
            opened = self.open_sealed(name, version, token).files
            return self._examined(source, opened)
        return self._examined(source, read_directory(Path(source) if anywhere else self._within(source)))

    def _examined(self, source: str, files: Mapping[str, bytes]) -> tuple[Mapping[str, bytes], str]:
        check_artifact(files)
        self.isolated(self.probe(files))
        self.look(source, files)
        return files, adapter_hash(files)

    def _within(self, source: str) -> Path:
        if self.root is None:
            raise RefusedError(
                "bad_name", "this server takes adapters at run time from its vault only; --adapter-root DIR"
            )
        root = self.root.resolve()
        place = root if "\0" in source else (root / source).resolve()
        if not place.is_relative_to(root) or place == root:
            raise RefusedError("bad_name", f"lora_path: {source[:80]!r} is not under the adapters of this server")
        return place


def check_name(name: str, taken: Mapping[str, Served], *, replace: bool = False) -> None:
    """Refuse a model name that cannot be used.

    Raises:
        ConfigError: wrong form, the base's name, or loaded already.
    """
    if not NAME.fullmatch(name):
        raise ConfigError("lora_name", name[:80], "letters, digits and . _ - / : only, at most 128")
    known = taken.get(name)
    if known is not None and (known.handle is None or not replace):
        cure = (
            "it is the base model" if known.handle is None else 'it is loaded; unload it, or say "load_inplace": true'
        )
        raise ConfigError("lora_name", name, cure)
