"""One fine-tuning job from file to model, resumable at every point and paid once.

    state file ─► upload (or find the file) ─► create (or find the job) ─► poll ─► succeeded | failed | cancelled

The state is written before and after each step. A run that was killed between asking for a job and hearing its id finds
the job again by the mark in its metadata, and a file by its name, which carries the hash of what is in it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from rag.finetune.api import Caller
from rag.finetune.cursor import write_file
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError

MARK = "sft_guard_run"
"""Metadata key of a job: the run it belongs to."""

ENDED = frozenset({"succeeded", "failed", "cancelled"})
_JOBS_SEARCHED = 500
_FILES_SEARCHED = 2000
_EVENTS_PAGE = 50


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What to train. epochs: None leaves the choice to the API. suffix: part of the model's name."""

    base_url: str
    model: str
    train: Path
    validation: Path | None = None
    suffix: str = ""
    epochs: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class JobState:
    """job.json: everything needed to go on, and at the end what came of it."""

    run_id: str
    base_url: str
    model: str
    train_sha256: str
    validation_sha256: str = ""
    suffix: str = ""
    epochs: int | None = None
    training_file: str = ""
    validation_file: str = ""
    job_id: str = ""
    status: str = "new"
    fine_tuned_model: str = ""
    trained_tokens: int | None = None
    created_at: int | None = None
    finished_at: int | None = None
    error_code: str = ""
    error_message: str = ""
    last_event: str = ""


