"""Two replicas on one registry: what one decides takes effect at the other as if it had been decided there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guard.release.state import Phase
from guard.settings import load_settings
from guard.wiring import Guard
from registry.errors import RegistryRefused
from slo.errors import RefusedError
from tests.conftest import VIRTUAL
from tests.release_kit import BAD, GOOD, HOLD, NEXT, ROLL_BACK, VERSIONS, FlakyPort, ScriptedJudge, World
from tests.slo_builders import AVAILABILITY, make_exchange, make_slo

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def pair(directory: Path, worlds: list[World], **words: object) -> tuple[World, World]:
    """Return two replicas that run; words: of the second."""
    for name in ("one", "two"):
        (directory / name).mkdir()
    first = World(directory / "one", ScriptedJudge(HOLD))
    second = World(directory / "two", ScriptedJudge(HOLD), port=FlakyPort(first.store), **words)  # type: ignore[arg-type]
    worlds += [first, second]
    return await first.up(), await second.up()


async def test_a_canary_started_again_begins_a_new_life_at_every_replica(tmp_path: Path, worlds: list[World]) -> None:
    first, second = await pair(tmp_path, worlds)
    await first.controller.start(BAD.name, actor="ann")
    await second.controller.tick()
    await first.controller.advance(actor="ann")
    await second.controller.tick()
    await first.controller.pause(actor="ann")
    await second.controller.tick()
    assert second.controller.state.phase is Phase.PAUSED
    assert first.lives == second.lives == [BAD.name], "a new stage and a pause are the same life"
    await first.controller.rollback(actor="ann")
    await second.controller.tick()
    await first.controller.start(BAD.name, actor="ann", again=True)
    assert first.lives == [BAD.name] * 2
    await second.controller.tick()
    assert second.lives == [BAD.name] * 2


async def test_a_rollback_and_a_new_start_between_two_looks_is_a_new_life(tmp_path: Path, worlds: list[World]) -> None:
    first, second = await pair(tmp_path, worlds)
    await first.controller.start(BAD.name, actor="ann")
    await second.controller.tick()
    await first.controller.rollback(actor="ann")
    await first.controller.start(BAD.name, actor="ann", again=True)
    second.judge.script = [ROLL_BACK]
    await second.controller.tick()
    assert second.lives == [BAD.name] * 2


async def test_a_restart_during_a_rollout_is_no_new_life(tmp_path: Path, worlds: list[World]) -> None:
    first, _ = await pair(tmp_path, worlds)
    await first.controller.start(BAD.name, actor="ann")
    first.journal.close()
    again = await World(tmp_path / "one", ScriptedJudge(HOLD)).up()
    worlds.append(again)
    assert again.controller.state.canary == BAD.name
    assert again.lives == []


async def test_a_replica_without_the_promoted_version_undoes_nothing_and_follows_once_it_has_it(
    tmp_path: Path, worlds: list[World]
) -> None:
    few = {v.name: v for v in (GOOD, NEXT)}
    first, second = await pair(tmp_path, worlds, versions=few)
    await first.controller.start(BAD.name, actor="ann")
    await second.controller.tick()
    assert second.controller.state.phase is Phase.IDLE
    with pytest.raises(RefusedError, match=r"'v1\.2\.1' of the release in force \(epoch 1\): not in guard\.yaml here"):
        await second.controller.start(NEXT.name, actor="bob")
    await first.controller.promote(actor="ann")
    for _ in range(2):
        await second.controller.tick()
    assert second.controller.state.stable == GOOD.name
    with pytest.raises(RefusedError, match="add to versions and reload first") as caught:
        await second.controller.start(NEXT.name, actor="bob")
    assert caught.value.reason == "unknown_version"

    few[BAD.name] = BAD  # a reload
    with pytest.raises(RefusedError, match="look again") as caught:
        await second.controller.start(NEXT.name, actor="bob")
    assert caught.value.reason == "conflict"
    assert (second.controller.state.stable, second.controller.state.phase) == (BAD.name, Phase.PROMOTED)
    await second.controller.start(NEXT.name, actor="bob")
    await first.controller.tick()
    assert (first.controller.state.stable, first.controller.state.canary) == (BAD.name, NEXT.name)


async def test_a_replica_follows_at_the_next_look_and_after_a_restart(tmp_path: Path, worlds: list[World]) -> None:
    few = {GOOD.name: GOOD}
    first, second = await pair(tmp_path, worlds, versions=few)
    await first.controller.start(BAD.name, actor="ann")
    await first.controller.promote(actor="ann")
    await second.controller.tick()
    second.journal.close()
    again = World(tmp_path / "two", ScriptedJudge(HOLD), port=FlakyPort(first.store))
    worlds.append(again)
    again.controller.restore()
    assert again.controller.state.stable == GOOD.name
    await again.controller.recover()
    assert again.controller.state.stable == BAD.name
    few |= VERSIONS
    await second.controller.tick()
    applied = len(second.applied)
    await second.controller.tick()
    assert (second.controller.state.stable, len(second.applied)) == (BAD.name, applied), "once"


async def test_an_abort_that_the_registry_refuses_is_told_and_owed_until_it_is_taken(
    tmp_path: Path, worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await pair(tmp_path, worlds)
    await first.controller.start(BAD.name, actor="ann")
    await second.controller.tick()

    async def refuse(_control: object, **_words: object) -> None:
        raise RegistryRefused("unauthorized", "this needs `Authorization: Bearer <token>`")

    with monkeypatch.context() as other_token:
        other_token.setattr(first.port, "put_control", refuse)
        result = await first.controller.abort(actor="ann")
        assert result.message.endswith("; the other replicas go on until the registry takes it")
        for _ in range(5):
            await first.controller.tick()
            await asyncio.sleep(5)
        status = first.controller.status()
        assert (status.canary_ratio, status.pending, status.registry) == (0.0, "control", "refused")
        assert first.alerts == ["registry_refused"]
        assert "this needs `Authorization" in first.alert_lines[0]
    await first.controller.tick()
    await second.controller.tick()
    assert (first.controller.status().pending, first.controller.status().registry) == ("", "ok")
    assert second.controller.state.canary_ratio == 0.0


async def test_the_limit_of_rollbacks_a_day_is_the_services_whichever_replica_decides(
    tmp_path: Path, worlds: list[World]
) -> None:
    first, second = await pair(tmp_path, worlds)
    for decider, other in ((first, second), (second, first), (first, second)):
        await first.controller.start(BAD.name, actor="ann", again=True)
        await second.controller.tick()
        decider.judge.script = [ROLL_BACK]
        await decider.controller.tick()
        decider.judge.script = [HOLD]
        await other.controller.tick()
        assert first.controller.state.phase is second.controller.state.phase is Phase.ROLLED_BACK
        await asyncio.sleep(60)
    assert [world.controller.status().rollbacks_24h for world in (first, second)] == [3, 3]
    await first.controller.start(BAD.name, actor="ann", again=True)
    await second.controller.tick()
    for world in (first, second):
        world.judge.script = [ROLL_BACK]
        await world.controller.tick()
        assert (world.controller.state.canary_ratio, world.alerts) == (0.1, ["rollback_suppressed"])


async def test_what_a_person_rolled_back_at_another_replica_leaves_automation_its_rollbacks(
    tmp_path: Path, worlds: list[World]
) -> None:
    first, second = await pair(tmp_path, worlds)
    await first.controller.start(BAD.name, actor="ann")
    await second.controller.tick()
    await first.controller.rollback(actor="ann")
    for _ in range(2):
        await second.controller.tick()
    assert second.controller.state.phase is Phase.ROLLED_BACK
    assert second.controller.status().rollbacks_24h == 0


GUARD = """\
service: faq-bot
routes:
  - {name: chat, path: /v1/chat/completions, adapter: openai-chat}
