"""What the demo stands on: processes that always end, a receiver that believes nothing unsigned, files that check."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgspec
import psutil
import pytest

from guard.demo.content import articles, questions
from guard.demo.ledger import ArmTruth
from guard.demo.measured import measured_hallucination
from guard.demo.processes import Children
from guard.demo.rebuild import too_small, whole
from guard.demo.receiver import Receiver
from guard.demo.result import ArmResult, DemoResult
from guard.demo.scene import Release, Secrets, build_kb, make_release, write_guard_yaml, write_rules
from guard.demo.stage import run_story
from guard.demo.users import Users
from guard.demo.visitors import Visitors
from guard.release.webhook import decode_secret, signed_headers
from guard.settings import load_settings
from rag.kb import KnowledgeBase
from slo.clock import SystemClock
from slo.codec import encode_exchange
from slo.errors import ConfigError, UpstreamError
from slo.pricing import PriceTable
from slo.spec import load_slo_file, parse_duration_s
from slo.types import CheckResult, Exchange, Finding, Outcome

CLOCK = SystemClock()


# -- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_child_is_ready_when_it_has_printed_so_and_ends_with_the_stage(tmp_path):
    async with Children(tmp_path) as children:
        child = children.start("one", ["-c", "import time; print('listening on 1', flush=True); time.sleep(60)"])
        assert await child.printed("listening on", CLOCK, within_s=20) == "listening on 1"
        children.check()
    assert not psutil.pid_exists(child.pid)


@pytest.mark.anyio
async def test_a_child_that_falls_down_is_reported_in_one_line_with_its_last_words(tmp_path):
    async with Children(tmp_path) as children:
        child = children.start("bad", ["-c", "import sys; print('port taken', flush=True); sys.exit(3)"])
        with pytest.raises(UpstreamError, match=r"^bad ended with status 3: port taken$"):
            await child.printed("ready", CLOCK, within_s=20)
        with pytest.raises(UpstreamError, match="status 3"):
            children.check()


@pytest.mark.anyio
async def test_children_are_stopped_also_when_the_story_is_interrupted(tmp_path):
    pids = []
    started = asyncio.Event()

    async def story():
        async with Children(tmp_path) as children:
            pids.append(children.start("one", ["-c", "import time; time.sleep(60)"]).pid)
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(story())
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not psutil.pid_exists(pids[0])


ORPHAN_MAKER = """
import os, signal, sys
from pathlib import Path
from guard.demo.processes import Children
child = Children(Path(sys.argv[1])).start("one", ["-c", "print('up', flush=True); import time; time.sleep(60)"])
while "up" not in child.log.read_text():
    pass
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only the Linux kernel tells children")
def test_a_killed_demo_leaves_no_orphan(tmp_path):
    said = subprocess.run([sys.executable, "-c", ORPHAN_MAKER, str(tmp_path)], capture_output=True, check=False)
    pid = int(said.stdout)
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlived the demo")


# -- receiver -----------------------------------------------------------------------------------------------------

BODY = msgspec.json.encode(
    {
        "type": "release.rolled_back",
        "data": {"incident_id": "inc-1", "bad": {"name": "v2"}, "target": {"name": "v1"}},
    }
)


async def deliver(port: int, headers: dict[str, str], body: bytes = BODY) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/hook", data=body, headers=headers) as response,
    ):
        return response.status


@pytest.mark.anyio
async def test_the_receiver_keeps_genuine_calls_once_and_refuses_forged_old_and_altered_ones():
    secret, other = Secrets.fresh().webhook_secret, Secrets.fresh().webhook_secret
    told = []
    receiver = Receiver(secret, CLOCK, told.append)
    port = await receiver.start()
    now_s = int(CLOCK.wall_s())

    def signed(key: str, at_s: int = now_s, body: bytes = BODY) -> dict[str, str]:
        return signed_headers([decode_secret(key)], "msg_1", at_s, body)

    try:
        assert await deliver(port, {}) == 401
        assert await deliver(port, signed(other)) == 401
        assert await deliver(port, signed(secret, now_s - 3600)) == 401
        assert await deliver(port, signed(secret), BODY + b" ") == 401
        assert await deliver(port, signed(secret, body=b"{}"), b"{}") == 400
        assert receiver.calls == []
        assert await deliver(port, signed(secret)) == 204
        assert await deliver(port, signed(secret)) == 204
    finally:
        await receiver.stop()
    assert [(c.incident_id, c.bad, c.target) for c in receiver.calls] == [("inc-1", "v2", "v1")]
    assert told == receiver.calls
    assert receiver.refused == ["missing_header", "bad_signature", "too_old", "bad_signature", "malformed"]


# -- files --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kbs")


@pytest.fixture(scope="module")
def releases(directory) -> tuple[Release, Release]:
    made = []
    for name, build, port in (("v1.2.0", whole(articles()), 9001), ("v1.2.1", too_small(articles(), 1), 9002)):
        kb = build_kb(directory / name, build, None)
        made.append(make_release(name, build, kb, port))
    return made[0], made[1]


def test_the_knowledge_bases_hold_every_row_of_their_build_the_empty_and_double_ones_too(directory, releases):
    stable, canary = releases
    assert stable.version.release_id != canary.version.release_id
    for release in releases:
        kb = KnowledgeBase.open(directory / release.version.name)
        assert [(d.doc_id, d.text) for d in kb.documents] == [(r.doc_id, r.text) for r in release.build.rows]


