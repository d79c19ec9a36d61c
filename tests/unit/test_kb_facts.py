"""What the registry knows of two knowledge bases stands in the incident of a rollback between them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from guard.release.incident import Incident, IncidentKind, diff_versions, postmortem
from guard.release.kb_facts import ENTRY_COUNT, KbFacts, kb_reference, kb_words
from rag.gate import Side, decide
from rag.gate_report import evaluation, facts
from rag.profile import Profile, Profiler
from registry.errors import RegistryUnreachable
from registry.local import LocalRegistry
from registry.model import Lineage, ModelVersion
from registry.store import RegistryStore
from slo.types import Version

STABLE, CANARY = "faq-kb@1-kb+1750000000", "faq-kb@2-kb+1750000500"


def profile_of(mean: int, count: int, empty: int, twins: int) -> Profile:
    rng = random.Random(mean)
    profiler = Profiler()
    texts = [" ".join(f"w{rng.randrange(900)}" for _ in range(mean)) for _ in range(count - empty - twins)]
    for number, text in enumerate([*texts, *texts[:twins], *[""] * empty]):
        profiler.take(f"rows.jsonl:{number + 1}", text)
    return profiler.profile()


async def registered(tmp_path: Path) -> LocalRegistry:
    """Two knowledge bases as `kb register` leaves them: the 2 a.m. release of the practice, scaled down by ten."""
    port = LocalRegistry(RegistryStore(f"sqlite:///{tmp_path}/registry.db"))
    await port.create_model("faq-kb", "sre")
    good, bad = profile_of(450, 50, 0, 0), profile_of(280, 125, 19, 4)
    for reference, chunking, profile in ((STABLE, "600/100", good), (CANARY, "350/50", bad)):
        lineage = Lineage("ann", parameters={"chunking": chunking, "profile": facts(profile)})
        await port.create_version("faq-kb", reference.split("@")[1], lineage=lineage, meta={"embedding_model": "m"})
    decision = decide(Side("1", good), Side("2", bad))
    await port.evaluate("faq-kb", CANARY.split("@")[1], "kb-gate", evaluation(decision), actor="ann")
    return port


@pytest.mark.anyio
async def test_an_incident_says_how_the_knowledge_base_changed(tmp_path: Path) -> None:
    port = await registered(tmp_path)
    known = KbFacts(port, lambda: [STABLE, CANARY, "plain word", ""])
    await known.refresh()
    stable, canary = Version("v1.2.0", kb=STABLE), Version("v1.2.1", kb=CANARY)
    differences = diff_versions(stable, canary, known.details(STABLE), known.details(CANARY))
    found = {d.part: (d.before, d.after) for d in differences}
    assert found["KB chunking"] == ("600/100", "350/50")
    assert found["KB mean row"] == ("450 tokens", "280 tokens")
    assert found["KB empty rows"] == ("0.0%", "15.2%")
    assert found["KB duplicate rows"] == ("0.0%", "3.2%")
    assert found["KB gate"][1].startswith("refused; bad rows: 19 of 125 rows")
    assert "KB embedder" not in found  # the same in both
    incident = Incident(
        "inc-1", IncidentKind.ROLLBACK, "faq-bot", 1.75e9, "hallucination", "8 %", canary, stable, 3,
        differences=differences,
    )  # fmt: skip
    text = postmortem(incident)
    assert "| KB mean row | 450 tokens | 280 tokens |" in text
    assert "| KB empty rows | 0.0% | 15.2% |" in text
    await port.close()


class Away:
    """A registry that does not answer."""

    async def version(self, *_names: str) -> ModelVersion:
        raise RegistryUnreachable("registry: nobody is there")


@pytest.mark.anyio
async def test_a_registry_that_is_away_costs_nothing_and_takes_nothing(tmp_path: Path) -> None:
    port = await registered(tmp_path)
    known = KbFacts(port, lambda: [STABLE, "faq-kb@9-kb+1"])
    await known.refresh()
    before = dict(known.details(STABLE))
    assert before["KB rows"] == "50"
    assert known.details("faq-kb@9-kb+1") == {}
    known._port = Away()  # type: ignore[assignment]
    await known.refresh()
    assert known.details(STABLE) == before
    await port.close()


def test_whatever_stands_in_a_registry_becomes_short_words() -> None:
    odd = {
        "profile": {"mean_tokens": "many", "languages": {"cjk": None}, "row_count": True},
        "note": "x\n" * 500,
        "nested": {"a": 1},
        "rate": 2e-4,
        **{f"p{n}": n for n in range(60)},
    }
    found = kb_words(ModelVersion("kb", "1", lineage=Lineage(parameters=odd)))
    assert len(found) == ENTRY_COUNT
    assert all(len(text) <= 200 and "\n" not in text for text in found.values())
    assert found["KB rate"] == "0.0002"
    assert kb_words(replace(ModelVersion("kb", "1"), meta={"dim": 384})) == {}


@pytest.mark.parametrize("kb", ["", "600/100", "@v1", "kb@"])
def test_a_word_is_no_reference(kb: str) -> None:
    assert kb_reference(kb) is None
