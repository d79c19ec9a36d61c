"""`kb serve` with several knowledge bases at once, readers with roles, a token budget, and new generations."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rag.answer_path import AnswerPath, SharedEmbedder
from rag.hashed import HashedTfIdfEmbedder
from rag.kb import KnowledgeBase
from rag.servers import serve_many
from rag.storage import POINTER
from rag.text import count_tokens
from slo.errors import DataError, RefusedError
from tests.kb_kit import segment_file

pytestmark = pytest.mark.anyio

VPN = "At most 2 devices per person may be connected to the VPN at the same time."
QUESTION = "How many devices may be connected to the VPN?"


@asynccontextmanager
async def served(directory: Path, **options: Any) -> AsyncIterator[str]:
    stop, ready = asyncio.Event(), asyncio.Event()
    ports: list[int] = []

    def listening(found: list[int]) -> None:
        ports.extend(found)
        ready.set()

    task = asyncio.create_task(
        serve_many([(directory, 0)], embedder="none", stop=stop, on_ready=listening, **options)
    )  # fmt: skip
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        waiting.cancel()
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def ask(base: str, question: str, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any]:
    sent = {"question": question, **body}
    async with aiohttp.ClientSession() as session, session.post(f"{base}/ask", json=sent, headers=headers) as response:
        return response.status, json.loads(await response.read())


def contexts(body: Any) -> list[str]:
    return [context["doc_id"] for context in body["contexts"]]


async def test_a_header_chooses_the_canary_and_an_older_generation_and_an_unknown_name_is_told(tmp_path: Path) -> None:
    stable = KnowledgeBase.init(tmp_path / "stable")
    stable.add([{"doc_id": "vpn-old", "text": VPN}])
    stable.add([{"doc_id": "vpn-new", "text": VPN.replace("2", "3")}])
    KnowledgeBase.init(tmp_path / "canary").add([{"doc_id": "vpn-canary", "text": VPN.replace("2", "5")}])
    others = {"canary": str(tmp_path / "canary"), "before": f"{tmp_path / 'stable'}@1"}
    async with served(tmp_path / "stable", others=others) as base:
        _, one = await ask(base, QUESTION)
        _, two = await ask(base, QUESTION, {"x-kb-generation": "canary"})
        _, three = await ask(base, QUESTION, {"x-kb-generation": "before"})
        status, wrong = await ask(base, QUESTION, {"x-kb-generation": "nightly"})
        async with aiohttp.ClientSession() as session, session.get(f"{base}/healthz") as response:
            health = await response.json()
    assert contexts(one) == ["vpn-old", "vpn-new"]
    assert (contexts(two), contexts(three)) == (["vpn-canary"], ["vpn-old"])
    assert (status, wrong["error"]["param"]) == (400, "x-kb-generation")
    assert "'nightly' is not served here; there is default, canary, before" in wrong["error"]["message"]
    assert {name: entry["generation"] for name, entry in health["generations"].items()} == {
        "default": 2, "canary": 1, "before": 1,
    }  # fmt: skip


async def test_readers_see_what_is_for_their_roles_and_the_tags_travel_with_the_contexts(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "open", "text": VPN}, {"doc_id": "hr", "text": VPN + " Managers: 9.", "acl": ["HR"]}])
    kb.add([{"doc_id": "acme", "text": VPN + " Acme: 4.", "acl": ["tenant:acme"]}])
    async with served(tmp_path / "kb") as base:
        _, nobody = await ask(base, QUESTION)
        _, header = await ask(base, QUESTION, {"x-guard-roles": "staff, hr"})
        _, tenant = await ask(base, QUESTION, {"x-guard-tenant": "Acme"})
        _, in_body = await ask(base, QUESTION, metadata={"roles": ["hr"]})
        _, both = await ask(base, QUESTION, {"x-guard-roles": ""}, metadata={"roles": ["hr"]})
        _, claimed = await ask(base, QUESTION, {"x-guard-tenant": "other"}, metadata={"roles": ["hr", "tenant:acme"]})
    assert (contexts(nobody), contexts(both), contexts(claimed)) == (["open"], ["open"], ["open"])
    assert sorted(contexts(header)) == sorted(contexts(in_body)) == ["hr", "open"]
    assert sorted(contexts(tenant)) == ["acme", "open"]
    tagged = {context["doc_id"]: context.get("acl") for context in header["contexts"]}
    assert tagged == {"open": None, "hr": ["hr"]}


async def test_roles_and_tenants_may_have_chinese_names(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "open", "text": VPN}, {"doc_id": "finance", "text": VPN + " 9.", "acl": ["\u8ca1\u52d9"]}])
    kb.add([{"doc_id": "taiji", "text": VPN + " 4.", "acl": ["tenant:\u53f0\u7a4d"]}])
    async with served(tmp_path / "kb") as base:
        _, role = await ask(base, QUESTION, {"x-guard-roles": "staff, \u8ca1\u52d9"})
        _, tenant = await ask(base, QUESTION, {"x-guard-tenant": "\u53f0\u7a4d"})
        _, other = await ask(base, QUESTION, {"x-guard-tenant": "\u83ef\u78a9", "x-guard-roles": "\u4eba\u8cc7"})
    assert sorted(contexts(role)) == ["finance", "open"]
    assert sorted(contexts(tenant)) == ["open", "taiji"]
    assert contexts(other) == ["open"]


async def test_contexts_fit_the_token_budget_and_say_which_part_they_are(tmp_path: Path) -> None:
    text = "The VPN takes 2 devices. " * 8
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "short", "text": VPN}, {"doc_id": "long", "text": text}])
    async with served(tmp_path / "kb", context_tokens=40) as base:
        _, body = await ask(base, "VPN devices")
    assert 0 < sum(count_tokens(context["text"]) for context in body["contexts"]) <= 40
    for context in body["contexts"]:
        whole = {"short": VPN, "long": text}[context["doc_id"]]
        assert whole[slice(*context["span"])] == context["text"]
        assert context["text"].endswith(".")


class Stepped:
    """A clock whose sleeps end when the test says so."""

    def __init__(self) -> None:
        self.due = asyncio.Semaphore(0)
        self.waiting = asyncio.Event()

    def now_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.waiting.set()
        await self.due.acquire()
        self.waiting.clear()

    async def step(self) -> None:
        self.due.release()
        await asyncio.sleep(0)
        await self.waiting.wait()


async def test_a_new_generation_is_taken_over_and_a_damaged_one_leaves_the_last_good_one(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "a", "text": "one"}])
    clock = Stepped()
    path = AnswerPath(KnowledgeBase.open(tmp_path / "kb"), clock=clock)  # type: ignore[arg-type]
    following = asyncio.create_task(path.follow())
    try:
        await clock.waiting.wait()
        kb.add([{"doc_id": "b", "text": "two"}])
        await clock.step()
        await clock.step()
        assert (path.kb.meta.kb_version, path.kb_note) == (2, "")
        kb.add([{"doc_id": "c", "text": "three"}])
        damaged = segment_file(tmp_path / "kb", "words.bin")
        damaged.write_bytes(damaged.read_bytes()[:-8])
        await clock.step()
        await clock.step()
        assert path.kb.meta.kb_version == 2
        assert path.kb_note.startswith("kb_invalid: ")
        assert [hit.doc_id for hit in (await path.retrieve("two")).result.hits] == ["b"]
        with pytest.raises(DataError):
            KnowledgeBase.open(tmp_path / "kb")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await path.close()


async def test_a_damaged_pointer_is_reported_and_no_more_once_it_is_put_back(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "a", "text": "one"}])
    pointer = tmp_path / "kb" / POINTER
    good = pointer.read_bytes()
    clock = Stepped()
    path = AnswerPath(KnowledgeBase.open(tmp_path / "kb"), clock=clock)  # type: ignore[arg-type]
    following = asyncio.create_task(path.follow())
    try:
        await clock.waiting.wait()
        pointer.write_bytes(good[:-9])
        await clock.step()
        await clock.step()
        assert path.kb_note.startswith("kb_invalid: ")
        assert [hit.doc_id for hit in (await path.retrieve("one")).result.hits] == ["a"]
        pointer.write_bytes(good)
        await clock.step()
        await clock.step()
        assert path.kb_note == ""
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await path.close()


async def test_writers_that_are_quicker_at_every_look_do_not_end_the_following(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "a", "text": "one"}])
    clock = Stepped()
    served_kb = KnowledgeBase.open(tmp_path / "kb")
    reopened, looks = served_kb.reopened, 0

    def outrun() -> KnowledgeBase:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RefusedError("conflict", "kb: was written to at every look; try again")
        return reopened()

    served_kb.reopened = outrun  # type: ignore[method-assign]
    path = AnswerPath(served_kb, clock=clock)  # type: ignore[arg-type]
    following = asyncio.create_task(path.follow())
    try:
        await clock.waiting.wait()
        kb.add([{"doc_id": "b", "text": "two"}])
        for _ in range(3):
            await asyncio.wait_for(clock.step(), 30.0)  # of a following that has ended there is none
        assert (path.kb.meta.kb_version, path.kb_note, looks) == (2, "", 2)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await path.close()


async def test_an_embedder_that_is_loaded_while_a_generation_is_opened_is_used_with_it(tmp_path: Path) -> None:
    embedder = HashedTfIdfEmbedder(64)
    kb = KnowledgeBase.init(tmp_path / "kb", embedder=embedder)
    kb.add([{"doc_id": "a", "text": "one"}])
    clock, opening, go_on = Stepped(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    served_kb = KnowledgeBase.open(tmp_path / "kb")
    reopened = served_kb.reopened

    def slow() -> KnowledgeBase:
        found = reopened()
        loop.call_soon_threadsafe(opening.set)
        assert go_on.wait(60)
        return found

    served_kb.reopened = slow  # type: ignore[method-assign]
    path = AnswerPath(served_kb, clock=clock)  # type: ignore[arg-type]
    following = asyncio.create_task(path.follow())
    try:
        await clock.waiting.wait()
        kb.add([{"doc_id": "b", "text": "two"}])
        clock.due.release()
        await opening.wait()
        await path.use_embedder(SharedEmbedder(loaded=embedder))
        clock.waiting.clear()
        go_on.set()
        await clock.waiting.wait()
        assert path.kb.meta.kb_version == 2
        assert (await path.retrieve("two")).result.mode_used == "hybrid"
    finally:
        go_on.set()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await path.close()


def test_a_signed_pointer_that_was_put_back_is_not_followed(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb", key=b"key")
    kb.add([{"doc_id": "secret", "text": "to be removed"}, {"doc_id": "a", "text": "one"}])
    old = (tmp_path / "kb" / "CURRENT").read_bytes()
    kb.remove(["secret"])
    served_kb = KnowledgeBase.open(tmp_path / "kb", key=b"key")
    (tmp_path / "kb" / "CURRENT").write_bytes(old)
    with pytest.raises(DataError, match="an old pointer was put back"):
        served_kb.reopened()
    assert [hit.doc_id for hit in served_kb.search("to be removed").hits] == []


async def test_a_question_that_would_hold_everybody_up_is_refused_in_one_line(tmp_path: Path) -> None:
    KnowledgeBase.init(tmp_path / "kb").add([{"doc_id": "a", "text": VPN}])
    async with served(tmp_path / "kb") as base:
        status, _ = await ask(base, QUESTION + " a" * 15_000)
        too_long, said = await ask(base, QUESTION + " a" * 300_000)
    assert (status, too_long) == (200, 400)
    assert "at most 32000" in said["error"]["message"]
