"""What the registry knows of an adapter stands in incidents, and its evaluation is the canary's first guess."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from guard.comparing import trial_setup
from guard.release.adapter_facts import SIMILARITY, AdapterFacts, expected_scores
from guard.release.incident import diff_versions
from guard.release.state import Phase, ReleaseState
from registry.local import LocalRegistry
from registry.model import Evaluation, Lineage
from registry.store import RegistryStore
from slo.comparison import ScoreSums, mean_bounds
from slo.sources.trial import Cell
from slo.types import Version

OLD, NEW = "hr-rules@lora-1", "hr-rules@lora-2"


async def registered(tmp_path: Path) -> AdapterFacts:
    """Two adapters as `lora register` leaves them; the second has failed its gate."""
    port = LocalRegistry(RegistryStore(f"sqlite:///{tmp_path}/registry.db"))
    await port.create_model("hr-rules", "sre")
    for reference, rate, result in (
        (OLD, 2e-4, {"passed": True, "similarity": 0.91, "count": 120}),
        (NEW, 5e-4, {"passed": False, "similarity": 0.1, "count": 120}),
    ):
        name = reference.split("@")[1]
        lineage = Lineage("ann", "ab12", parameters={"learning_rate": rate})
        await port.create_version("hr-rules", name, lineage=lineage, meta={"base_model": "tiny"})
        await port.evaluate("hr-rules", name, "lora-eval", result, actor="ann")
    known = AdapterFacts(port, lambda: [OLD, NEW, "plain word", ""])
    await known.refresh()
    await port.close()
    return known


@pytest.mark.anyio
async def test_an_incident_says_how_the_adapter_changed(tmp_path: Path) -> None:
    known = await registered(tmp_path)
    stable, canary = Version("v1", adapter=OLD), Version("v2", adapter=NEW)
    found = {d.part: (d.before, d.after) for d in diff_versions(stable, canary, known.details(OLD), known.details(NEW))}
    assert found["adapter learning rate"] == ("0.0002", "0.0005")
    assert found["adapter evaluation"] == ("passed, similarity 91.0% of 120", "NOT passed, similarity 10.0% of 120")
    assert "adapter base" not in found  # the same in both


@pytest.mark.anyio
async def test_only_an_evaluation_that_passed_is_expected_of_a_canary(tmp_path: Path) -> None:
    known = await registered(tmp_path)
    assert known.expected(OLD) == {SIMILARITY: 0.91}
    assert known.expected(NEW) == known.expected("plain word") == {}
    versions = {"v1": Version("v1", adapter="x"), "v2": Version("v2", adapter=OLD)}
    state = ReleaseState("hr-bot", "v1", canary="v2", phase=Phase.ROLLING_OUT, canary_ratio=0.1)
    setup = trial_setup(state, versions.get, 0.0, lambda name: known.expected(versions[name].adapter))
    assert setup is not None
    assert setup.expected == ((SIMILARITY, 0.91),)
    odd = [Evaluation(1, "m", "v", "lora-eval", 0.0, "a", {"passed": True, "similarity": value}) for value in (7, "x")]
    assert [expected_scores([one]) for one in odd] == [{}, {}]


def width_after(count: int, expected: float | None) -> float:
    """Width of the 95 % bounds of scores around 0.91."""
    chance, cell = random.Random(5), Cell()
    if expected is not None:
        cell.expect(expected)
    for _ in range(count):
        cell.add(False, 1.0, min(1.0, max(0.0, chance.gauss(0.91, 0.05))), "")
    bounds = mean_bounds(ScoreSums(cell.count, cell.total, cell.spread), 0.05)
    assert bounds.low <= 0.91 <= bounds.high
    return bounds.high - bounds.low


def test_a_good_guess_narrows_the_bounds_and_a_bad_one_costs_little() -> None:
    assert width_after(100, 0.91) < width_after(100, None)
    assert width_after(100, 0.1) < 1.05 * width_after(100, None)


def test_what_was_seen_is_not_guessed_over() -> None:
    cell = Cell()
    cell.add(False, 1.0, 0.8, "")
    cell.expect(0.1)
    assert (cell.seen_count, cell.seen_total) == (1.0, 0.8)
