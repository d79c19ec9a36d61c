"""What the admin listener refuses before it looks at a route: hosts, origins, paths, framing, bodies."""

from __future__ import annotations

import json

import anyio
import pytest

from guard.admin.pages import CONTENT_SECURITY_POLICY
from guard.admin.shield import ALERTS_BYTES, ALERTS_PATH, BODY_BYTES, BODY_S
from tests.conftest import VIRTUAL
from tests.unit.admin_helpers import DELIVERY, READ, TOKEN, WRITE, Answer, Site, call

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


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
