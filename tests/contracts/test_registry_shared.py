"""Several services on one registry: each has a document, a model and a pointer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.release.pointer import ReleaseRegistry
from guard.settings import load_settings
from guard.wiring import Guard
from registry.local import LocalRegistry
from registry.model import Stage
from registry.store import RegistryStore
from slo.types import Version
from tests.registry_kit import Served
from tests.release_kit import inline

GUARD = """\
service: {service}
routes:
  - {{name: chat, path: /v1/chat/completions, adapter: openai-chat}}
versions:
  v1: {{upstreams: ["http://127.0.0.1:8810"], model: {service}, kb: "1"}}
  v2: {{upstreams: ["http://127.0.0.1:8811"], model: {service}, kb: "2"}}
release: {{stable: v1}}
registry: {{url: "{url}"}}
checks: {{enabled: false}}
"""
SLO = """\
service: {service}
objectives:
  - {{name: up, indicator: sft_availability_success_rate, window: 1h, threshold: {{absolute: 90%}}}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RegistryStore]:
    made = RegistryStore(f"sqlite:///{tmp_path}/registry.db")
    yield made
    made.close()


def guard_of(directory: Path, service: str, url: str) -> Guard:
    directory.mkdir()
    (directory / "guard.yaml").write_text(GUARD.format(service=service, url=url), encoding="utf-8")
    (directory / "slo.yaml").write_text(SLO.format(service=service), encoding="utf-8")
    return Guard(load_settings(directory / "guard.yaml", {}))


def test_a_promotion_of_one_service_moves_no_other_ones_pointer(tmp_path: Path, store: RegistryStore) -> None:
    served = Served(store, token=None)

    async def release(service: str, *, promote: bool) -> None:
        guard = guard_of(tmp_path / service, service, served.url)
        try:
            controller = guard.release.open()
            controller.restore()
            await controller.recover()
            if promote:
                await controller.start("v2", actor="ann")
                await controller.promote(actor="ann")
        finally:
            await guard.stop(drain=False)

    try:
        asyncio.run(release("faq-bot", promote=True))
        asyncio.run(release("hr-bot", promote=False))
    finally:
        served.stop()
    assert {m.name for m in store.models()} == {"faq-bot", "hr-bot"}
    found = {name: store.production(name) for name in ("faq-bot", "hr-bot")}
    assert {name: v and v.version for name, v in found.items()} == {"faq-bot": "v2", "hr-bot": "v1"}
    assert store.version("hr-bot", "v1").meta["model"] == "hr-bot"


@pytest.mark.anyio
async def test_names_that_read_the_same_when_joined_are_not_the_same_request(store: RegistryStore) -> None:
    port = LocalRegistry(store, inline)
    await ReleaseRegistry(port, "faq").ensure(Version("bot-v1"), Stage.PRODUCTION)
    await ReleaseRegistry(port, "faq-bot").ensure(Version("v1"), Stage.PRODUCTION)
    assert [v and v.version for v in (store.production("faq"), store.production("faq-bot"))] == ["bot-v1", "v1"]
