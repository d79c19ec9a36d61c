"""A registry behind a real socket, and words for its tests."""

from __future__ import annotations

import threading

import pytest
import uvicorn

from registry.client import RegistryPort
from registry.errors import RegistryRefused
from registry.model import Stage
from registry.service import create_app
from registry.store import RegistryStore


class Served:
    """`create_app` behind a real socket, in a thread of its own."""

    def __init__(self, store: RegistryStore, token: str | None) -> None:
        config = uvicorn.Config(create_app(store, token=token), port=0, log_level="error", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self._socket.listen(64)  # connections queue from now on, before the server runs
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


async def with_versions(port: RegistryPort, **stages: Stage) -> None:
    await port.create_model("faq-bot", "sre", "answers")
    for name, stage in stages.items():
        await port.create_version("faq-bot", name)
        if stage is not Stage.NONE:
            await port.transition("faq-bot", name, Stage.STAGING, actor="t")
        if stage in (Stage.PRODUCTION, Stage.ARCHIVED):
            await port.transition("faq-bot", name, stage, actor="t")


async def stages(port: RegistryPort) -> dict[str, str]:
    return {v.version: v.stage.value for v in await port.versions("faq-bot")}


async def refusal(call: object) -> str:
    with pytest.raises(RegistryRefused) as caught:
        await call  # type: ignore[misc]
    assert "\n" not in str(caught.value)
    return caught.value.reason
