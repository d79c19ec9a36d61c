"""The pages and the reference of the admin listener: what a browser sees of them, and that they say all."""

from __future__ import annotations

import base64
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from guard.admin.pages import CONTENT_SECURITY_POLICY, STYLE, text
from tests.conftest import VIRTUAL
from tests.unit.admin_helpers import READ, WRITE, Site

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


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
    guarded = [one for methods in spec["paths"].values() for one in methods.values() if one.get("security")]
    assert page.count("Needs <code>Authorization: Bearer TOKEN</code>") == len(guarded) > len(WRITE)


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


def test_long_cells_are_cut() -> None:
    assert text("x" * 1000) == "x" * 300 + "\u2026"
