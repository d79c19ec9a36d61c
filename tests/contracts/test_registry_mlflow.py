"""MLflow's registry behind our port, against a local server that speaks its REST API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry.client import LocalRegistry, RegistryClient
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.mlflow import MlflowRegistry
from registry.model import Stage
from registry.opening import open_registry
from tests.mlflow_kit import FakeMlflow, refusal, walk

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    made = FakeMlflow(token="t0p")
    yield made
    made.stop()


async def test_stage_rules_aliases_lineage_and_evaluations(server: FakeMlflow) -> None:
    port = MlflowRegistry(server.url, token="t0p")
    await walk(port, "faq-kb")
    await port.close()
    assert {path.split("/mlflow/")[1].split("/")[0] for _, path in server.requests} == {
        "registered-models",
        "model-versions",
    }


async def test_the_pointer_is_what_the_alias_says_whatever_the_tags_say(server: FakeMlflow) -> None:
    port = MlflowRegistry(server.url, token="t0p")
    await port.create_model("m")
    for name in ("v1", "v2"):
        await port.create_version("m", name)
        await port.transition("m", name, Stage.STAGING, actor="a")
    await port.transition("m", "v1", Stage.PRODUCTION, actor="a")
    server.models["m"]["aliases"] = [{"alias": "champion", "version": "2"}]  # somebody moved it in MLflow's own console
    assert {v.version: v.stage for v in await port.versions("m")} == {"v1": Stage.STAGING, "v2": Stage.PRODUCTION}
    server.versions["m"].append({"name": "m", "version": "3", "creation_timestamp": 1})  # a version of somebody else
    assert len(await port.versions("m")) == 2
    await port.close()


async def test_a_failed_gate_closes_a_stage_here_too(server: FakeMlflow) -> None:
    port = MlflowRegistry(server.url, token="t0p")
    await port.create_model("m")
    await port.create_version("m", "v1")
    await port.evaluate("m", "v1", "lora-eval", {"blocks": ["Staging"], "evidence": ["too low"]}, actor="a")
    assert await refusal(port.transition("m", "v1", Stage.STAGING, actor="a")) == "gate_failed"
    await port.evaluate("m", "v1", "lora-eval", {"passed": True}, actor="a")
    await port.transition("m", "v1", Stage.STAGING, actor="a")
    await port.create_version("m", "v2")
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        await port.transition("m", "v2", stage, actor="a")
    await port.evaluate("m", "v1", "lora-eval", {"blocks": ["Production"]}, actor="a")
    back = port.transition("m", "v2", Stage.STAGING, actor="a", rollback_to="v1")
    assert await refusal(back) == "gate_failed"
    await port.transition("m", "v2", Stage.STAGING, actor="a", rollback_to="v1", force=True)
    assert {v.version: v.stage for v in await port.versions("m")} == {"v1": Stage.PRODUCTION, "v2": Stage.STAGING}
    await port.close()


async def test_refusals_and_outages_are_told_apart(server: FakeMlflow) -> None:
    stranger = MlflowRegistry(server.url, token="wrong")
    assert await refusal(stranger.models()) == "unauthorized"
    await stranger.close()
    port = MlflowRegistry(server.url, token="t0p")
    await port.create_model("m")
    await port.create_version("m", "v1")
    assert await refusal(port.set_alias("m", "latest", "v1", actor="a")) == "invalid"  # a word of MLflow's own
    server.fail_with = 503
    with pytest.raises(RegistryUnreachable, match="may be repeated"):
        await port.versions("m")
    await port.close()
    nobody = MlflowRegistry("http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(RegistryUnreachable, match="is the MLflow server up"):
        await nobody.models()
    await nobody.close()


async def test_one_address_opens_the_right_registry(tmp_path: object) -> None:
    assert isinstance(open_registry("mlflow+http://h:1"), MlflowRegistry)
    assert isinstance(open_registry("http://h:1"), RegistryClient)
    local = open_registry(f"sqlite:///{tmp_path}/r.db")
    assert isinstance(local, LocalRegistry)
    await local.close()
    with pytest.raises(RegistryRefused, match="mlflow"):
        open_registry("mlflow+file:///etc")
    with pytest.raises(RegistryUnreachable):
        open_registry("ftp://h")
