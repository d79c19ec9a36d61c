"""Every admin route by every method and every kind of caller; what is answered, and what is refused."""

from __future__ import annotations

import base64
import logging

import anyio
import pytest

from guard.admin.access import Refusal
from guard.admin.api import COMMANDS
from guard.admin.pages import CONTENT_SECURITY_POLICY
from guard.admin.shield import OFF
from slo.clock import LoopClock
from slo.errors import ConfigError, RefusedError, SourceError, UpstreamError
from tests.conftest import VIRTUAL
from tests.unit.admin_helpers import DELIVERY, METHODS, READ, TOKEN, WRITE, Site, fresh

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def test_every_route_can_be_read_without_a_token_and_only_read() -> None:
    site = Site()
    for number, path in enumerate(READ):
        assert (await site.ask("GET", path)).status == 200, path
        for offset, method in enumerate(METHODS):
            if (method, path) == ("POST", "/api/v1/gate"):
                continue
            refused = await site.ask(method, path, address=fresh(number * 10 + offset))
            assert refused.status == 401, (method, path)
            assert refused.error == "unauthorized"
    assert site.backend.commands == []


@pytest.mark.parametrize("role", ["no token", "wrong token", "empty", "basic", "two headers", "token in the query"])
async def test_no_state_changing_route_answers_a_caller_without_the_token(role: str) -> None:
    site = Site()
    basic = base64.b64encode(f"admin:{TOKEN}".encode()).decode()
    headers: list[tuple[str, str]] = {
        "no token": [],
        "wrong token": [("Authorization", f"Bearer {TOKEN}x")],
        "empty": [("Authorization", "Bearer ")],
        "basic": [("Authorization", f"Basic {basic}")],
        "two headers": [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
        "token in the query": [],
    }[role]
    query = f"token={TOKEN}&access_token={TOKEN}" if role == "token in the query" else ""
    for number, path in enumerate((*WRITE, "/api/v1/nothing", "/nothing")):
        for offset, method in enumerate(METHODS):
            answer = await site.ask(
                method, path, DELIVERY, headers=headers, query=query, address=fresh(number * 10 + offset)
            )
            assert answer.status == 401, (method, path)
            assert answer.headers["www-authenticate"] == 'Bearer realm="sft-guard"'
    assert site.backend.commands == []
    assert site.backend.batches == []
    assert len(site.refusals) == (len(WRITE) + 2) * len(METHODS)
    assert TOKEN not in repr(site.refusals)


async def test_with_the_token_every_command_reaches_the_backend_and_other_methods_do_not_exist() -> None:
    site = Site()
    for name in COMMANDS:
        body = {"version": "v2", "plan": "20% for 2h", "advance": "auto", "reason": "go", "actor": "ann\n<b>"}
        answer = await site.ask("POST", f"/api/v1/release/{name}", body, token=TOKEN)
        assert answer.status == 200
        assert answer.json["status"]["canary_ratio"] == 0.1
        told, command, actor = site.backend.commands[-1]
        assert (told, command.version, command.plan, command.advance) == (name, "v2", "20% for 2h", "auto")
        assert actor.startswith("annb (token ")
        assert TOKEN not in actor
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await site.ask(method, f"/api/v1/release/{name}", token=TOKEN)
            assert (answer.status, answer.error) == (405, "method_not_allowed")
    assert (await site.ask("POST", "/api/v1/release/drill", token=TOKEN)).json["mttr_s"] == 1.5
    assert (await site.ask("POST", "/api/v1/release/explode", {}, token=TOKEN)).error == "not_found"
    assert site.refusals == []


async def test_without_a_configured_token_changing_state_is_off() -> None:
    site = Site(token=None)
    for path in (*WRITE, "/metrics", "/nothing"):
        for method in METHODS:
            answer = await site.ask(method, path, DELIVERY, token=TOKEN)
            assert (answer.status, answer.json["error"]["message"]) == (404, OFF), (method, path)
    spec = (await site.ask("GET", "/openapi.json")).json
    assert not set(WRITE) & set(spec["paths"])
    for path in READ:
        assert (await site.ask("GET", path)).status == 200


async def test_reading_can_be_protected_too_except_for_probes_and_scrapes() -> None:
    site = Site(protect_reads=True)
    for number, path in enumerate(READ):
        free = path in ("/metrics", "/healthz", "/readyz")
        assert (await site.ask("GET", path, address=fresh(number))).status == (200 if free else 401), path
        assert (await site.ask("GET", path, token=TOKEN, address=fresh(number))).status == 200


async def test_five_wrong_tokens_in_a_minute_lock_their_address_out_in_virtual_time() -> None:
    site = Site(clock=LoopClock())
    for _ in range(5):
        assert (await site.ask("POST", WRITE[0], {}, token="wrong")).status == 401
    locked = await site.ask("POST", WRITE[0], {}, token=TOKEN)
    assert (locked.status, locked.error, locked.headers["retry-after"]) == (429, "too_many_failures", "60")
    assert (await site.ask("POST", WRITE[0], {}, token=TOKEN, address="10.9.9.9")).status == 200
    await anyio.sleep(59)
    assert (await site.ask("POST", WRITE[0], {}, token=TOKEN)).status == 429
    await anyio.sleep(1)
    assert (await site.ask("POST", WRITE[0], {}, token=TOKEN)).status == 200


async def test_refusals_are_told_with_a_name_for_the_token_but_not_the_token() -> None:
    site = Site()
    await site.ask("POST", "/api/v1/release/start", {}, token="guess-1")
    await site.ask("POST", "/api/v1/release/start", {}, host="evil.example")
    first, second = site.refusals
    assert (first.address, first.method, first.path, first.reason) == (
        "10.0.0.1", "POST", "/api/v1/release/start", "unauthorized",
    )  # fmt: skip
    assert len(first.token_id) == 8
    assert second == Refusal("10.0.0.1", "POST", "/api/v1/release/start", "host_not_allowed", "")


async def test_a_broken_audit_changes_nothing_for_the_caller() -> None:
    told: list[Refusal] = []

    def broken(refusal: Refusal) -> None:
        told.append(refusal)
        raise OSError("audit")

    assert (await Site(audit=broken).ask("POST", WRITE[0], {})).status == 401
    assert len(told) == 1


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RefusedError("conflict", "epoch 7 is not 6"), 409, "conflict"),
        (RefusedError("not_found", "no version v9"), 404, "not_found"),
        (ConfigError("plan", "1x", "write stages"), 400, "invalid"),
        (SourceError("blind"), 503, "unavailable"),
        (UpstreamError("registry down"), 503, "unavailable"),
        (OSError(28, "No space left on device: /secret/path"), 503, "unavailable"),
        (ZeroDivisionError("secret detail"), 500, "internal"),
    ],
)
async def test_faults_of_the_backend_have_a_status_and_reveal_nothing(
    error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    site.backend.error = error
    with caplog.at_level(logging.CRITICAL):
        answer = await site.ask("POST", "/api/v1/release/abort", {}, token=TOKEN)
    assert (answer.status, answer.error) == (status, kind)
    assert "secret" not in answer.body.decode()
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY


async def test_metrics_speak_the_format_that_was_asked_for() -> None:
    site = Site()
    plain = await site.ask("GET", "/metrics")
    openmetrics = await site.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics.body == b"# EOF\n"


async def test_readiness_is_a_status_and_health_is_not() -> None:
    site = Site()
    site.backend.is_ready = False
    ready = await site.ask("GET", "/readyz")
    assert (ready.status, ready.json) == (503, {"ready": False, "reasons": ["draining"]})
    assert (await site.ask("GET", "/healthz")).status == 200


async def test_an_incident_is_closed_with_a_reason_by_somebody() -> None:
    site = Site()
    path = "/api/v1/incidents/inc1/close"
    answer = await site.ask("POST", path, {"reason": "wrong\nindex ", "actor": "ann;"}, token=TOKEN)
    assert (answer.status, answer.json["changed"], answer.json["id"]) == (200, True, "inc1")
    ((_, reason, actor),) = site.backend.closed
    assert (reason, actor.split(" (")[0]) == ("wrong index", "ann")
    assert not (await site.ask("POST", path, {"reason": "again"}, token=TOKEN)).json["changed"]
    for body in ({}, {"reason": " "}, {"reason": "x" * 501}, {"reason": "x", "id": 1}):
        assert (await site.ask("POST", path, body, token=TOKEN)).error == "invalid", body
    unknown = await site.ask("POST", "/api/v1/incidents/inc2/close", {"reason": "x"}, token=TOKEN)
    assert (unknown.status, unknown.error) == (404, "unknown_incident")
    site.backend.error = RefusedError("busy", "the rollback of inc1 is not finished")
    assert (await site.ask("POST", path, {"reason": "x"}, token=TOKEN)).status == 409
    assert (await Site(token=None).ask("POST", path, {"reason": "x"})).status == 404


async def test_incidents_are_listed_shown_and_written_up() -> None:
    site = Site()
    (row,) = (await site.ask("GET", "/api/v1/incidents")).json["incidents"]
    assert (row["id"], row["title"]) == ("inc1", "v1.2.1 rolled back to v1.2.0 (hallucination)")
    detail = (await site.ask("GET", "/api/v1/incidents/inc1")).json
    assert detail["evidence"][0]["estimate"] == 0.08
    assert detail["differences"] == [{"part": "kb", "before": "a", "after": "b"}]
    report = await site.ask("GET", "/api/v1/incidents/inc1/postmortem")
    assert report.headers["content-type"] == "text/markdown; charset=utf-8"
    for path in ("/api/v1/incidents/inc2", "/api/v1/incidents/inc2/postmortem"):
        assert (await site.ask("GET", path)).error == "not_found"


@pytest.mark.parametrize(
    ("query", "status"), [("limit=1", 200), ("limit=0", 400), ("limit=9999", 400), ("limit=x", 400)]
)
async def test_the_list_of_exchanges_is_bounded(query: str, status: int) -> None:
    assert (await Site().ask("GET", "/api/v1/exchanges", query=query)).status == status


@pytest.mark.parametrize(("verdict", "status"), [("pass", 200), ("fail", 409), ("inconclusive", 409)])
async def test_the_gate_answers_argo_by_body_and_flagger_by_status(verdict: str, status: int) -> None:
    site = Site()
    site.backend.verdict = verdict
    argo = await site.ask("GET", "/api/v1/gate", query="release=abc123")
    assert argo.json == {"data": {"verdict": verdict, "reason": "", "release": "abc123"}}
    hook = await site.ask("POST", "/api/v1/gate", {"name": "faq-bot", "namespace": "bots", "phase": "Progressing"})
    assert (hook.status, hook.json["data"]["verdict"]) == (status, verdict)