versions:
  v1: {upstreams: ["http://127.0.0.1:8810"], model: m, kb: "1"}
  v2: {upstreams: ["http://127.0.0.1:8811"], model: m, kb: "2"}
release: {stable: v1}
checks: {enabled: false}
"""


SLO = "service: faq-bot\nobjectives:\n  - {name: up, indicator: sft_availability_success_rate, window: 1h,"
SLO += " threshold: {absolute: 90%}}\n"


def test_a_new_life_drops_the_windows_of_the_guard_whoever_started_it(tmp_path: Path) -> None:
    (tmp_path / "guard.yaml").write_text(GUARD, encoding="utf-8")
    (tmp_path / "slo.yaml").write_text(SLO, encoding="utf-8")
    asyncio.run(_counted_before_a_start(Guard(load_settings(tmp_path / "guard.yaml", {}))))


async def _counted_before_a_start(guard: Guard) -> None:
    try:
        controller = guard.release.open()
        controller.restore()
        canary = guard.settings.targets["v2"].version.release_id
        guard.memory.served(make_exchange(release=canary))
        up = make_slo(AVAILABILITY, params={"absolute": 0.99})
        assert guard.memory.reading(up, canary).count == 1
        await controller.start("v2", actor="ann")
        assert guard.memory.reading(up, canary).count == 0
    finally:
        await guard.stop(drain=False)
