"""MLflow's model registry as far as its REST API is used here: same paths, bodies, errors, paging and refusals.

Written against MLflow 3.17; `python -m tests.mlflow_kit http://HOST:PORT` runs the same walk against a real server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from registry.errors import RegistryRefused
from registry.mlflow import MlflowRegistry
from registry.model import Lineage, Stage

_ALIAS = re.compile(r"^[\w\-]*$")
_REGISTERED, _VERSIONS = "/api/2.0/mlflow/registered-models", "/api/2.0/mlflow/model-versions"


def refused(code: str, message: str, status: int = 400) -> JSONResponse:
    return JSONResponse({"error_code": code, "message": message}, status_code=status)


class FakeMlflow:
    """One server. `requests`: method and path of every call. page_size: smaller than asked for, to test paging."""

    def __init__(self, page_size: int = 2, token: str | None = None) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.fail_with: int | None = None
        self._page_size, self._token, self._now_ms = page_size, token, 1_750_000_000_000
        config = uvicorn.Config(self._app(), port=0, log_level="error", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self._socket.listen(16)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH", "DELETE"])
        async def any_call(path: str, request: Request) -> JSONResponse:
            self.requests.append((request.method, f"/{path}"))
            if self.fail_with:
                return JSONResponse({"error_code": "INTERNAL_ERROR", "message": "boom"}, status_code=self.fail_with)
            if self._token and request.headers.get("authorization") != f"Bearer {self._token}":
                return refused("UNAUTHENTICATED", "no valid token", 401)
            said = dict(request.query_params) if request.method == "GET" else json.loads(await request.body())
            return self._answer(request.method, f"/{path}", said)

        return app

    def _answer(self, method: str, path: str, said: dict[str, Any]) -> JSONResponse:
        self._now_ms += 1
        name = said.get("name", "")
        if (method, path) == ("GET", f"{_REGISTERED}/search"):
            return self._page("registered_models", list(self.models.values()), said)
        if (method, path) == ("GET", f"{_VERSIONS}/search"):
            name = said["filter"].removeprefix("name='").removesuffix("'")
            return self._page("model_versions", self.versions.get(name, [])[::-1], said)
        if (method, path) == ("POST", f"{_REGISTERED}/create"):
            if name in self.models:
                return refused("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists.")
            self.models[name] = said | {"creation_timestamp": self._now_ms, "aliases": []}
            self.versions[name] = []
            return JSONResponse({"registered_model": self.models[name]})
        if name not in self.models:
            return refused("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={name} not found", 404)
        if (method, path) == ("GET", f"{_REGISTERED}/get"):
            return JSONResponse({"registered_model": self.models[name]})
        if (method, path) == ("POST", f"{_REGISTERED}/set-tag"):
            return self._tag(self.models[name], said)
        if path == f"{_REGISTERED}/alias":
            return self._alias(method, self.models[name], said)
        if (method, path) == ("POST", f"{_VERSIONS}/create"):
            if urlsplit(said["source"]).scheme in ("", "file"):
                return refused("INVALID_PARAMETER_VALUE", f"Invalid model version source: '{said['source']}'.")
            number = str(len(self.versions[name]) + 1)
            made = said | {"version": number, "creation_timestamp": self._now_ms, "current_stage": "None"}
            self.versions[name].append(made)
            return JSONResponse({"model_version": made})
        if (method, path) == ("POST", f"{_VERSIONS}/set-tag"):
            found = next((v for v in self.versions[name] if v["version"] == said["version"]), None)
            return self._tag(found, said) if found else refused("RESOURCE_DOES_NOT_EXIST", "no such version", 404)
        return refused("ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'", 404)

    def _page(self, field: str, rows: list[dict[str, Any]], said: dict[str, Any]) -> JSONResponse:
        size = min(self._page_size, int(said["max_results"]))
        begin = int(said.get("page_token") or 0)
        more = {"next_page_token": str(begin + size)} if begin + size < len(rows) else {}
        # An empty list is left out, as protobuf's JSON does it.
        found = {field: rows[begin : begin + size]} if rows[begin : begin + size] else {}
        return JSONResponse({**found, **more})

    def _tag(self, row: dict[str, Any], said: dict[str, Any]) -> JSONResponse:
        if len(said["value"]) > 100_000:
            return refused("INVALID_PARAMETER_VALUE", "value exceeds 100000")
        row["tags"] = [t for t in row.get("tags", []) if t["key"] != said["key"]]
        row["tags"].append({"key": said["key"], "value": said["value"]})
        row["last_updated_timestamp"] = self._now_ms
        return JSONResponse({})

    def _alias(self, method: str, row: dict[str, Any], said: dict[str, Any]) -> JSONResponse:
        if not _ALIAS.match(said["alias"]) or re.match(r"^[vV]\d+$", said["alias"]) or said["alias"] == "latest":
            return refused("INVALID_PARAMETER_VALUE", f"Invalid alias name: '{said['alias']}'")
        row["aliases"] = [a for a in row["aliases"] if a["alias"] != said["alias"]]
        if method == "POST":
            if said["version"] not in [v["version"] for v in self.versions[row["name"]]]:
                return refused("RESOURCE_DOES_NOT_EXIST", "Model Version not found", 404)
            row["aliases"].append({"alias": said["alias"], "version": said["version"]})
        return JSONResponse({})


async def refusal(call: Any) -> str:
    try:
        await call
    except RegistryRefused as error:
        return error.reason
    raise AssertionError("it was not refused")


async def walk(port: MlflowRegistry, model: str) -> None:
    """The stage rules, aliases, lineage and evaluations; the same on the fake and on a real server."""
    assert await port.healthy()
    await port.create_model(model, "sre", "rules")
    assert (await port.create_model(model, "sre", "rules")).owner == "sre"
    assert await refusal(port.create_model(model, "bob", "rules")) == "exists"
    assert model in [m.name for m in await port.models()]
    made_of = Lineage("ann", "sha256:ab", "3fe2", "", {"profile": {"mean_tokens": 400.0}})
    names = [f"{n}-kb+175000000{n}" for n in range(4)]
    for name in names:
        meta = {"artifact_type": "KnowledgeBase", "dim": 384}
        made = await port.create_version(
            model, name, artifact_url="file:///kb.tar.gz", tags=("kb", "rag"), meta=meta, lineage=made_of
        )
        assert (made.tags, dict(made.meta), made.lineage) == (("kb", "rag"), meta, made_of)
        assert (made.stage, made.artifact_url) == (Stage.NONE, "file:///kb.tar.gz")
        same = await port.create_version(
            model, name, artifact_url="file:///kb.tar.gz", tags=("kb", "rag"), meta=meta, lineage=made_of
        )
        assert same == made
    assert await refusal(port.create_version(model, names[0], meta={"dim": 1})) == "exists"
    assert [v.version for v in await port.versions(model)] == names
    one, two, three, four = names
    assert await refusal(port.transition(model, one, Stage.PRODUCTION, actor="a")) == "illegal_transition"
    for name in (one, two, three):
        await port.transition(model, name, Stage.STAGING, actor="a")
    assert await port.production(model) is None
    await port.transition(model, one, Stage.PRODUCTION, actor="a", epoch=3, key="first")
    assert await port.transition(model, one, Stage.PRODUCTION, actor="a", key="first") == ()
    assert await refusal(port.transition(model, two, Stage.PRODUCTION, actor="a", epoch=2)) == "stale_epoch"
    assert await refusal(port.transition(model, two, Stage.PRODUCTION, actor="a", if_production=three)) == "conflict"
    moves = await port.transition(model, two, Stage.PRODUCTION, actor="a", if_production=one)
    assert [(m.version, m.action) for m in moves] == [(one, "demote"), (two, "promote")]
    assert await port.aliases(model) == {"champion": two, "previous": one}
    assert (await port.resolve(model, "champion")).version == two
    moves = await port.transition(model, two, Stage.STAGING, actor="guard", rollback_to=one)
    assert [(m.version, m.action) for m in moves] == [(two, "demote"), (one, "rollback")]
    assert await port.aliases(model) == {"champion": one}
    await port.transition(model, three, Stage.ARCHIVED, actor="a")
    assert await refusal(port.transition(model, three, Stage.STAGING, actor="a")) == "archived"
    assert {v.version: v.stage.value for v in await port.versions(model)} == {
        one: "Production", two: "Staging", three: "Archived", four: "None",
    }  # fmt: skip
    assert await port.set_alias(model, "candidate", two, actor="a", expected="") == {"candidate": two, "champion": one}
    assert await refusal(port.set_alias(model, "candidate", one, actor="a", expected="")) == "conflict"
    assert await refusal(port.set_alias(model, "champion", two, actor="a")) == "reserved_alias"
    assert await port.set_alias(model, "candidate", None, actor="a") == {"champion": one}
    await port.evaluate(model, two, "kb-gate", {"accepted": False}, actor="ann", key="k")
    found = await port.evaluate(model, two, "kb-gate", {"accepted": False}, actor="ann", key="k")
    assert [(e.name, e.actor, dict(e.result)) for e in found] == [("kb-gate", "ann", {"accepted": False})]
    assert await refusal(port.versions("ghost")) == "unknown_model"
    assert await refusal(port.version(model, "9")) == "unknown_version"
    for call in (port.audit(), port.control("faq-bot")):
        assert await refusal(call) == "unsupported"


async def _main(url: str, model: str) -> None:
    port = MlflowRegistry(url)
    await walk(port, model)
    await port.close()
    print(f"{url}: the walk passed")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "sft-guard-walk"))
