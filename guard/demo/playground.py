"""What `make run` starts: the demo's knowledge base, the answer path, the guard, until Ctrl-C. No cloud, no model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import aiohttp

from guard.demo import answer_path
from guard.demo.content import articles
from guard.demo.processes import Children
from guard.demo.rebuild import Rebuild, whole
from guard.demo.scene import STABLE, build_kb, make_release, write_guard_yaml, write_rules
from rag.embedding import STATIC, load_embedder
from rag.kb import KnowledgeBase
from rag.router import EXTRACTIVE_MODEL
from slo.clock import Clock
from slo.errors import DataError

START_S = 60.0
WATCH_EVERY_S = 0.5
EMBEDDER_S = 15.0
Ready = Callable[[dict[str, str], str], None]


class Playground:
    """Serves from `directory`, which is kept: the second start finds the knowledge base there."""

    def __init__(
        self,
        directory: Path,
        data_port: int,
        admin_port: int,
        answer_port: int,
        clock: Clock,
        say: Callable[[str], None],
        ready: Ready,
    ) -> None:
        self._directory, self._clock, self._say, self._ready = directory, clock, say, ready
        self._data_port, self._admin_port, self._answer_port = data_port, admin_port, answer_port

    async def run(self) -> int:
        """Serve until cancelled.

        Raises:
            GuardError: a part could not be started, or ended by itself.
        """
        build = whole(articles())
        kb_directory, kb = await asyncio.to_thread(self._knowledge_base, build)
        async with Children(self._directory) as children:
            path = children.start(
                "answer-path",
                ["-m", "guard.demo.answer_path", "--kb", f"{kb_directory}:{self._answer_port}", "--embedder", STATIC],
            )
            release = make_release(STABLE, build, kb, self._answer_port, model=EXTRACTIVE_MODEL)
            write_rules(self._directory)
            write_guard_yaml(
                self._directory / "guard.yaml",
                (release,),
                data=f"127.0.0.1:{self._data_port}",
                admin=f"127.0.0.1:{self._admin_port}",
                embedder=STATIC,
                cache=True,
            )
            guard = children.start("guard", ["-m", "guard.cli", "serve", "-c", "guard.yaml"])
            await path.printed(answer_path.READY, self._clock, within_s=START_S)
            await guard.printed("serving on", self._clock, within_s=START_S)
            await self._embedder_loaded()
            self._ready(*self._welcome())
            while True:
                await self._clock.sleep(WATCH_EVERY_S)
                children.check()

    async def _embedder_loaded(self) -> None:
        """The answer path answers by words at once; the first answer a person sees should be its best."""
        deadline_s = self._clock.now_s() + EMBEDDER_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while self._clock.now_s() < deadline_s:
                try:
                    async with session.get(f"http://127.0.0.1:{self._answer_port}/healthz") as response:
                        if (await response.json()).get("embedder") != "loading":
                            return
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    pass  # not up yet; the deadline ends this
                await self._clock.sleep(0.1)

    def _knowledge_base(self, build: Rebuild) -> tuple[Path, KnowledgeBase]:
        """The one of an earlier run when it is sound and of the same content, else a new one."""
        embedder = load_embedder(STATIC)
        assert embedder is not None  # it comes with the program
        content = sha256("\x1e".join((embedder.fingerprint, *(f"{r.doc_id}\x1f{r.text}" for r in build.rows))).encode())
        directory = self._directory / f"kb-{content.hexdigest()[:12]}"
        try:
            return directory, KnowledgeBase.open(directory)
        except DataError:
            shutil.rmtree(directory, ignore_errors=True)  # none yet, or half-written: it is ours to make again
        self._say("making the knowledge base (once)")
        return directory, build_kb(directory, build, embedder)

    def _welcome(self) -> tuple[dict[str, str], str]:
        """URLs by name, and what to do with them."""
        data, admin = f"http://127.0.0.1:{self._data_port}", f"http://127.0.0.1:{self._admin_port}"
        answer_path = f"http://127.0.0.1:{self._answer_port}"
        question = '{"messages": [{"role": "user", "content": "How many days of annual leave do I have?"}]}'
        chinese = question.replace("How many days of annual leave do I have?", "第一年特休有幾天？")
        return {"data": data, "admin": admin, "answer_path": answer_path}, (
            f"guard        {data}/v1   (the bot's base URL)\n"
            f"admin        {admin}      metrics at {admin}/metrics, console at {admin}/\n"
            f"answer path  {answer_path}/v1   (what the guard stands in front of)\n"
            "try:\n"
            f"  curl -s {data}/v1/chat/completions -H 'content-type: application/json' -d '{question}'\n"
            f"  curl -s {data}/v1/chat/completions -H 'content-type: application/json' -d '{chinese}'\n"
            f"configuration and logs in {self._directory}; stop with Ctrl-C"
        )
