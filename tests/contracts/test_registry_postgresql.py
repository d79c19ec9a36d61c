"""What only a real PostgreSQL can do to the registry: many writers, a restart, a lost answer, values it cannot keep."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from guard.cli import main
from registry import postgres
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.model import Control, Stage
from registry.store import RegistryStore
from tests.postgres_kit import Server

FIRST = Control("faq-bot", 1, "v1", canary="v2", canary_ratio=0.1, phase="rolling_out")
EPOCHS = 25
WRITERS_EACH = 6

WRITER = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from registry.errors import RegistryRefused
from registry.model import Control
from registry.store import RegistryStore

url, name, epochs, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = RegistryStore(url)
print("ready", flush=True)
sys.stdin.readline()

def write(n):
    won = []
    for epoch in range(2, epochs + 2):
        while (now := store.control("faq-bot")).epoch < epoch - 1:
            pass
        try:
            store.put_control(replace(now, epoch=epoch, stage=n), expected_epoch=epoch - 1, actor=f"{name}-{n}")
            won.append(epoch)
        except RegistryRefused as error:
            assert error.reason == "conflict", error
    return won

with ThreadPoolExecutor(threads) as pool:
    print(json.dumps([e for won in pool.map(write, range(threads)) for e in won]), flush=True)
store.close()
"""


@pytest.fixture
def server(postgresql_server: Server) -> Server:
    postgresql_server.empty()
    return postgresql_server


@pytest.fixture
def store(server: Server) -> Iterator[RegistryStore]:
    made = RegistryStore(server.url())
    yield made
    made.close()


def test_of_many_writers_in_two_processes_exactly_one_wins_each_epoch(server: Server, store: RegistryStore) -> None:
    store.put_control(FIRST, expected_epoch=0, actor="first")
    command = [sys.executable, "-c", WRITER, server.url()]
    processes = [
        subprocess.Popen(
            [*command, name, str(EPOCHS), str(WRITERS_EACH)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("left", "right")
    ]
    won: list[int] = []
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        won += json.loads(out)
    assert sorted(won) == list(range(2, EPOCHS + 2))
    now = store.control("faq-bot")
    assert now is not None
    assert now.epoch == EPOCHS + 1
    moves = [e.to_value for e in store.audit(1000) if e.action == "control"]
    assert sorted(moves) == sorted(f"epoch {n}" for n in range(1, EPOCHS + 2))  # one line per epoch, no loser's line


def test_of_many_first_documents_one_wins(store: RegistryStore) -> None:
    def write(n: int) -> bool:
        try:
            store.put_control(replace(FIRST, stage=n), expected_epoch=0, actor=f"r{n}")
        except RegistryRefused as error:
            lost.append(error.reason)
            return False
        return True

    lost: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1
    assert lost == ["conflict"] * 7


def test_the_same_registration_by_many_at_once_is_one_registration(store: RegistryStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _n: store.create_model("faq-bot", "sre", "answers"), range(8)))
        again = list(pool.map(lambda _n: store.create_version("faq-bot", "v1", meta={"dim": 3}), range(8)))
    assert len({m.created_s for m in made}) == len({v.created_s for v in again}) == 1
    assert [e.action for e in store.audit(10)] == ["create_version", "create_model"]


def test_two_promotions_at_once_leave_one_production(store: RegistryStore) -> None:
    store.create_model("faq-bot")
    names = [f"v{n}" for n in range(6)]
    for name in names:
        store.create_version("faq-bot", name)
        store.transition("faq-bot", name, Stage.STAGING, actor="a")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: store.transition("faq-bot", name, Stage.PRODUCTION, actor=name), names))
    assert [v.stage for v in store.versions("faq-bot")].count(Stage.PRODUCTION) == 1


def test_services_that_start_at_once_make_the_tables_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _n: RegistryStore(server.url()), range(4)))
    for made in stores:
        assert made.healthy()
        made.close()


