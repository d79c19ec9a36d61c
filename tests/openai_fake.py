"""A local stand-in for the files, fine-tuning and chat endpoints of the OpenAI API, faithful in form. Real sockets.

Jobs go validating_files -> queued -> running -> succeeded, one state at each look; a training file is validated as the
API does it and fails the job otherwise. Faults are scripted: the next requests that match meet them.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test"
STATES = ("validating_files", "queued", "running", "succeeded")


@dataclass
class Fault:
    """What the next matching request meets.

    how: "status" (status, retry_after_s, code), "cut" (before it is obeyed), "cut_after" (obeyed, answer lost).
    """

    method: str
    path: str
    how: str = "status"
    status: int = 503
    retry_after_s: float | None = None
    code: str = ""


@dataclass
class FakeApi:
    """State of the fake. created: requests that created a job; more than one for one run is a second bill."""

    base_models: tuple[str, ...] = ("gpt-4o-mini-2024-07-18",)
    page: int = 20
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    hold: str = ""  # a state that jobs do not leave
    fail_with: tuple[str, str] | None = None  # (code, message) instead of success
    chat: Callable[[str, list[dict[str, Any]]], str] = lambda model, messages: "hello"
    clock_s: int = 1_790_000_000
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        file_id = f"file-{len(self.files) + 1:04d}"
        self.contents[file_id] = data
        self.files[file_id] = {
            "id": file_id, "object": "file", "bytes": len(data), "created_at": self.tick(), "filename": name,
            "purpose": "fine-tune", "status": "processed",
        }  # fmt: skip
        return self.files[file_id]

    def create_job(self, body: dict[str, Any]) -> dict[str, Any]:
        job_id = f"ftjob-{len(self.jobs) + 1:04d}"
        epochs = body.get("method", {}).get("supervised", {}).get("hyperparameters", {}).get("n_epochs", "auto")
        self.jobs[job_id] = {
            "id": job_id, "object": "fine_tuning.job", "model": body["model"], "created_at": self.tick(),
            "finished_at": None, "fine_tuned_model": None, "organization_id": "org-1", "result_files": [],
            "status": STATES[0], "validation_file": body.get("validation_file"), "training_file": body["training_file"],
            "hyperparameters": {"n_epochs": epochs}, "trained_tokens": None, "error": {}, "seed": 1,
            "metadata": body.get("metadata"), "suffix": body.get("suffix") or "",
        }  # fmt: skip
        self.events[job_id] = []
        self.created.append(body)
        self.event(job_id, f"Created fine-tuning job: {job_id}")
        return self.jobs[job_id]

    def step(self, job: dict[str, Any]) -> None:
        """One state further, as time would."""
        if job["status"] == self.hold or job["status"] not in STATES[:-1]:
            return
        following = STATES[STATES.index(job["status"]) + 1]
        data = self.contents[job["training_file"]]
        if job["status"] == STATES[0] and (problem := validation_problem(data)):
            self.end(
                job, "failed", error={"code": "invalid_training_file", "message": problem, "param": "training_file"}
            )
            return
        if following == "succeeded":
            if self.fail_with:
                code, message = self.fail_with
                self.end(job, "failed", error={"code": code, "message": message, "param": None})
                return
            for step in range(1, 8):
                self.event(job["id"], f"Step {step}/7: training loss={1 / step:.2f}", kind="metrics")
            job["trained_tokens"] = len(data) // 4 * 3
            job["fine_tuned_model"] = f"ft:{job['model']}:org:{job['suffix']}:{job['id'][-4:]}"
            self.end(job, "succeeded")
            return
        job["status"] = following
        self.event(job["id"], f"Fine-tuning job is {following}")

    def end(self, job: dict[str, Any], status: str, error: dict[str, Any] | None = None) -> None:
        job["status"], job["finished_at"], job["error"] = status, self.tick(), error or {}
        self.event(job["id"], f"The job has {status}")

    def event(self, job_id: str, message: str, kind: str = "message") -> None:
        number = sum(len(events) for events in self.events.values())
        self.events[job_id].insert(0, {
            "id": f"ftevent-{number:05d}", "object": "fine_tuning.job.event", "created_at": self.tick(),
            "level": "info", "message": message, "type": kind, "data": {},
        })  # fmt: skip

    def tick(self) -> int:
        self.clock_s += 1
        return self.clock_s


def validation_problem(data: bytes) -> str:
    """Why the API would refuse a training file, in its words."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            messages = json.loads(line)["messages"]
            roles = [message["role"] for message in messages]
        except (ValueError, KeyError, TypeError):
            return f"Invalid file format. Line {number}: each example must be a JSON object with messages."
        if not set(roles) <= {"system", "user", "assistant"} or roles[-1] != "assistant":
            return f"Invalid file format. Example {number} is missing an assistant message."
    if len(lines) < 10:
        return f"Training file has {len(lines)} example(s), but must have at least 10 examples."
    return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: FakeApi

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        path, _, query = self.path.removeprefix("/v1").partition("?")
        with self.api.lock:
            self.api.seen.append(f"{method} {path}")
            fault = next((f for f in self.api.faults if f.method == method and re.fullmatch(f.path, path)), None)
            if fault is not None:
                self.api.faults.remove(fault)
            if fault is not None and fault.how == "cut":
                self.rfile.read(min(1024, int(self.headers.get("content-length") or 0)))  # in the middle of the body
                return self._cut()
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if fault is not None and fault.how == "status":
                headers = {} if fault.retry_after_s is None else {"retry-after": f"{fault.retry_after_s:g}"}
                return self._send(fault.status, error(fault.code or "server_error", "scripted"), headers)
            if self.headers.get("authorization") != f"Bearer {KEY}":
                return self._send(401, error("invalid_api_key", "Incorrect API key provided"))
            status, answer = self._answer(method, path, dict(p.split("=", 1) for p in query.split("&") if p), body)
            if fault is not None:  # obeyed, and the answer is lost
                return self._cut()
        return self._send(status, answer)

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        api = self.api
        if (method, path) == ("POST", "/files"):
            name, data = multipart_file(self.headers["content-type"], body)
            return 200, api.upload(name, data)
        if (method, path) == ("GET", "/files"):
            return 200, page(list(reversed(api.files.values())), query, api.page)
        if (method, path) == ("POST", "/fine_tuning/jobs"):
            asked = json.loads(body)
            if asked["model"] not in api.base_models:
                return 400, error("model_not_available", f"Model {asked['model']} is not available for fine-tuning")
            if asked["training_file"] not in api.files:
                return 400, error("invalid_file", f"No such File object: {asked['training_file']}")
            return 200, api.create_job(asked)
        if (method, path) == ("GET", "/fine_tuning/jobs"):
            return 200, page(list(reversed(api.jobs.values())), query, api.page)
        if found := re.fullmatch(r"/fine_tuning/jobs/([^/]+)(/events)?", path):
            job = api.jobs.get(found[1])
            if job is None:
                return 404, error("not_found", f"No such job: {found[1]}")
            if found[2]:
                return 200, page(api.events[job["id"]], query, api.page)
            api.step(job)
            return 200, job
        if (method, path) == ("POST", "/chat/completions"):
            asked = json.loads(body)
            text = api.chat(asked["model"], asked["messages"])
            return 200, {
                "id": "chatcmpl-1", "object": "chat.completion", "created": api.tick(), "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
            }  # fmt: skip
        return 404, error("not_found", f"Invalid URL ({method} /v1{path})")

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _cut(self) -> None:
        """Reset the connection, so that the client sees neither answer nor orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def page(rows: list[dict[str, Any]], query: dict[str, str], most: int) -> dict[str, Any]:
    """One page after the id `after`, as the cursor pages of the API."""
    ids = [row["id"] for row in rows]
    start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    size = min(most, int(query.get("limit", most)))
    data = rows[start : start + size]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": start + size < len(rows), **ends}


def multipart_file(content_type: str, body: bytes) -> tuple[str, bytes]:
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    for part in message.iter_parts():  # type: ignore[attr-defined]
        if part.get_filename():
            return str(part.get_filename()), part.get_payload(decode=True)
    raise AssertionError("no file in the upload")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut on purpose is no error of the test."""


@contextmanager
def openai_fake(**given: Any) -> Iterator[FakeApi]:
    """A running fake; `url` ends in /v1."""
    api = FakeApi(**given)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    api.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