def test_the_written_configuration_is_one_the_guard_accepts(tmp_path, releases):
    secrets = Secrets.fresh()
    write_rules(tmp_path)
    write_guard_yaml(
        tmp_path / "guard.yaml", releases, embedder="none", webhook_port=9003, enforce=True, token=True, baseline=True
    )
    settings = load_settings(tmp_path / "guard.yaml", secrets.environment())
    assert settings.admin_token == secrets.admin_token
    assert settings.file.release.mode == "enforce"
    assert settings.file.release.stable == "v1.2.0"
    assert {t.version.release_id for t in settings.targets.values()} == {r.version.release_id for r in releases}
    rules = load_slo_file(tmp_path / "slo.yaml")
    assert [s.name for s in rules.objectives if s.threshold.form == "baseline"] == ["hallucination"]
    assert PriceTable.load(tmp_path / "prices.yaml").cost_usd("demo-simulated", 1_000_000, 0) == pytest.approx(0.15)


def test_the_baseline_of_the_demo_has_the_window_of_the_rule_that_uses_it(tmp_path):
    from guard.demo.scene import WINDOW

    write_rules(tmp_path)
    rules = {s.name: s for s in load_slo_file(tmp_path / "slo.yaml").objectives}
    assert rules["hallucination"].window.length_s == parse_duration_s(WINDOW)


def test_a_directory_with_files_in_it_is_not_used(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(ConfigError, match="name an empty directory"):
        run_story(seed=1, incident=True, rate=20, max_s=1, keep=tmp_path, warm_up_s=None, canary_answers=None)


def test_a_rate_of_nothing_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="more than 0"):
        run_story(seed=1, incident=True, rate=0, max_s=1, keep=None, warm_up_s=None, canary_answers=None)


# -- measuring ----------------------------------------------------------------------------------------------------


def test_what_the_guard_measured_is_read_from_its_log_from_the_release_on(tmp_path):
    def line(wall_s: float, release: str, result: CheckResult) -> bytes:
        finding = Finding("grounding", result)
        return encode_exchange(Exchange("e", wall_s, "chat", release, "stable", Outcome.OK, 200, findings=(finding,)))

    rows = [line(5.0, "a", CheckResult.FAIL), line(10.0, "a", CheckResult.PASS), line(11.0, "a", CheckResult.FAIL)]
    rows += [line(12.0, "a", CheckResult.PASS), line(12.0, "b", CheckResult.UNAVAILABLE)]
    (tmp_path / "exchanges-1.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    assert measured_hallucination(tmp_path, 10.0) == {"a": (3, pytest.approx(1 / 3))}


@pytest.mark.anyio
async def test_an_answer_that_does_not_come_is_a_failed_one_and_no_error():
    users = Users(questions(), seed=1, rate=5.0)
    async with aiohttp.ClientSession() as session:
        visitors = Visitors(users, "http://127.0.0.1:9/v1/chat/completions", session, CLOCK, lambda _: None)
        answered = await visitors.ask(next(iter(users)))
    assert (answered.status, answered.text, answered.release) == (0, "", "")


# -- result -------------------------------------------------------------------------------------------------------


UNSEEN = ArmResult("v", 60, 0.1, ArmTruth(3010, 2500, 100, 300, 100, 10))
FEW = ArmResult("v", 9, 0.0, ArmTruth(9, 9, 0, 0, 0, 0))


def result(**changes) -> DemoResult:
    arm = ArmResult("v", 300, 0.1, ArmTruth(300, 250, 10, 30, 10, 0))
    made = DemoResult(
        seed=1, incident=True, rolled_back=True, detected_after_s=31.26, webhook_verified=True,
        stable_rolled_back=False, next_from_stable=True, incident_id="inc-1", reason="breach", recovery="recovered",
        asked_count=900,
        turned_away_count=0, stable=arm, canary=arm, duration_s=100.0, timeline=(),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"rolled_back": False}, False),
        ({"webhook_verified": False}, False),
        ({"next_from_stable": False}, False),
        ({"stable_rolled_back": True}, False),
        ({"incident": False}, False),
        ({"incident": False, "rolled_back": False}, True),
        ({"incident": False, "rolled_back": False, "stable_rolled_back": True}, False),
        (
            {"incident": False, "rolled_back": False, "canary": ArmResult("v", 9, 0.0, ArmTruth(9, 9, 0, 0, 0, 0))},
            False,
        ),
    ],
)
def test_a_run_is_as_expected_only_when_everything_it_claims_is_true(changes, expected):
    made = result(**changes)
    assert made.as_expected is expected
    assert made.to_json()["as_expected"] is expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "rolled back 31 s after its first bad answer"),
        ({"rolled_back": False}, "NOT AS EXPECTED: the bad canary was not rolled back"),
        ({"incident": False}, "NOT AS EXPECTED: the canary was rolled back"),
        ({"incident": False, "rolled_back": False}, "no rollback, as it should be"),
        ({"stable_rolled_back": True}, "NOT AS EXPECTED: stable was rolled back"),
        ({"webhook_verified": False}, "webhook signature NOT VERIFIED"),
        ({"turned_away_count": 7}, "7 questions were not asked"),
        ({"rolled_back": False, "stable": UNSEEN}, "the checks came to 360 of 3300 answers only"),
    ],
)
def test_the_summary_says_what_happened_to_a_person(changes, said):
    summary = result(**changes).summary()
    assert said in summary
    assert ("the checks came to" in summary) is ("stable" in changes)


def test_the_json_of_a_result_has_the_agreed_names():
    document = result().to_json()
    agreed = {"rolled_back", "detected_after_s", "webhook_verified", "stable_rolled_back", "incident_id"}
    assert agreed <= set(document)
    assert document["detected_after_s"] == 31.3
    assert document["canary"]["truth"]["bad_ratio"] == pytest.approx(0.1333)
    msgspec.json.encode(document)
