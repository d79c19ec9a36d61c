"""Every admin route by every method and every kind of caller; what is answered, and what is refused."""

from __future__ import annotations

import base64
import json
import logging
from hashlib import sha256
from html.parser import HTMLParser

import anyio
import pytest

from guard.admin.access import Refusal
from guard.admin.api import COMMANDS
from guard.admin.pages import CONTENT_SECURITY_POLICY, STYLE, text
from guard.admin.shield import ALERTS_BYTES, ALERTS_PATH, BODY_BYTES, BODY_S, OFF
from slo.clock import LoopClock
from slo.errors import ConfigError, RefusedError, SourceError, UpstreamError
from tests.conftest import VIRTUAL
from tests.unit.admin_helpers import TOKEN, Answer, Site, call

pytestmark = pytest.mark.anyio

READ = (
    "/", "/status", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json", "/api/v1/slo", "/api/v1/release",
    "/api/v1/exchanges", "/api/v1/incidents", "/api/v1/incidents/inc1", "/api/v1/incidents/inc1/postmortem",
    "/api/v1/drift", "/api/v1/baseline", "/api/v1/config", "/api/v1/stats", "/api/v1/gate",
)  # fmt: skip
WRITE = (*(f"/api/v1/release/{name}" for name in COMMANDS), "/api/v1/incidents/inc1/close", ALERTS_PATH)
METHODS = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "PROPFIND", "get")
DELIVERY = {
    "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "guard",
    "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example",
    "alerts": [{"status": "firing", "labels": {"alertname": "HighErrorRate"}, "annotations": {"summary": "bad"},
                "startsAt": "2025-06-15T15:06:40Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prom.example/graph", "fingerprint": "abc123"}],
}  # fmt: skip


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


def fresh(number: int) -> str:
    """An address of its own, so that the throttle of one try does not answer the next."""
    return f"10.1.{number // 250}.{number % 250}"


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


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8801", "", "localhost@evil.example"])
async def test_a_host_that_is_not_on_the_list_is_refused_on_every_route_and_method(host: str) -> None:
    site = Site()
    for path in (*READ, *WRITE):
        for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
            answer = await site.ask(method, path, host=host, token=TOKEN)
            assert (answer.status, answer.error) == (403, "host_not_allowed")
    assert site.backend.commands == []


async def test_no_host_or_two_hosts_are_refused() -> None:
    site = Site()
    assert (await site.ask("GET", "/healthz", host=None)).status == 400
    assert (await site.ask("GET", "/healthz", headers={"Host": "localhost"})).status == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "file://"])
async def test_pages_of_other_origins_are_refused_on_every_route_and_method(origin: str) -> None:
    site = Site()
    for path in (*READ, *WRITE):
        for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
            answer = await site.ask(method, path, token=TOKEN, headers={"Origin": origin})
            assert (answer.status, answer.error) == (403, "origin_not_allowed")
    assert site.backend.commands == []
    assert (await site.ask("GET", "/api/v1/slo", headers={"Origin": "http://localhost:8801"})).status == 200


async def test_preflights_get_no_permission() -> None:
    answer = await Site().ask("OPTIONS", WRITE[0], headers={"Access-Control-Request-Method": "POST"})
    assert answer.status == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "path",
    ["/api/v1/%72elease/start", "/api//v1/slo", "/api/v1/../v1/slo", "/api/v1/incidents/a b", "/metrics%00", "/\u00e9"],
)
async def test_a_path_has_one_spelling(path: str) -> None:
    answer = await Site().ask("GET", path)
    assert (answer.status, answer.error) == (400, "bad_request")


async def test_ambiguous_framing_and_encoded_bodies_are_refused() -> None:
    site = Site()
    both = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    assert (await site.ask("POST", WRITE[0], {}, token=TOKEN, headers=both)).error == "bad_framing"
    encoded = await site.ask("POST", WRITE[0], b"\x1f\x8b", token=TOKEN, headers={"Content-Encoding": "gzip"})
    assert (encoded.status, encoded.error) == (415, "encoded_request")