def read_state(path: Path) -> JobState | None:
    """The state of a run; None where there is none.

    Raises:
        DataError: the file is none. Starting anew could pay twice, so it is not overwritten.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=JobState)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except NOT_JSON as error:
        raise DataError(f"{path}: not the state of a fine-tune run ({error}); name another --state") from error


def write_state(path: Path, state: JobState) -> None:
    """Raises DataError: it cannot be written."""
    write_file(path, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")


class JobRun:
    """Runs one plan. client: of `rag.finetune.api.make_client`. say: told of progress, one line each."""

    def __init__(
        self, client: Any, caller: Caller, state_path: Path, say: Callable[[str], None], sleep: Callable[[float], None]
    ) -> None:
        self._client, self._caller, self._path, self._say, self._sleep = client, caller, state_path, say, sleep
        self._interrupted = False

    def run(self, plan: JobPlan, *, again: bool = False, poll_s: float = 10.0) -> JobState:
        """Bring the plan to its end, from wherever it is.

        again: start another job although one has ended.

        Raises:
            RefusedError: `other_run`, the state file belongs to other data or settings; `running`, somebody is at it.
            UpstreamError: the API refused, or nobody answered; run it again to go on.
        """
        with _alone(self._path):
            state = self._resumed(plan, again)
            if state.status in ENDED:
                self._say(f"job {state.job_id} has ended already: {state.status}; nothing was started")
                return state
            if not state.job_id:
                state = self._with_files(plan, state)
                state = self._with_job(plan, state)
            return self.poll(state, poll_s)

    def poll(self, state: JobState, poll_s: float = 10.0) -> JobState:
        """Wait for the end of the job, telling each new status and event.

        Raises:
            UpstreamError: the API refused, or nobody answered.
        """
        while True:
            state = self.look(state)
            if state.status in ENDED:
                return state
            self._sleep(poll_s)

    def look(self, state: JobState) -> JobState:
        """Ask once how the job stands, tell what is new, and write it down."""
        job = self._caller.read("job", lambda: self._client.fine_tuning.jobs.retrieve(state.job_id))
        state = self._tell_events(state)
        if job.status != state.status:
            self._say(f"job {job.id}: {job.status}")
        error = job.error if job.error is not None and (job.error.code or job.error.message) else None
        state = replace(
            state,
            status=job.status,
            fine_tuned_model=job.fine_tuned_model or "",
            trained_tokens=job.trained_tokens,
            created_at=job.created_at,
            finished_at=job.finished_at,
            error_code=error.code if error else "",
            error_message=error.message if error else "",
        )
        write_state(self._path, state)
        return state

    def _resumed(self, plan: JobPlan, again: bool) -> JobState:
        train = _sha256(plan.train)
        validation = _sha256(plan.validation) if plan.validation else ""
        fresh = JobState(
            uuid4().hex, plan.base_url, plan.model, train, validation, plan.suffix, plan.epochs
        )  # fmt: skip
        known = read_state(self._path)
        if known is None or (again and known.status in ENDED):
            write_state(self._path, fresh)
            return fresh
        same = ("base_url", "model", "train_sha256", "validation_sha256", "suffix", "epochs")
        if other := [name for name in same if getattr(known, name) != getattr(fresh, name)]:
            raise RefusedError(
                "other_run",
                f"{self._path}: belongs to another run (other {', '.join(other)}); name another --state for this one"
                + (
                    ""
                    if known.status in ENDED
                    else f", or go on with that one: its job is {known.job_id or 'not made'}"
                ),
            )
        self._interrupted = not known.job_id
        if known.job_id and known.status not in ENDED:
            self._say(f"going on with job {known.job_id} ({known.status})")
        return known

    def _with_files(self, plan: JobPlan, state: JobState) -> JobState:
        if not state.training_file:
            state = replace(state, training_file=self._upload(plan.train, state.train_sha256))
            write_state(self._path, state)
        if plan.validation and not state.validation_file:
            state = replace(state, validation_file=self._upload(plan.validation, state.validation_sha256))
            write_state(self._path, state)
        return state

    def _upload(self, path: Path, digest: str) -> str:
        name, data = f"sft-guard-{digest[:24]}.jsonl", path.read_bytes()

        def find() -> Any:
            for number, file in enumerate(self._client.files.list(purpose="fine-tune")):
                if file.filename == name and file.bytes == len(data) and file.status != "error":
                    return file
                if number >= _FILES_SEARCHED:
                    break
            return None

        self._say(f"uploading {path.name} ({len(data)} bytes)")
        upload = (name, data, "application/jsonl")
        file = self._caller.create("upload", find, lambda: self._client.files.create(file=upload, purpose="fine-tune"))
        self._say(f"file {file.id}")
        return str(file.id)

    def _with_job(self, plan: JobPlan, state: JobState) -> JobState:
        def find() -> Any:
            for number, job in enumerate(self._client.fine_tuning.jobs.list(limit=100)):
                if (job.metadata or {}).get(MARK) == state.run_id:
                    return job
                # Of an interrupted run the job may be any number of others ago; a new one is among the newest.
                if number >= _JOBS_SEARCHED and not self._interrupted:
                    break
            return None

        options: dict[str, Any] = {}
        if plan.suffix:
            options["suffix"] = plan.suffix
        if state.validation_file:
            options["validation_file"] = state.validation_file
        if plan.seed is not None:
            options["seed"] = plan.seed
        if plan.epochs is not None:
            supervised = {"hyperparameters": {"n_epochs": plan.epochs}}
            options["method"] = {"type": "supervised", "supervised": supervised}

        def create() -> Any:
            return self._client.fine_tuning.jobs.create(
                model=plan.model, training_file=state.training_file, metadata={MARK: state.run_id}, **options
            )

        job = self._caller.create("job", find, create)
        self._say(f"job {job.id}: {job.status}")
        state = replace(state, job_id=job.id, status=job.status, created_at=job.created_at)
        write_state(self._path, state)
        return state

    def _tell_events(self, state: JobState) -> JobState:
        """Tell the events after the last one told; the API gives the newest first."""

        def fetch() -> list[Any]:
            fresh = []
            for event in self._client.fine_tuning.jobs.list_events(state.job_id, limit=_EVENTS_PAGE):
                if event.id == state.last_event:
                    break
                fresh.append(event)
            return fresh

        fresh = self._caller.read("events", fetch)
        for event in reversed(fresh):
            self._say(f"  {event.message}")
        return replace(state, last_event=fresh[0].id) if fresh else state


def ended_words(state: JobState) -> list[str]:
    """What a person should know about a job that has ended, a line each."""
    if state.status == "succeeded":
        return [f"fine_tuned_model {state.fine_tuned_model}", f"trained tokens: {state.trained_tokens}"]
    if state.status == "cancelled":
        paid = f"{state.trained_tokens} tokens were trained" if state.trained_tokens else "nothing was trained"
        return [f"the job was cancelled; {paid}. Start another one with --again"]
    lines = [f"the API says: {state.error_message or 'no reason'} ({state.error_code or 'no code'})"]
    lines.append(f"what to do: {cure_for(state.error_code, state.error_message)}")
    if not state.trained_tokens:
        lines.append("no token was trained: a job that fails before training is not billed")
    return lines


_CURES: Mapping[str, str] = {
    "invalid_training_file": "check the file with `sft-guard ft check FILE`, mend the lines it names, run with --again",
    "invalid_validation_file": "check the validation file with `sft-guard ft check FILE`, then run with --again",
    "invalid_n_examples": "give at least 10 examples: export more with `sft-guard ft export`, then run with --again",
    "exceeded_quota": "raise the limit or add credit, then run with --again",
    "billing_hard_limit_reached": "raise the limit or add credit, then run with --again",
    "model_not_available": "choose another --model; the guide of the API lists those that can be fine-tuned",
    "unsafe_file": "the API's moderation refused examples: take out what it names, then run with --again",
}


def cure_for(code: str, message: str) -> str:
    """What helps against a failed job.

    >>> cure_for("", "Training file has 9 example(s), but must have at least 10 examples")[:29]
    'give at least 10 examples: ex'
    """
    if code in _CURES and not (code == "invalid_training_file" and "at least" in message):
        return _CURES[code]
    lower = message.lower()
    for needle, known in (
        ("at least 10", "invalid_n_examples"), ("quota", "exceeded_quota"), ("moderation", "unsafe_file"),
        ("usage polic", "unsafe_file"), ("format", "invalid_training_file"), ("line ", "invalid_training_file"),
    ):  # fmt: skip
        if needle in lower:
            return _CURES[known]
    return "read the message of the API; when it is not about your file, run with --again"


@contextmanager
def _alone(state_path: Path) -> Iterator[None]:
    """One run at a time per state file: two would each ask for a job. The lock ends with the process."""
    try:
        lock = state_path.with_name(f".{state_path.name}.lock").open("a")
    except OSError as error:
        raise DataError(f"{state_path}: cannot be written ({error.strerror}); name another --state") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RefusedError("running", f"{state_path}: another run is at it; wait for it, or stop it") from error
        yield


def _sha256(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it with `sft-guard ft export`") from error
