"""What the console is sent, and that it has a word for everything it may be sent."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guard.admin import console, shapes
from guard.admin.console import INCIDENT_COUNT, snapshot
from guard.backend import GuardBackend
from guard.cache.savings import Savings
from guard.release.journal import JournalError
from guard.release.state import Phase
from slo.types import CheckResult, Compared, State
from tests.conftest import VIRTUAL
from tests.unit.admin_helpers import TOKEN, FakeBackend, Site
from tests.unit.exporters_helpers import ManualClock

pytestmark = pytest.mark.anyio

FOLDER = Path(console.__file__).parent
DAY_S = 86_400.0


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


class ManyIncidents(FakeBackend):
    """200 incidents, all closed but the oldest; or a journal that cannot be read."""

    failure: Exception | None = None

    async def incidents(self) -> shapes.IncidentList:
        if self.failure is not None:
            raise self.failure
        (row,) = (await super().incidents()).incidents
        rows = [replace(row, id=f"inc{n}", closed_wall_s=row.opened_wall_s + 1) for n in range(200)]
        rows[-1] = replace(rows[-1], closed_wall_s=None)
        return shapes.IncidentList(tuple(rows))


async def test_an_open_incident_is_shown_however_many_came_after_it() -> None:
    shown = json.loads(await snapshot(ManyIncidents()))["incidents"]
    assert [row["id"] for row in shown] == [*(f"inc{n}" for n in range(INCIDENT_COUNT)), "inc199"]


@pytest.mark.parametrize("failure", [JournalError("disk_fault", "reading failed"), OSError(5, "Input/output error")])
async def test_a_journal_that_cannot_be_read_takes_the_incidents_and_nothing_else(failure: Exception) -> None:
    backend = ManyIncidents()
    backend.failure = failure
    document = json.loads(await snapshot(backend))
    assert document["incidents"] is None  # not an empty list: nothing is known, which is not nothing
    assert document["slo"]["objectives"][0]["state"] == "breach"
    assert document["health"]["parts"]


async def test_what_the_cache_saved_today_is_not_that_of_another_day() -> None:
    clock = ManualClock()
    savings = Savings()
    for release, usd in (("r1", 1.5), ("r2", 0.25)):
        savings.row(clock.wall_s(), release).saved_usd = usd
    savings.row(clock.wall_s() - DAY_S, "r1").saved_usd = 8.0
    parts: Any = SimpleNamespace(
        cache=object(), clock=clock, kept_care=SimpleNamespace(care=SimpleNamespace(savings=savings))
    )
    assert await GuardBackend(parts).saved_usd() == 1.75
    clock.advance(DAY_S)  # a quiet night
    assert await GuardBackend(parts).saved_usd() == 0


async def test_the_page_without_scripts_shows_no_stage_of_what_was_rolled_back_and_no_none() -> None:
    site = Site()
    status, row = site.backend.release_status(), site.backend.exchanges(1).exchanges[0]
    site.backend.exchanges = lambda limit: shapes.ExchangeList((replace(row, output_tokens=None),))  # type: ignore[method-assign]
    page = (await site.ask("GET", "/status")).body.decode()
    assert "<td>stage</td>" in page
    assert '<td class="n">10/-</td>' in page
    site.backend.release_status = lambda: replace(status, phase="rolled_back", canary_ratio=0.0)  # type: ignore[method-assign]
    assert "<td>stage</td>" not in (await site.ask("GET", "/status")).body.decode()


async def test_the_reference_says_of_every_route_that_needs_the_token_that_it_does() -> None:
    site = Site()
    spec = (await site.ask("GET", "/openapi.json")).json
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            if path == "/api/v1/stream":
                continue  # never ends
            real = path.replace("{incident_id}", "inc1")
            answer = await site.ask(method.upper(), real, {} if method == "post" else None)
            assert (answer.status == 401) is bool(operation.get("security")), (method, path)
            if answer.status == 401:
                assert {"401", "429"} <= set(operation["responses"])
            site.clock.advance(60.0)  # type: ignore[attr-defined]
    words = await site.ask("POST", "/api/v1/exchanges/words", {"exchange_id": "e1"}, token=TOKEN)
    assert set(words.json) == set(spec["components"]["schemas"]["Words"]["properties"])


# -- words ----------------------------------------------------------------------------------------------------------


def words_of(language: str) -> dict[str, str]:
    """Key -> text, as words.js has them."""
    text = (FOLDER / "words.js").read_text(encoding="utf-8")
    block = text.partition(f"  {language}: {{")[2].partition("\n  },")[0]
    return dict(re.findall(r'"?([\w-]+)"?: "((?:[^"\\]|\\.)*)"', block))


ENGLISH, CHINESE = words_of("en"), words_of('"zh-TW"')
SENT = {
    *Phase, *State, *CheckResult, *Compared, "ok", "degraded", "off", "stable", "canary",
    "unavailable", "learning", "steady", "signal", "alarm",
}  # fmt: skip


def test_every_word_that_the_page_asks_for_is_there_in_both_languages() -> None:
    asked = set(re.findall(r'data-t="([\w-]+)"', (FOLDER / "index.html").read_text(encoding="utf-8")))
    for name in ("app.js", "panels.js", "draw.js"):
        asked |= set(re.findall(r'\bt\("([\w-]+)"', (FOLDER / name).read_text(encoding="utf-8")))
    asked |= {f"theme-{name}" for name in ("auto", "light", "dark")}
    actions = ("pause", "resume", "promote", "abort", "rollback", "drill")
    asked |= {f"{of}-{name}" for of in ("a", "about") for name in actions}
    assert len(asked) > 80
    assert asked - ENGLISH.keys() == set()
    assert ENGLISH.keys() == CHINESE.keys()
    assert not [key for key, word in CHINESE.items() if word.isascii() and key not in ("language", "tokens")]


def test_every_word_that_the_page_is_sent_is_said_as_that_word() -> None:
    for word in map(str, SENT):
        assert ENGLISH[word] == word.replace("_", " ")
    assert CHINESE[Phase.PAUSED] == "\u5df2\u66ab\u505c"
