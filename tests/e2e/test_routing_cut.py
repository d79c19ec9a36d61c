"""The network to the cloud is cut while traffic runs through guard and answer path: no answer fails."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import aiohttp
import pytest

from rag.kb import KnowledgeBase
from tests.e2e.test_serve import CONFIG, Sidecar, until
from tests.route_kit import ChatModel, models, routed

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

ROUTES = """\
models:
  cloud: {{base_url: "{cloud}", model: "ft:gpt-4o-mini:org::1", timeout_s: 5}}
  local: {{base_url: "{local}", model: lora, timeout_s: 5}}
answers: [{{topic: hours, answer: "9 to 18.", phrasings: ["When are you open?"]}}]
retry_s: 0.5
"""


def counted(sidecar: Sidecar) -> dict[str, float]:
    """Answers by source, as the guard counts them."""
    found = re.findall(r'^sft_quality_answers_total{[^}]*source="(\w+)"[^}]*} (\S+)$', sidecar.get("/metrics"), re.M)
    return {source: float(value) for source, value in found}


async def test_a_cut_network_switches_to_the_local_model_without_a_failed_answer(tmp_path: Path) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add([{"doc_id": "hr-leave", "text": "Annual leave is 14 days a year. Unused days expire on 31 March."}])
    cloud = ChatModel("ft:gpt-4o-mini:org::1", lambda text: "The cloud says so.")
    local = ChatModel("lora", lambda text: "The local model says so.")
    questions = ("Who won the chess championship?", "When are you open?", "How many days of annual leave?")
    answers: list[tuple[int, str, str]] = []
    enough = asyncio.Event()

    async with models(cloud, local):
        text = ROUTES.format(cloud=cloud.base_url, local=local.base_url)
        async with routed(tmp_path / "kb", tmp_path / "routes.yaml", text) as path:
            port = path.rpartition(":")[2]
            (tmp_path / "guard.yaml").write_text(CONFIG.format(stable=port, canary=port))
            (tmp_path / "slo.yaml").write_text("service: faq-bot\npreset: support-faq\n")
            sidecar = Sidecar(tmp_path)
            await asyncio.to_thread(sidecar.start)

            async def user(session: aiohttp.ClientSession, number: int) -> None:
                for turn in range(12):
                    body = {
                        "model": "bot",
                        "stream": bool((number + turn) % 2),
                        "messages": [{"role": "user", "content": questions[turn % 3]}],
                    }
                    async with session.post(f"{sidecar.data}/v1/chat/completions", json=body) as response:
                        said = await response.text()
                        answers.append((response.status, response.headers.get("x-answer-source", ""), said))
                    if len(answers) == 20:
                        enough.set()

            async def cut() -> None:
                await enough.wait()
                await cloud.stop()

            try:
                async with aiohttp.ClientSession() as session:
                    await asyncio.gather(cut(), *(user(session, number) for number in range(4)))
                expected = {source: [s for _, s, _ in answers].count(source) for source in {s for _, s, _ in answers}}
                await asyncio.to_thread(until, lambda: sum(counted(sidecar).values()) == len(answers))
                seen = counted(sidecar)
                spent_usd = await asyncio.to_thread(sidecar.metric, "sft_cost_usd_total")
            finally:
                await asyncio.to_thread(sidecar.stop, signal.SIGTERM)

    assert len(answers) == 48
    assert {status for status, _, _ in answers} == {200}
    # A stream that broke would hold an error, or lack its end.
    assert not [said for _, _, said in answers if '{"error"' in said]
    assert all("[DONE]" in said or '"finish_reason":"stop"' in said for _, _, said in answers)
    assert set(expected) == {"RULE", "KB", "CLOUD_FT", "LOCAL_LORA"}
    assert seen == expected
    # 100 and 10 tokens each. The cloud's price is the answer path's own word; that of the local model is unknown, so
    # the guard prices its tokens by the release (gpt-4o-mini); fixed answers and documents cost nothing.
    by_cloud, by_local = 100 * 0.30e-6 + 10 * 1.20e-6, 100 * 0.15e-6 + 10 * 0.60e-6
    assert spent_usd == pytest.approx(expected["CLOUD_FT"] * by_cloud + expected["LOCAL_LORA"] * by_local)