def test_the_registry_outlives_a_restart_of_the_server(server: Server, store: RegistryStore) -> None:
    store.put_control(FIRST, expected_epoch=0, actor="a")
    server.stop()
    try:
        with pytest.raises(RegistryUnreachable) as caught:
            store.put_control(replace(FIRST, epoch=2), expected_epoch=1, actor="a")
        assert "\n" not in str(caught.value)
        assert "nothing was written" in str(caught.value)
        with pytest.raises(RegistryUnreachable):
            store.healthy()
    finally:
        server.start()
    assert store.healthy()
    assert store.put_control(replace(FIRST, epoch=2), expected_epoch=1, actor="a").epoch == 2


def test_a_connection_cut_in_the_middle_of_a_write_is_tried_again(server: Server, store: RegistryStore) -> None:
    cut = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def _cut(*args: object) -> None:
        if not cut and "UPDATE control" in str(args[2]):
            cut.append(server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = "
                                      "'client backend' AND pid <> pg_backend_pid()"))  # fmt: skip

    store.put_control(FIRST, expected_epoch=0, actor="a")
    store.put_control(replace(FIRST, epoch=2), expected_epoch=1, actor="a")
    assert cut
    assert [e.to_value for e in store.audit(10)] == ["epoch 2", "epoch 1"]


def test_a_connection_cut_at_the_commit_says_that_nobody_knows(server: Server, store: RegistryStore) -> None:
    store.put_control(FIRST, expected_epoch=0, actor="a")
    cut = []

    @event.listens_for(store.database.engine, "commit")
    def _cut(_connection: object) -> None:
        if not cut:
            cut.append(server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = "
                                      "'client backend' AND pid <> pg_backend_pid()"))  # fmt: skip

    with pytest.raises(RegistryUnreachable, match="nobody knows whether it was written"):
        store.put_control(replace(FIRST, epoch=2), expected_epoch=1, actor="a")
    now = store.control("faq-bot")
    assert now is not None
    assert now.epoch in (1, 2)


def test_what_the_server_undid_for_another_writer_is_tried_again(store: RegistryStore) -> None:
    """Two transactions that lock two models in opposite order: the server ends one of them, the store repeats it."""
    for name in ("a", "b"):
        store.create_model(name)
    both = threading.Barrier(2)
    tries = []

    def write(first: str, second: str) -> None:
        def work(db: sa.Connection) -> None:
            tries.append(first)
            lock = sa.text("SELECT 1 FROM models WHERE name = :name FOR UPDATE")
            db.execute(lock, {"name": first})
            if len(tries) <= 2:
                both.wait(30)
            db.execute(lock, {"name": second})

        store.database.write(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ("a", "b"), ("b", "a")))
    assert len(tries) >= 3  # at least one was undone and came again


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "x" * 300])
def test_a_value_that_the_database_cannot_keep_is_refused_not_repeated(store: RegistryStore, bad: str) -> None:
    with pytest.raises(RegistryRefused) as caught:
        store.create_model("faq-bot", owner=bad)
    assert caught.value.reason == "invalid"
    assert "\n" not in str(caught.value)


def test_an_old_style_url_takes_the_driver_that_is_installed(server: Server) -> None:
    made = RegistryStore(server.url("postgresql"))
    assert made.database.engine.dialect.driver == "psycopg"
    made.close()


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("mysql://h/d", "postgresql+psycopg://"),
        ("postgresql+psycopg://nobody@/none?host=/no/such/dir&connect_timeout=1", "check the URL and its access"),
        ("postgresql+asyncpgx://h/d", "check the URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(url: str, cure: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "serve", "--listen", "127.0.0.1:0", "--database", url]) == 2
    error = capsys.readouterr().err.strip()
    assert cure in error
    assert "\n" not in error


def test_a_missing_driver_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert main(["registry", "serve", "--database", "postgresql+psycopg://u:s3cret@h/d"]) == 2
    error = capsys.readouterr().err
    assert postgres.INSTALL in error
    assert "s3cret" not in error
