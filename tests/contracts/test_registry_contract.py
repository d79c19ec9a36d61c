"""The registry's rules hold the same on SQLite and on a real PostgreSQL, through the local port and over HTTP.

The registry of the simulated fleet (tests/sim) is held to them too, so that what is found there is found in earnest.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from registry import tables
from registry.client import RegistryClient, RegistryPort
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import Control, Stage
from registry.store import RegistryStore
from tests.registry_kit import Served, refusal, stages, with_versions

FIRST = Control("faq-bot", 1, "v1.2.0", canary="v1.2.1", canary_ratio=0.1, phase="rolling_out")


@pytest.mark.anyio
async def test_promoting_demotes_the_old_production_version(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.PRODUCTION, v2=Stage.STAGING)
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="ann")
    assert await stages(port) == {"v1": "Staging", "v2": "Production"}
    now = await port.production("faq-bot")
    assert now is not None
    assert now.version == "v2"


@pytest.mark.anyio
async def test_nothing_goes_live_unseen_and_archived_is_frozen(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.NONE, v2=Stage.ARCHIVED)
    assert await refusal(port.transition("faq-bot", "v1", Stage.PRODUCTION, actor="a")) == "illegal_transition"
    for stage in (Stage.NONE, Stage.STAGING, Stage.PRODUCTION):
        assert await refusal(port.transition("faq-bot", "v2", stage, actor="a")) == "archived"
    assert await stages(port) == {"v1": "None", "v2": "Archived"}


@pytest.mark.anyio
async def test_production_may_step_back_to_staging_and_then_there_is_none(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.PRODUCTION)
    await port.transition("faq-bot", "v1", Stage.STAGING, actor="a")
    assert await port.production("faq-bot") is None


@pytest.mark.anyio
async def test_rollback_moves_both_versions_in_one_request(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.PRODUCTION)
    moves = await port.transition("faq-bot", "v2", Stage.STAGING, actor="guard", rollback_to="v1")
    assert [(m.version, m.action) for m in moves] == [("v2", "demote"), ("v1", "rollback")]
    assert await stages(port) == {"v1": "Production", "v2": "Staging"}


@pytest.mark.anyio
@pytest.mark.parametrize("target", [Stage.NONE, Stage.ARCHIVED, None])
async def test_rollback_never_points_at_a_missing_artifact(port: RegistryPort, target: Stage | None) -> None:
    await with_versions(port, v2=Stage.PRODUCTION, **({} if target is None else {"v1": target}))
    call = port.transition("faq-bot", "v2", Stage.STAGING, actor="guard", rollback_to="v1")
    assert await refusal(call) == "no_target"
    assert (await stages(port))["v2"] == "Production"


@pytest.mark.anyio
async def test_rollback_does_not_undo_a_third_version_promoted_meanwhile(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.STAGING, v3=Stage.PRODUCTION)
    call = port.transition("faq-bot", "v2", Stage.STAGING, actor="guard", rollback_to="v1")
    assert await refusal(call) == "conflict"


@pytest.mark.anyio
async def test_a_move_with_an_older_epoch_loses(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.STAGING)
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="ann", epoch=7)
    late = port.transition("faq-bot", "v2", Stage.STAGING, actor="guard", rollback_to="v1", epoch=6)
    assert await refusal(late) == "stale_epoch"
    assert (await stages(port))["v2"] == "Production"


@pytest.mark.anyio
async def test_a_repeated_key_changes_nothing(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.STAGING, v2=Stage.PRODUCTION)
    first = await port.transition("faq-bot", "v2", Stage.STAGING, actor="g", rollback_to="v1", key="k1")
    await port.transition("faq-bot", "v2", Stage.PRODUCTION, actor="ann")
    again = await port.transition("faq-bot", "v2", Stage.STAGING, actor="g", rollback_to="v1", key="k1")
    assert (len(first), again) == (2, ())
    assert (await stages(port))["v2"] == "Production"


@pytest.mark.anyio
async def test_every_change_is_audited_no_ops_too(port: RegistryPort) -> None:
    await with_versions(port, v1=Stage.PRODUCTION)
    await port.transition("faq-bot", "v1", Stage.PRODUCTION, actor="ann", detail="again")
    rows = [(e.action, e.actor, e.from_value, e.to_value) for e in await port.audit(10, "faq-bot")]
    assert rows[:3] == [
        ("noop", "ann", "Production", "Production"),
        ("promote", "t", "Staging", "Production"),
        ("transition", "t", "None", "Staging"),
    ]
    assert rows[3][0] == "create_version"
    assert rows[4][0] == "create_model"
    assert (await port.audit(1))[0].detail == "again"
    assert (await port.audit(1))[0].time_s > 1.7e9


@pytest.mark.anyio
async def test_registering_twice_is_safe_and_changing_is_refused(port: RegistryPort) -> None:
    await port.create_model("kb", "ann", "d")
    assert (await port.create_model("kb", "ann", "d")).name == "kb"
    assert await refusal(port.create_model("kb", "bob", "d")) == "exists"
    meta = {"artifact_type": "KnowledgeBase", "dim": 384, "nested": {"a": [1, None]}}
    made = await port.create_version("kb", "1-kb+1750000000", tags=("kb", "rag", "incremental"), meta=meta)
    again = await port.create_version("kb", "1-kb+1750000000", tags=("kb", "rag", "incremental"), meta=meta)
    assert again == made
    assert dict(made.meta) == meta
    assert made.tags == ("kb", "rag", "incremental")
    assert await refusal(port.create_version("kb", "1-kb+1750000000", meta={"dim": 1})) == "exists"
    assert [m.name for m in await port.models()] == ["kb"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "../etc", "UPPER", "a/b", "a\n", "é", "a" * 65, ".hidden", "a b", "%2e"])
async def test_odd_names_are_refused(port: RegistryPort, name: str) -> None:
    assert await refusal(port.create_model(name)) in ("bad_name", "invalid")
    await port.create_model("m")
    assert await refusal(port.create_version("m", name)) in ("bad_name", "invalid")
    assert await refusal(port.versions(name)) == "bad_name"


@pytest.mark.anyio
async def test_what_is_not_there_is_named(port: RegistryPort) -> None:
    assert await refusal(port.versions("ghost")) == "unknown_model"
    assert await refusal(port.create_version("ghost", "v1")) == "unknown_model"
    await port.create_model("m")
    assert await refusal(port.transition("m", "v9", Stage.STAGING, actor="a")) == "unknown_version"
    assert await port.control("ghost") is None


@pytest.mark.anyio
async def test_the_loser_of_a_control_race_gets_a_conflict(port: RegistryPort) -> None:
    assert await port.put_control(FIRST, expected_epoch=0, actor="a") == FIRST
    second = replace(FIRST, epoch=2, canary_ratio=0.0, incident_id="inc-1")
    assert await port.put_control(second, expected_epoch=1, actor="a") == second
    assert await refusal(port.put_control(replace(FIRST, epoch=2), expected_epoch=1, actor="b")) == "conflict"
    assert await refusal(port.put_control(replace(FIRST, epoch=3), expected_epoch=0, actor="b")) == "conflict"
    assert await refusal(port.put_control(replace(FIRST, epoch=2), expected_epoch=2, actor="b")) == "invalid"
    assert await port.control("faq-bot") == second


@pytest.mark.anyio
async def test_of_many_writers_of_one_epoch_exactly_one_wins(port: RegistryPort) -> None:
    await port.put_control(FIRST, expected_epoch=0, actor="a")

    async def write(n: int) -> bool:
        try:
            await port.put_control(replace(FIRST, epoch=2, stage=n), expected_epoch=1, actor=f"r{n}")
        except RegistryRefused:
            return False
        return True

    assert sum(await asyncio.gather(*(write(n) for n in range(8)))) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "bad",
    [
        {"canary_ratio": 1.5},
        {"canary_ratio": -0.1},
        {"epoch": 0},
        {"stable": "No Name"},
        {"canary": "", "stage": 0},
        {"epoch": 2**63},
        {"cache_epoch": 2**70},
        {"stage": 2**40},
    ],
)
async def test_a_control_document_that_makes_no_sense_is_refused(port: RegistryPort, bad: dict[str, object]) -> None:
    assert await refusal(port.put_control(replace(FIRST, **bad), expected_epoch=0, actor="a")) in (
        "invalid",
        "bad_name",
    )


@pytest.mark.anyio
async def test_a_registry_that_is_not_there_is_unreachable() -> None:
    client = RegistryClient("http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(RegistryUnreachable, match="registry serve"):
        await client.healthy()
    await client.close()
    with pytest.raises(RegistryRefused, match="http"):
        RegistryClient("file:///etc/passwd")


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["sqlite http"])
async def test_writes_need_the_token_and_reads_do_not(served: Served) -> None:
    for token in (None, "wrong"):
        client = RegistryClient(served.url, token=token)
        said = rf"^registry {served.url}: this needs .*; check .* --token-env"
        with pytest.raises(RegistryRefused, match=said) as caught:
            await client.create_model("m")
        assert caught.value.reason == "unauthorized"
        assert await refusal(client.put_control(FIRST, expected_epoch=0, actor="a")) == "unauthorized"
        assert await refusal(client.transition("m", "v", Stage.STAGING, actor="a")) == "unauthorized"
        assert await client.models() == ()
        await client.close()


@pytest.mark.anyio
async def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnreachable) as caught:
        RegistryStore(f"sqlite:///{tmp_path}/no/such/dir/r.db")
    assert "\n" not in str(caught.value)
    with pytest.raises(RegistryUnreachable):
        RegistryStore("nonsense")


def test_the_tables_and_the_lock_are_ready_for_postgresql() -> None:
    dialect = postgresql.dialect()
    text = "\n".join(
        str(make(table).compile(dialect=dialect))
        for table in tables.metadata.sorted_tables
        for make in (CreateTable, *(lambda _t, i=index: CreateIndex(i) for index in table.indexes))
    )
    assert "WHERE stage = 'Production'" in text
    assert "SERIAL" in text
    lock = str(sa.select(tables.models.c.fence_epoch).with_for_update().compile(dialect=dialect))
    assert "FOR UPDATE" in lock


@pytest.mark.anyio
async def test_an_answer_of_many_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    store = RegistryStore(f"sqlite:///{tmp_path}/r.db")
    store.create_model("faq-bot")
    for number in range(60):
        store.create_version("faq-bot", f"v{number}", meta={"note": "x" * 30_000})
    served = Served(store, token=None)
    client = RegistryClient(served.url)
    try:
        assert len(await client.versions("faq-bot")) == 60
    finally:
        await client.close()
        served.stop()
        store.close()


@pytest.mark.anyio
async def test_a_closed_port_is_said_in_plain_words() -> None:
    client = RegistryClient("http://127.0.0.1:9")
    with pytest.raises(RegistryUnreachable, match=r"cannot connect .*; is `sft-guard registry serve` up\?$") as caught:
        await client.models()
    await client.close()
    assert "ssl" not in str(caught.value)
