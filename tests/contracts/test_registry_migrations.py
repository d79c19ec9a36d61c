"""Registries of earlier programs are brought up to date when they are opened, on both databases; none goes back.

tests/data/registry_r0001.sql is a dump of a database that a program from before the first revision wrote.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from guard.cli import main
from registry import migrating, tables
from registry.errors import RegistryUnreachable
from registry.model import Lineage, Stage
from registry.store import RegistryStore
from tests.postgres_kit import Server

DUMP = (Path(__file__).parents[1] / "data" / "registry_r0001.sql").read_text(encoding="utf-8")


def old_sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(DUMP)
    return f"sqlite:///{path}"


def old_postgresql(server: Server) -> str:
    server.empty()
    engine = sa.create_engine(server.url())
    with engine.begin() as db:
        settings = migrating.config()
        settings.attributes["connection"] = db
        command.upgrade(settings, migrating.FIRST)
        db.execute(sa.text("DROP TABLE alembic_version"))
        for line in DUMP.splitlines():
            if line.startswith("INSERT") and "reserve" not in line:
                db.exec_driver_sql(line)
        db.execute(sa.text("SELECT setval('audit_entry_id_seq', 7)"))
    engine.dispose()
    return server.url()


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database of the first kind."""
    if request.param == "sqlite":
        return old_sqlite(tmp_path / "registry.db")
    return old_postgresql(request.getfixturevalue("postgresql_server"))


def test_an_old_registry_is_upgraded_without_loss(old: str) -> None:
    store = RegistryStore(old)
    versions = {v.version: v for v in store.versions("faq-bot")}
    assert {name: v.stage for name, v in versions.items()} == {"v1.2.0": Stage.PRODUCTION, "v1.2.1": Stage.STAGING}
    assert dict(versions["v1.2.1"].meta) == {"artifact_type": "Release", "kb": "v1.2.1"}
    assert versions["v1.2.0"].tags == ("release",)
    assert versions["v1.2.0"].lineage == Lineage()
    control = store.control("faq-bot")
    assert control is not None
    assert (control.epoch, control.canary, control.canary_ratio) == (1, "v1.2.1", 0.1)
    audit = store.audit(10)
    assert [e.entry_id for e in audit] == [7, 6, 5, 4, 3, 2, 1]
    assert audit[-1].time_s == 1750000000.0
    # What was remembered still holds: the fence, and keys that were used.
    assert store.transition("faq-bot", "v1.2.1", Stage.STAGING, actor="g", key="staged-v1.2.1") == ()
    store.transition("faq-bot", "v1.2.1", Stage.PRODUCTION, actor="ann", epoch=3)
    assert store.aliases("faq-bot") == {"champion": "v1.2.1", "previous": "v1.2.0"}
    store.close()
    again = RegistryStore(old)
    assert again.aliases("faq-bot") == {"champion": "v1.2.1", "previous": "v1.2.0"}
    again.close()


def test_a_program_from_before_still_writes_to_an_upgraded_registry(old: str) -> None:
    store = RegistryStore(old)
    with store.database.engine.begin() as db:
        db.execute(
            sa.text(
                "INSERT INTO models (name, owner, description, created_s, fence_epoch) VALUES ('old', 'o', '', 1.0, 0)"
            )
        )
        db.execute(
            sa.text(
                "INSERT INTO versions (model, version, stage, artifact_url, description, tags, meta, created_s) "
                "VALUES ('old', 'v1', 'None', '', '', '[]', '{}', 1.0)"
            )
        )
    assert store.version("old", "v1").lineage == Lineage()
    assert store.aliases("old") == {}
    store.close()


def test_revisions_lead_to_the_tables_of_today(old: str, tmp_path: Path) -> None:
    RegistryStore(old).close()
    engine = sa.create_engine(old)
    with engine.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        differences = [d for d in compare_metadata(context, tables.metadata) if "reserve" not in str(d)]
        assert differences == []
        assert migrating.revision_of(db) == tables.REVISION
    engine.dispose()
    assert ScriptDirectory.from_config(migrating.config()).get_current_head() == tables.REVISION
    fresh = RegistryStore(f"sqlite:///{tmp_path}/fresh.db")
    with fresh.database.read() as db:
        assert migrating.revision_of(db) == tables.REVISION
    fresh.close()


def test_a_registry_of_a_newer_program_is_refused_and_left_alone(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    RegistryStore(old).close()
    engine = sa.create_engine(old)
    with engine.begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = 'r9999'"))
    with pytest.raises(RegistryUnreachable, match=r"'r9999' is not known here.*run a newer sft-guard"):
        RegistryStore(old)
    assert main(["registry", "serve", "--listen", "127.0.0.1:0", "--database", old]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    with engine.connect() as db:
        assert migrating.revision_of(db) == "r9999"
    engine.dispose()


def test_nothing_is_ever_taken_back(old: str) -> None:
    store = RegistryStore(old)
    store.create_version("faq-bot", "v2", lineage=Lineage(data_hash="sha256:1"))
    settings = migrating.config()
    with store.database.engine.begin() as db:
        settings.attributes["connection"] = db
        with pytest.raises(NotImplementedError, match="restore a copy"):
            command.downgrade(settings, "-1")
    assert store.version("faq-bot", "v2").lineage.data_hash == "sha256:1"
    store.close()


def test_an_upgrade_that_fails_half_way_leaves_what_was_there(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise sa.exc.OperationalError("CREATE TABLE", {}, Exception("disk full"))

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_table", full)
        with pytest.raises(RegistryUnreachable, match="disk full"):
            RegistryStore(old)
    engine = sa.create_engine(old)
    with engine.connect() as db:
        held = sa.inspect(db)
        assert "alembic_version" not in held.get_table_names()
        assert "previous" not in [column["name"] for column in held.get_columns("models")]
    engine.dispose()
    store = RegistryStore(old)
    assert len(store.versions("faq-bot")) == 2
    store.close()


def test_services_that_start_at_once_upgrade_once(old: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(RegistryStore, [old] * 3))
    assert {len(store.versions("faq-bot")) for store in stores} == {2}
    for store in stores:
        store.close()
