"""`ft` against a local stand-in for the API, through the official client: states, faults, resuming, one bill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.finetune.api import Caller, Patience, Unanswered, make_client
from rag.finetune.jobs import MARK, JobPlan, JobRun, ended_words, read_state, write_state
from slo.errors import ConfigError, DataError, RefusedError, UpstreamError
from tests.openai_fake import KEY, FakeApi, Fault, openai_fake

MODEL = "gpt-4o-mini-2024-07-18"
JOBS, FILES = "/fine_tuning/jobs", "/files"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with openai_fake() as running:
        yield running


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "train.jsonl", 12)


def write_rows(path: Path, count: int) -> Path:
    rows = []
    for number in range(count):
        turns = (("user", f"Question {number}?"), ("assistant", f"Answer {number}."))
        rows.append(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}))
    path.write_text("\n".join(rows) + "\n")
    return path


class Desk:
    """A run with time that passes only by sleeping, and everything it said."""

    def __init__(self, api: FakeApi, train: Path, *, key: str = KEY, give_up_s: float = 300.0) -> None:
        self.api, self.now_s = api, 0.0
        self.said: list[str] = []
        self.slept: list[float] = []
        self.state_path = train.with_name("job.json")
        self.plan = JobPlan(api.url, MODEL, train, suffix="faq")
        self.client = make_client(api.url, key, timeout_s=10.0)
        caller = Caller(lambda: self.now_s, self.sleep, self.said.append, Patience(give_up_s=give_up_s))
        self.job_run = JobRun(self.client, caller, self.state_path, self.said.append, self.sleep)
        self.die: Callable[[], bool] = lambda: False

    def sleep(self, seconds: float) -> None:
        if self.die():
            raise KeyboardInterrupt
        self.slept.append(seconds)
        self.now_s += seconds

    def run(self, **options: Any) -> Any:
        try:
            return self.job_run.run(self.plan, **options)
        finally:
            self.client.close()


def test_from_file_to_model(api: FakeApi, train: Path) -> None:
    desk = Desk(api, train)
    state = desk.run()
    assert state.status == "succeeded"
    assert state.fine_tuned_model == f"ft:{MODEL}:org:faq:0001"
    assert api.contents[state.training_file] == train.read_bytes()
    told = [line for line in desk.said if line.startswith("job ")]
    assert told == [f"job ftjob-0001: {word}" for word in ("validating_files", "queued", "running", "succeeded")]
    steps = [line for line in desk.said if "Step" in line]
    assert [line.strip()[:8] for line in steps] == [f"Step {n}/7" for n in range(1, 8)]  # each once, in order
    assert ended_words(state)[0] == f"fine_tuned_model {state.fine_tuned_model}"


def test_a_second_run_starts_nothing(api: FakeApi, train: Path) -> None:
    Desk(api, train).run()
    second = Desk(api, train)
    assert second.run().status == "succeeded"
    assert len(api.created) == 1
    assert "nothing was started" in second.said[-1]
    assert Desk(api, train).run(again=True).job_id == "ftjob-0002"  # only when asked
    assert len(api.files) == 1  # the same file is not sent twice


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", FILES, "cut"),  # in the middle of the upload
        Fault("POST", FILES, "cut_after"),
        Fault("POST", FILES, status=500),
        Fault("GET", FILES, status=503),
        Fault("POST", JOBS, "cut"),
        Fault("POST", JOBS, "cut_after"),  # the job is there and nobody was told
        Fault("POST", JOBS, status=502),
        Fault("GET", JOBS, "cut"),
        Fault("GET", f"{JOBS}/ftjob-0001", "cut"),
        Fault("GET", f"{JOBS}/ftjob-0001", status=500),
        Fault("GET", f"{JOBS}/ftjob-0001/events", status=429, retry_after_s=7),
    ],
    ids=lambda fault: f"{fault.method}-{fault.path.rpartition('/')[2]}-{fault.how}-{fault.status}",
)
def test_one_fault_anywhere_costs_time_and_never_a_second_job_or_file(api: FakeApi, train: Path, fault: Fault) -> None:
    api.faults = [replace(fault), replace(fault)]
    assert Desk(api, train).run().status == "succeeded"
    # What was obeyed is found instead of being asked for again, so the second loss of an answer never comes.
    assert len(api.faults) == (1 if fault.how == "cut_after" else 0)
    assert (len(api.created), len(api.files)) == (1, 1)


def test_retry_after_is_waited_for(api: FakeApi, train: Path) -> None:
    api.faults = [Fault("POST", JOBS, status=429, retry_after_s=33)]
    desk = Desk(api, train)
    desk.run()
    assert 33.0 in desk.slept
    assert "job: rate limited; again in 33 s" in desk.said


def test_no_credit_is_no_reason_to_wait(api: FakeApi, train: Path) -> None:
    api.faults = [Fault("POST", JOBS, status=429, code="insufficient_quota")]
    desk = Desk(api, train)
    with pytest.raises(UpstreamError, match="raise the limit or add credit"):
        desk.run()
    assert desk.slept == []
    assert Desk(api, train).run().status == "succeeded"  # and the run goes on from there
    assert (len(api.created), len(api.files)) == (1, 1)


def test_a_run_killed_at_any_call_goes_on_with_the_same_job(api: FakeApi, train: Path, tmp_path: Path) -> None:
    Desk(api, train).run()
    calls = len(api.seen)
    assert calls >= 10
    for at in range(calls):
        with openai_fake() as fresh:
            folder = tmp_path / str(at)
            folder.mkdir()
            copy = folder / "train.jsonl"
            copy.write_bytes(train.read_bytes())
            killed = Desk(fresh, copy)
            kill_at_request(killed, at)
            with pytest.raises(KeyboardInterrupt):
                killed.run()
            assert Desk(fresh, copy).run().status == "succeeded"
            assert (len(fresh.created), len(fresh.files)) == (1, 1), f"killed at call {at}"


def kill_at_request(desk: Desk, number: int) -> None:
    """The process ends after the server has obeyed request `number` and before anybody heard of it."""
    send, count = desk.client._client.send, 0

    def sending(*args: Any, **options: Any) -> Any:
        nonlocal count
        response = send(*args, **options)
        count += 1
        if count - 1 == number:
            response.close()
            raise KeyboardInterrupt
        return response

    desk.client._client.send = sending


def test_the_job_is_found_among_many_by_its_mark(api: FakeApi, train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.finetune.jobs._JOBS_SEARCHED", 10)  # of a run that was not interrupted
    api.page = 5
    for number in range(23):
        other = api.upload(f"other-{number}.jsonl", b"x")
        api.create_job({"model": MODEL, "training_file": other["id"], "metadata": {MARK: f"run {number}"}})
    api.created.clear()
    api.faults = [Fault("POST", JOBS, "cut_after")]
    desk = Desk(api, train)
    assert desk.run().job_id == "ftjob-0024"
    for number in range(30):  # and among newer ones of others, pages away
        api.create_job({"model": MODEL, "training_file": "file-0001", "metadata": {MARK: f"newer {number}"}})
    state = read_state(desk.state_path)
    assert state is not None
    write_state(desk.state_path, replace(state, job_id="", status="new"))
    assert Desk(api, train).run().job_id == "ftjob-0024"


def test_a_refused_file_is_explained_and_costs_nothing(api: FakeApi, tmp_path: Path) -> None:
    state = Desk(api, write_rows(tmp_path / "train.jsonl", 9)).run()
    assert state.status == "failed"
    assert ended_words(state) == [
        "the API says: Training file has 9 example(s), but must have at least 10 examples. (invalid_training_file)",
        "what to do: give at least 10 examples: export more with `sft-guard ft export`, then run with --again",
        "no token was trained: a job that fails before training is not billed",
    ]


@pytest.mark.parametrize(
    ("code", "message", "cure"),
    [
        ("exceeded_quota", "You exceeded your quota", "add credit"),
        ("", "The job failed due to an unsafe training file blocked by moderation", "moderation refused"),
        ("server_error", "Something happened", "read the message"),
    ],
)
def test_other_failures_have_their_cure(api: FakeApi, train: Path, code: str, message: str, cure: str) -> None:
    api.fail_with = (code, message)
    state = Desk(api, train).run()
    assert (state.status, state.error_message) == ("failed", message)
    assert cure in ended_words(state)[1]


def test_a_cancelled_job_is_told(api: FakeApi, train: Path) -> None:
    api.hold = "running"
    desk = Desk(api, train)

    def cancelled() -> bool:
        for job in api.jobs.values():
            if job["status"] == "running":
                api.end(job, "cancelled")
        return False

    desk.die = cancelled
    state = desk.run()
    assert state.status == "cancelled"
    assert "nothing was trained" in ended_words(state)[0]


def test_a_model_that_cannot_be_tuned_is_refused_in_one_line(api: FakeApi, train: Path) -> None:
    desk = Desk(api, train)
    desk.plan = replace(desk.plan, model="gpt-2")
    with pytest.raises(UpstreamError, match=r"job: refused, HTTP 400: Model gpt-2 is not available for fine-tuning"):
        desk.run()
    assert api.created == []


def test_a_wrong_key_is_named(api: FakeApi, train: Path) -> None:
    with pytest.raises(UpstreamError, match="the key is not accepted"):
        Desk(api, train, key="sk-wrong").run()


def test_nobody_there_is_given_up_in_time_and_can_be_gone_on_with(api: FakeApi, train: Path) -> None:
    api.faults = [Fault("GET", FILES, status=503) for _ in range(50)]
    desk = Desk(api, train, give_up_s=120.0)
    with pytest.raises(Unanswered, match=r"HTTP 503; gave up after .* run it again"):
        desk.run()
    assert desk.now_s <= 120.0
    api.faults.clear()
    assert Desk(api, train).run().status == "succeeded"


def test_a_state_of_other_data_is_not_touched(api: FakeApi, train: Path) -> None:
    Desk(api, train).run()
    write_rows(train, 13)
    with pytest.raises(RefusedError, match=r"belongs to another run .other train_sha256.; name another --state"):
        Desk(api, train).run()
    (train.with_name("job.json")).write_text("{")
    with pytest.raises(DataError, match="not the state of a fine-tune run"):
        Desk(api, train).run()


def test_two_runs_at_once_are_one_too_many(api: FakeApi, train: Path) -> None:
    first, second = Desk(api, train), Desk(api, train)
    refusals: list[str] = []

    def meanwhile() -> bool:
        if not refusals:
            with pytest.raises(RefusedError) as error:
                second.run()
            refusals.append(error.value.reason)
        return False

    first.die = meanwhile
    assert first.run().status == "succeeded"
    assert refusals == ["running"]
    assert len(api.created) == 1


def test_epochs_validation_and_suffix_reach_the_api(api: FakeApi, train: Path, tmp_path: Path) -> None:
    desk = Desk(api, train)
    desk.plan = replace(desk.plan, epochs=4, seed=7, validation=write_rows(tmp_path / "v.jsonl", 3))
    state = desk.run()
    (asked,) = api.created
    assert asked["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}
    assert (asked["suffix"], asked["seed"], asked["validation_file"]) == ("faq", 7, state.validation_file)


def test_no_key_is_told_before_anything_else() -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        make_client("http://127.0.0.1:1/v1", "")


def test_a_process_that_is_killed_goes_on_when_it_is_started_again(api: FakeApi, train: Path) -> None:
    api.hold = "running"
    environment = {"PATH": "/usr/bin", "OPENAI_API_KEY": KEY, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "guard.cli", "ft", "run", str(train), "--base-url", api.url, "--poll-s", "0.05"]
    process = subprocess.Popen([*command, "--json"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    with process.stderr as said:
        for line in said:
            if b": running" in line:
                process.kill()
                break
    process.wait(20)
    api.hold = ""
    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "going on with job ftjob-0001" in again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    assert (result["status"], result["job_id"]) == ("succeeded", "ftjob-0001")
    assert len(api.created) == 1