async def test_bodies_have_a_size_with_and_without_content_length() -> None:
    site = Site()
    for path, limit in ((WRITE[0], BODY_BYTES), (ALERTS_PATH, ALERTS_BYTES)):
        declared = await site.ask("POST", path, b"{}", token=TOKEN, headers={"Content-Length": str(limit + 1)})
        assert (declared.status, declared.error) == (413, "too_large")
        chunked = await site.ask("POST", path, b" " * (limit + 1), token=TOKEN)
        assert (chunked.status, chunked.error) == (413, "too_large")
    assert (await site.ask("POST", WRITE[0], b"{}", token=TOKEN, headers={"Content-Length": "-1"})).status == 413
    large = DELIVERY | {"alerts": DELIVERY["alerts"] * 10_000}  # type: ignore[operator]
    assert 1_000_000 < len(json.dumps(large)) < ALERTS_BYTES
    assert (await site.ask("POST", ALERTS_PATH, large, token=TOKEN)).json["duplicate_count"] == 9_999


async def test_a_body_that_never_ends_is_given_up_in_virtual_time() -> None:
    site = Site()
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        await anyio.sleep(1)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "POST", "path": WRITE[0], "raw_path": WRITE[0].encode(), "query_string": b"",
             "headers": headers, "client": ("10.0.0.1", 1), "http_version": "1.1", "scheme": "http"}  # fmt: skip
    began_s = anyio.current_time()
    await site.app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert anyio.current_time() - began_s == BODY_S


async def test_a_body_that_is_not_declared_as_json_is_refused() -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = await Site().ask("POST", WRITE[0], b"{}", token=TOKEN, headers={"content-type": kind})
        assert (answer.status, answer.error) == (415, "not_json")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"{", "JSON"), (b"[]", "body"), (b'{"versio":"v2"}', "versio"), (b'{"advance":"always"}', "advance"),
        (b'{"expected_epoch":-1}', "expected_epoch"), (b'{"force":"maybe"}', "force"),
        (b'{"version":"' + b"x" * 500 + b'"}', "version"), (b"\xff\xfe", "JSON"),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_one_line_that_names_the_place(body: bytes, place: str) -> None:
    site = Site()
    answer = await site.ask("POST", "/api/v1/release/start", body, token=TOKEN)
    assert answer.status == 400
    assert place in answer.json["error"]["message"]
    assert site.backend.commands == []


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


async def test_every_answer_carries_the_headers_that_keep_it_inert() -> None:
    site = Site()
    answers = [await site.ask("GET", path) for path in (*READ, "/nothing")]
    answers.append(await site.ask("POST", WRITE[0], {}))
    answers.append(await site.ask("GET", "/", host="evil.example"))
    for answer in answers:
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY


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


async def test_alerts_are_stored_once_however_often_they_come() -> None:
    site = Site()
    assert (await site.ask("POST", ALERTS_PATH, DELIVERY, token=TOKEN)).json == {
        "stored_count": 1,
        "duplicate_count": 0,
        "truncated_count": 0,
    }
    assert (await site.ask("POST", ALERTS_PATH, DELIVERY, token=TOKEN)).json["duplicate_count"] == 1
    (alert,) = site.backend.batches[0].alerts
    assert alert.key == ("abc123", "2025-06-15T15:06:40Z", "firing")
    assert alert.labels == {"alertname": "HighErrorRate"}
    assert alert.generator_url == "http://prom.example/graph"
    resolved = DELIVERY | {"alerts": [DELIVERY["alerts"][0] | {"status": "resolved"}]}  # type: ignore[index]
    assert (await site.ask("POST", ALERTS_PATH, resolved, token=TOKEN)).json["stored_count"] == 1


@pytest.mark.parametrize(
    "body",
    [{"version": "4", "alerts": []}, {"version": "4", "alerts": [{}]}, {"version": "4", "alerts": [{"new_field": 1}]},
     {"version": "4", "alerts": [{"labels": {"alertname": "Unheard of"}, "status": "strange"}], "more": {}}],
)  # fmt: skip
async def test_an_alert_that_nobody_knows_is_never_refused(body: dict[str, object]) -> None:
    assert (await Site().ask("POST", ALERTS_PATH, body, token=TOKEN)).status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", {"alerts": []}, {"version": "3", "alerts": []}, {"version": "4", "alerts": "x"}]
)
async def test_what_is_no_delivery_is_refused_in_one_line(body: object) -> None:
    answer = await Site().ask("POST", ALERTS_PATH, body, token=TOKEN)
    assert (answer.status, answer.error) == (400, "invalid")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RefusedError("full", "no"), ZeroDivisionError("x")])
async def test_alerts_that_cannot_be_stored_are_asked_for_again(error: Exception) -> None:
    site = Site()
    site.backend.error = error
    answer = await site.ask("POST", ALERTS_PATH, DELIVERY, token=TOKEN)
    assert (answer.status, answer.error) == (503, "not_stored")


