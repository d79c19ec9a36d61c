"""What the registry's HTTP says, byte by byte where clients depend on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from guard.cli import main
from guard.commands.registry import _is_loopback
from registry.store import RegistryStore
from tests.contracts.test_registry_contract import Served

pytestmark = pytest.mark.anyio


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Any]:
    store = RegistryStore(f"sqlite:///{tmp_path}/r.db", wall_s=lambda: 1_750_000_000.0)
    served = Served(store, token=None)
    async with aiohttp.ClientSession() as session:

        async def request(method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
            kind = {"data": body} if isinstance(body, (str, bytes)) else {"json": body}
            names = {k.replace("_", "-"): v for k, v in headers.items()}
            async with session.request(method, URL(served.url + path, encoded=True), headers=names, **kind) as response:
                return response.status, await response.json(), response.headers

        yield request
    served.stop()
    store.close()


async def test_the_paths_of_the_contract(call: Any) -> None:
    assert (await call("GET", "/healthz"))[:2] == (200, {"status": "ok"})
    status, model, _ = await call("POST", "/models", {"name": "kb", "owner": "ann", "description": "d"})
    assert status == 201
    assert model == {"name": "kb", "owner": "ann", "description": "d", "created_s": 1_750_000_000.0}
    assert (await call("GET", "/models"))[1] == [model]
    for version in ("1-kb+1", "2-kb+2"):
        assert (await call("POST", "/models/kb/versions", {"version": version, "meta": {"dim": 384}}))[0] == 201
        step = {"to_stage": "Staging", "actor": "ann"}
        assert (await call("POST", f"/models/kb/versions/{version}/transition", step))[0] == 200
    status, moved, _ = await call(
        "POST", "/models/kb/versions/2-kb%2B2/transition", {"to_stage": "Production", "actor": "ann"}
    )
    assert (status, moved["version"]["stage"], moved["repeated"]) == (200, "Production", False)
    assert moved["moves"] == [
        {"version": "2-kb+2", "action": "promote", "from_stage": "Staging", "to_stage": "Production"}
    ]
    assert (await call("GET", "/models/kb/production"))[1]["version"] == "2-kb+2"
    newest = (await call("GET", "/audit"))[1][0]
    assert newest == {
        "id": 6,
        "time": "2025-06-15T15:06:40.000000Z",
        "action": "promote",
        "actor": "ann",
        "model": "kb",
        "version": "2-kb+2",
        "from": "Staging",
        "to": "Production",
        "detail": "",
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/models", {"name": "Bad Name"}, 422, "invalid"),
        ("POST", "/models", {"name": "m", "extra": 1}, 422, "invalid"),
        ("POST", "/models", {"name": 5}, 422, "invalid"),
        ("POST", "/models", "{not json", 422, "invalid"),
        ("POST", "/models", [], 422, "invalid"),
        ("GET", "/models/ghost/versions", None, 404, "unknown_model"),
        ("GET", "/models/ghost/production", None, 404, "unknown_model"),
        ("GET", "/models/..%2fetc/versions", None, 404, "no_route"),
        ("POST", "/models/m/versions/v/transition", {"to_stage": "Live", "actor": "a"}, 422, "invalid"),
        ("POST", "/models/m/versions/v/transition", {"to_stage": "Staging"}, 422, "invalid"),
        ("GET", "/control/ghost", None, 404, "unknown_service"),
        ("PUT", "/control/s", {"epoch": 1, "stable": "v1"}, 428, "precondition_required"),
        ("DELETE", "/models", None, 405, "method_not_allowed"),
        ("GET", "/nothing", None, 404, "no_route"),
        ("GET", "/audit?limit=0", None, 422, "invalid"),
        ("POST", "/models", "x" * 70_000, 413, "too_large"),
    ],
)
async def test_bad_input_is_one_line(call: Any, method: str, path: str, body: object, status: int, reason: str) -> None:
    got, answer, _ = await call(method, path, body, content_type="application/json")
    assert (got, answer["error"]["type"]) == (status, reason)
    assert "\n" not in answer["error"]["message"]
    assert len(answer["error"]["message"]) > 5


async def test_control_is_written_with_the_epoch_that_was_read(call: Any) -> None:
    body = {"epoch": 1, "stable": "v1", "canary": "v2", "canary_ratio": 0.1}
    status, _, headers = await call("PUT", "/control/faq-bot", body, if_match="0")
    assert (status, headers["etag"]) == (200, '"1"')
    etag = (await call("GET", "/control/faq-bot"))[2]["etag"]
    assert (await call("PUT", "/control/faq-bot", body | {"epoch": 2, "canary_ratio": 0}, if_match=etag))[0] == 200
    status, answer, _ = await call("PUT", "/control/faq-bot", body | {"epoch": 2}, if_match=etag)
    assert (status, answer["error"]["type"]) == (409, "conflict")
    assert "epoch 2" in answer["error"]["message"]
    assert (await call("PUT", "/control/faq-bot", body, if_match="*"))[0] == 422


@pytest.mark.parametrize(
    "path",
    [
        "/models/%2e%2e/versions",
        "/models/%252e%252e/versions",
        "/models/..%2fx/versions",
        "/models/kb%00/versions",
        "/models/kb/versions/%2e%2e%2fx",
        "/models/kb/versions/%252e",
        "/models/kb/aliases/..%2f..%2fetc",
        "/models/kb/aliases/%2e",
        "/models/KB/aliases",
        "/models/kb/aliases/a%0a",
    ],
)
async def test_a_path_is_decoded_once_and_leads_nowhere_else(call: Any, path: str) -> None:
    await call("POST", "/models", {"name": "kb"})
    status, answer, _ = await call("GET", path)
    assert status in (404, 422)
    assert answer["error"]["type"] in ("invalid", "no_route", "bad_name")


DEEP = "[" * 300 + "]" * 300


@pytest.mark.parametrize("value", [DEEP, '"\\ud800"', '{"\\udfff": 1}'], ids=["deep", "half-character", "half-name"])
async def test_what_could_never_be_shown_again_is_refused_and_the_list_stays_readable(call: Any, value: str) -> None:
    await call("POST", "/models", {"name": "kb"})
    await call("POST", "/models/kb/versions", {"version": "v1"})
    json = {"content_type": "application/json"}
    bodies = {
        "/models/kb/versions": f'{{"version": "v2", "meta": {{"a": {value}}}}}',
        "/models/kb/versions/": f'{{"version": "v3", "lineage": {{"parameters": {{"a": {value}}}}}}}',
        "/models/kb/versions/v1/evaluations": f'{{"name": "gate", "actor": "ann", "result": {{"a": {value}}}}}',
    }
    for path, body in bodies.items():
        status, answer, _ = await call("POST", path.rstrip("/"), body, **json)
        assert (status, answer["error"]["type"]) == (422, "invalid")
    assert [v["version"] for v in (await call("GET", "/models/kb/versions"))[1]] == ["v1"]
    assert (await call("GET", "/models/kb/versions/v1/evaluations"))[:2] == (200, [])


async def test_an_epoch_that_is_no_count_is_refused_in_one_line(call: Any) -> None:
    await call("POST", "/models", {"name": "kb"})
    await call("POST", "/models/kb/versions", {"version": "v1"})
    body = {"to_stage": "Staging", "actor": "ann", "epoch": 10**30}
    status, answer, _ = await call("POST", "/models/kb/versions/v1/transition", body)
    assert (status, answer["error"]["type"]) == (422, "invalid")


async def test_a_key_of_another_request_is_a_conflict_and_never_a_silent_repetition(call: Any) -> None:
    for model in ("kb", "adapter"):
        await call("POST", "/models", {"name": model})
        for version in ("v1", "v2"):
            await call("POST", f"/models/{model}/versions", {"version": version})
    staged = {"to_stage": "Staging", "actor": "ci", "key": "build-17"}
    gate = {"name": "gate", "actor": "ci", "key": "build-17", "result": {"blocks": ["Production"]}}
    assert (await call("POST", "/models/kb/versions/v1/transition", staged))[1]["repeated"] is False
    assert (await call("POST", "/models/kb/versions/v1/transition", staged))[1]["repeated"] is True
    for path, body in (
        ("/models/adapter/versions/v1/transition", staged),
        ("/models/kb/versions/v2/transition", staged),
        ("/models/kb/versions/v1/evaluations", gate),
    ):
        status, answer, _ = await call("POST", path, body)
        assert (status, answer["error"]["type"]) == (409, "conflict"), path
        assert "build-17" in answer["error"]["message"]
    later = gate | {"key": "build-18"}
    assert len((await call("POST", "/models/kb/versions/v1/evaluations", later))[1]) == 1
    assert (await call("POST", "/models/adapter/versions/v1/evaluations", later))[0] == 409


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.7:0", "registry.example:0"])
def test_open_writes_are_not_offered_to_a_network(
    listen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "r.sqlite"
    assert main(["registry", "serve", "--listen", listen, "--database", f"sqlite:///{place}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "name the token of writes with --token-env" in said
    assert not place.exists()


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
                                                ("localhost", True), ("", False), ("::", False)])  # fmt: skip
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert _is_loopback(host) is loopback
