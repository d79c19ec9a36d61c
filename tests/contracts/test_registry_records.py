"""Aliases, the previous pointer, lineage and evaluations hold the same on every way to a real registry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from registry.client import RegistryClient, RegistryPort
from registry.errors import RegistryRefused
from registry.model import Lineage, Stage
from tests.registry_kit import Served, refusal, stages, with_versions

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "way", ["sqlite local", "sqlite http", "postgresql local", "postgresql http"], indirect=True
    ),
]
MADE = Lineage("ann", "sha256:ab", "3fe2", "1-kb+1750000000", {"chunk": "500/80", "rates": [2e-4, None]})


async def test_champion_and_previous_follow_the_stages(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.STAGING)
    assert await port.aliases("faq-bot") == {}
    await port.transition("faq-bot", "v1", Stage.PRODUCTION, actor="a")
    assert await port.aliases("faq-bot") == {"champion": "v1"}
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="a")
    assert await port.aliases("faq-bot") == {"champion": "v2", "previous": "v1"}
    assert (await port.resolve("faq-bot", "previous")).version == "v1"
    await port.transition("faq-bot", "v2", Stage.STAGING, actor="guard", rollback_to="v1")
    assert await port.aliases("faq-bot") == {"champion": "v1"}  # never back to what was just taken out
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="a")
    await port.transition("faq-bot", "v1", Stage.ARCHIVED, actor="a")
    assert await port.aliases("faq-bot") == {"champion": "v2"}  # and never to what is frozen


async def test_production_that_steps_back_becomes_previous(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.PRODUCTION, v2=Stage.STAGING)
    await port.transition("faq-bot", "v1", Stage.STAGING, actor="a")
    assert await port.aliases("faq-bot") == {"previous": "v1"}
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="a")
    assert await port.aliases("faq-bot") == {"champion": "v2", "previous": "v1"}


async def test_other_aliases_are_set_compared_and_removed(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.NONE, v2=Stage.NONE)
    assert await port.set_alias("faq-bot", "candidate", "v1", actor="ann", expected="") == {"candidate": "v1"}
    assert await refusal(port.set_alias("faq-bot", "candidate", "v2", actor="bob", expected="")) == "conflict"
    assert await port.set_alias("faq-bot", "candidate", "v2", actor="bob", expected="v1") == {"candidate": "v2"}
    assert await port.set_alias("faq-bot", "candidate", "v2", actor="bob") == {"candidate": "v2"}
    assert (await port.resolve("faq-bot", "candidate")).version == "v2"
    assert await port.set_alias("faq-bot", "candidate", None, actor="bob") == {}
    assert await refusal(port.set_alias("faq-bot", "candidate", None, actor="bob")) == "unknown_alias"
    rows = [(e.action, e.actor, e.from_value, e.to_value, e.detail) for e in await port.audit(4, "faq-bot")]
    assert rows == [
        ("alias", "bob", "v2", "", "alias candidate"),
        ("noop", "bob", "v2", "v2", "alias candidate"),
        ("alias", "bob", "v1", "v2", "alias candidate"),
        ("alias", "ann", "", "v1", "alias candidate"),
    ]


async def test_what_an_alias_may_not_be(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.NONE)
    for alias in ("champion", "previous"):
        assert await refusal(port.set_alias("faq-bot", alias, "v1", actor="a")) == "reserved_alias"
    assert await refusal(port.set_alias("faq-bot", "../up", "v1", actor="a")) == "bad_name"
    assert await refusal(port.set_alias("faq-bot", "next", "v9", actor="a")) == "unknown_version"
    assert await refusal(port.set_alias("ghost", "next", "v1", actor="a")) == "unknown_model"
    assert await refusal(port.resolve("faq-bot", "next")) == "unknown_alias"
    assert await refusal(port.aliases("ghost")) == "unknown_model"


async def test_a_version_keeps_where_it_comes_from(port: RegistryPort) -> None:
    await port.create_model("kb")
    made = await port.create_version("kb", "2-kb+1750000001", lineage=MADE, actor="bob")
    assert made.lineage == MADE
    assert await port.version("kb", "2-kb+1750000001") == made
    assert await port.create_version("kb", "2-kb+1750000001", lineage=MADE, actor="eve") == made
    changed = Lineage("ann", "sha256:other")
    assert await refusal(port.create_version("kb", "2-kb+1750000001", lineage=changed)) == "exists"
    plain = await port.create_version("kb", "3-kb+1750000002", actor="bob")
    assert plain.lineage == Lineage(created_by="bob")
    assert await refusal(port.version("kb", "9-kb+1")) == "unknown_version"
    assert await refusal(port.create_version("kb", "4", lineage=Lineage(git_commit="x" * 201))) in (
        "too_large",
        "invalid",
    )


async def test_evaluations_are_added_and_never_replaced(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.NONE)
    first = {"state": "accepted", "recall_at_3": {"low": 0.7, "estimate": 0.9, "high": 0.97}}
    await port.evaluate("faq-bot", "v1", "kb-gate", first, actor="ann", key="once")
    await port.evaluate("faq-bot", "v1", "kb-gate", first, actor="ann", key="once")
    both = await port.evaluate("faq-bot", "v1", "kb-gate", {"state": "refused"}, actor="bob")
    assert [(e.name, e.actor, dict(e.result)) for e in both] == [
        ("kb-gate", "ann", first),
        ("kb-gate", "bob", {"state": "refused"}),
    ]
    assert await port.evaluations("faq-bot", "v1") == both
    assert await refusal(port.evaluate("faq-bot", "v9", "kb-gate", {}, actor="a")) == "unknown_version"
    assert await refusal(port.evaluations("faq-bot", "v9")) == "unknown_version"
    assert await refusal(port.evaluate("faq-bot", "v1", "kb-gate", {"x": "y" * 40_000}, actor="a")) == "too_large"
    assert [e.action for e in await port.audit(2, "faq-bot")] == ["evaluate", "evaluate"]


async def test_of_promotions_at_once_one_is_in_production_and_the_audit_tells_the_order(port: RegistryPort) -> None:
    names = [f"v{n}" for n in range(6)]
    await with_versions(port, **dict.fromkeys(names, Stage.STAGING))
    await asyncio.gather(*(port.transition("faq-bot", name, Stage.PRODUCTION, actor=name) for name in names))
    found = await stages(port)
    assert sorted(found.values()) == ["Production", *["Staging"] * 5]
    audit = [e for e in await port.audit(50, "faq-bot") if e.action in ("promote", "demote")]
    last = next(e for e in audit if e.action == "promote")
    assert found[last.version] == "Production"
    assert len([e for e in audit if e.action == "promote"]) == 6
    before = next(e for e in audit if e.action == "demote").version
    assert await port.aliases("faq-bot") == {"champion": last.version, "previous": before}


async def outcome(call: Awaitable[object]) -> str:
    try:
        await call
    except RegistryRefused as error:
        return error.reason
    return "done"


async def test_of_promotions_that_read_the_same_state_exactly_one_wins(port: RegistryPort) -> None:
    names = [f"v{n}" for n in range(6)]
    await with_versions(port, v9=Stage.PRODUCTION, **dict.fromkeys(names, Stage.STAGING))
    calls = (port.transition("faq-bot", n, Stage.PRODUCTION, actor=n, if_production="v9") for n in names)
    outcomes = await asyncio.gather(*(outcome(call) for call in calls))
    assert sorted(outcomes) == [*["conflict"] * 5, "done"]
    assert (await stages(port))[names[outcomes.index("done")]] == "Production"
    nobody = port.transition("faq-bot", "v9", Stage.PRODUCTION, actor="a", if_production="")
    assert await refusal(nobody) == "conflict"


async def test_of_promotions_with_an_epoch_each_the_newest_stands(port: RegistryPort) -> None:
    names = [f"v{n}" for n in range(6)]
    await with_versions(port, **dict.fromkeys(names, Stage.STAGING))
    calls = (port.transition("faq-bot", n, Stage.PRODUCTION, actor=n, epoch=e) for e, n in enumerate(names, 1))
    outcomes = await asyncio.gather(*(outcome(call) for call in calls))
    assert set(outcomes) <= {"done", "stale_epoch"}
    assert outcomes[-1] == "done"
    assert [name for name, stage in (await stages(port)).items() if stage == "Production"] == ["v5"]


async def test_of_alias_writers_that_expect_the_same_exactly_one_wins(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.NONE, v2=Stage.NONE, v3=Stage.NONE)
    await port.set_alias("faq-bot", "candidate", "v1", actor="a")
    calls = (port.set_alias("faq-bot", "candidate", n, actor=n, expected="v1") for n in ("v2", "v3", "v2", "v3"))
    outcomes = await asyncio.gather(*(outcome(call) for call in calls))
    assert sorted(outcomes) == [*["conflict"] * 3, "done"]


async def test_records_need_the_token_too(way: str, request: pytest.FixtureRequest) -> None:
    if way.endswith("local"):
        return  # no token in process
    served: Served = request.getfixturevalue("served")
    client = RegistryClient(served.url, token="wrong")
    assert await refusal(client.set_alias("m", "next", "v1", actor="a")) == "unauthorized"
    assert await refusal(client.evaluate("m", "v1", "gate", {}, actor="a")) == "unauthorized"
    assert await refusal(client.aliases("m")) == "unknown_model"
    await client.close()


async def test_a_failed_gate_closes_stages_until_a_later_evaluation_opens_them(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.PRODUCTION, v2=Stage.NONE)
    failed = {"passed": False, "blocks": ["Staging", "Production"], "evidence": ["similarity 40 %, at least 85 %"]}
    await port.evaluate("faq-bot", "v2", "lora-eval", failed, actor="ci")
    with pytest.raises(RegistryRefused) as caught:
        await port.transition("faq-bot", "v2", Stage.STAGING, actor="ann")
    assert caught.value.reason == "gate_failed"
    assert "lora-eval failed, Staging is closed to it: similarity 40 %, at least 85 %" in str(caught.value)
    assert (await stages(port))["v2"] == "None"
    await port.evaluate("faq-bot", "v2", "another", {"passed": True}, actor="ci")
    assert await refusal(port.transition("faq-bot", "v2", Stage.STAGING, actor="ann")) == "gate_failed"
    await port.evaluate("faq-bot", "v2", "lora-eval", {"passed": True}, actor="ci")
    await port.transition("faq-bot", "v2", Stage.STAGING, actor="ann")
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="ann")


async def test_a_rollback_to_what_was_judged_badly_wants_force_and_the_audit_says_what_was_passed_over(
    port: RegistryPort,
) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.PRODUCTION)
    failed = {"passed": False, "blocks": ["Production"], "evidence": ["similarity 40 %, at least 85 %"]}
    await port.evaluate("faq-bot", "v1", "lora-eval", failed, actor="ci")
    words = {"actor": "ann", "rollback_to": "v1", "detail": "at night"}
    with pytest.raises(RegistryRefused) as caught:
        await port.transition("faq-bot", "v2", Stage.STAGING, **words)
    assert caught.value.reason == "gate_failed"
    assert str(caught.value) == (
        "version 'v1': lora-eval failed, Production is closed to it: similarity 40 %, at least 85 %; mend it and "
        "evaluate again, or repeat with force, which the audit will say"
    )
    # The same by a promotion that calls itself a rollback; one that does not has no force at all.
    named = port.transition("faq-bot", "v1", Stage.PRODUCTION, actor="a", rollback_to="v1")
    assert await refusal(named) == "gate_failed"
    assert await refusal(port.transition("faq-bot", "v1", Stage.PRODUCTION, actor="a", force=True)) == "gate_failed"
    assert await stages(port) == {"v1": "Staging", "v2": "Production"}
    await port.transition("faq-bot", "v2", Stage.STAGING, force=True, **words)
    assert await stages(port) == {"v1": "Production", "v2": "Staging"}
    last = (await port.audit(1, "faq-bot"))[0]
    assert (last.action, last.actor, last.version) == ("rollback", "ann", "v1")
    assert last.detail == (
        "forced, version 'v1': lora-eval failed, Production is closed to it: similarity 40 %, at least 85 %; at night"
    )
    assert await port.transition("faq-bot", "v1", Stage.ARCHIVED, actor="ann")


async def test_force_says_nothing_in_the_audit_where_nothing_was_in_the_way(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.PRODUCTION)
    await port.transition("faq-bot", "v2", Stage.STAGING, actor="guard", rollback_to="v1", detail="why", force=True)
    assert (await port.audit(1, "faq-bot"))[0].detail == "why"