XSS = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    '"><svg onload=alert(1)>',
    "</style><script>alert(1)</script>",
    "</td></table><iframe src=//evil.example>",
    "javascript:alert(1)",
    "' onmouseover='alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "\u202e<b>\x1b[31m\x00",
]
ALLOWED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "small", "p", "span", "div", "table", "thead",
    "tbody", "tr", "th", "td", "code", "a",
}  # fmt: skip


class Elements(HTMLParser):
    """Collects what a browser would see as elements and as words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("words", XSS)
async def test_hostile_text_is_shown_as_text_on_the_status_page(words: str) -> None:
    page = (await Site(words=words).ask("GET", "/status")).body.decode()
    seen = Elements(page)
    assert {tag for tag, _ in seen.tags} <= ALLOWED_TAGS
    for tag, attributes in seen.tags:
        assert set(attributes) <= {"href", "class", "charset", "lang", "content", "name", "http-equiv"}, tag
        assert (attributes.get("href") or "/").startswith("/")
    assert sum("http-equiv" in attributes for _, attributes in seen.tags) == 1
    harmless = "".join(ch if ch.isprintable() else "\ufffd" for ch in words)
    assert seen.words.count(harmless) >= 10
    assert not any(ch in page for ch in "\x00\x1b\u202e")


async def test_the_pages_ask_nobody_else_for_anything() -> None:
    site = Site()
    for path in ("/status", "/docs"):
        page = (await site.ask("GET", path)).body.decode()
        for tag, attributes in Elements(page).tags:
            assert tag not in {"script", "link", "img", "iframe", "object", "form"}
            assert "src" not in attributes
            assert "//" not in (attributes.get("href") or "")
        style = page.partition("<style>")[2].partition("</style>")[0]
        assert style == STYLE
        assert base64.b64encode(sha256(style.encode()).digest()).decode() in CONTENT_SECURITY_POLICY
        assert "url(" not in style
        assert "@import" not in style


async def test_the_reference_names_every_route_with_its_token_and_answer() -> None:
    site = Site()
    spec = (await site.ask("GET", "/openapi.json")).json
    page = (await site.ask("GET", "/docs")).body.decode()
    for path in (*READ, *WRITE):
        if path in ("/", "/status", "/docs", "/openapi.json"):
            continue
        template = path.replace("inc1", "{incident_id}")
        assert template in spec["paths"]
        assert template in page
    for path in WRITE:
        assert spec["paths"][path.replace("inc1", "{incident_id}")]["post"]["security"] == [{"bearer": []}]
    assert spec["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert page.count("Needs <code>Authorization: Bearer TOKEN</code>") == len(WRITE)


async def test_answers_have_the_shape_that_the_reference_promises() -> None:
    site = Site()
    spec = (await site.ask("GET", "/openapi.json")).json
    for path in READ:
        operation = spec["paths"].get(path.replace("inc1", "{incident_id}"), {}).get("get")
        schema = (operation or {}).get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
        if "schema" not in schema:
            continue
        shape = spec["components"]["schemas"][schema["schema"]["$ref"].rpartition("/")[2]]
        assert set((await site.ask("GET", path)).json) == set(shape["properties"]), path


async def test_the_reference_names_every_way_to_be_refused() -> None:
    site = Site()
    spec = (await site.ask("GET", "/openapi.json")).json
    assert "HTTPValidationError" not in spec["components"]["schemas"]
    operations = [operation for methods in spec["paths"].values() for operation in methods.values()]
    assert len(operations) > 20
    for operation in operations:
        statuses = set(operation["responses"])
        assert statuses >= {"400", "403", "404", "408", "413", "415", "500", "503"}
        assert "422" not in statuses
        assert (statuses >= {"401", "409", "429"}) or not operation.get("security")
    refused = await site.ask("POST", "/api/v1/release/start")
    assert set(refused.json["error"]) == set(spec["components"]["schemas"]["Error"]["properties"]["error"]["required"])


async def test_a_request_in_many_small_pieces_is_one_request() -> None:
    site = Site()
    headers = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {TOKEN}".encode()),
        (b"content-type", b"application/json"),
    ]
    answer: Answer = await call(site.app, "POST", "/api/v1/release/start", headers, b'{"version": "v2"}', chunk_bytes=1)
    assert answer.status == 200
    assert site.backend.commands[0][1].version == "v2"


def test_long_cells_are_cut() -> None:
    assert text("x" * 1000) == "x" * 300 + "\u2026"
