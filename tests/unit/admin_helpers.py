"""A backend of fixed answers, and a client that speaks ASGI so that every byte of a request can be chosen."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guard.admin import shapes
from guard.admin.access import Refusal
from guard.admin.api import COMMANDS, create_admin_app
from guard.admin.shield import ALERTS_PATH
from guard.admin.views import incident_detail, incident_row
from guard.release.incident import Difference, Evidence, Exemplar, Incident, IncidentKind, TimelineEntry
from slo.clock import Clock
from slo.errors import RefusedError
from slo.types import Version
from tests.unit.exporters_helpers import ManualClock

TOKEN = "a-token-of-some-length-0123456789"
READ = (
    "/", "/status", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json", "/api/v1/slo", "/api/v1/release",
    "/api/v1/exchanges", "/api/v1/incidents", "/api/v1/incidents/inc1", "/api/v1/incidents/inc1/postmortem",
    "/api/v1/drift", "/api/v1/baseline", "/api/v1/config", "/api/v1/stats", "/api/v1/gate",
)  # fmt: skip
WRITE = (*(f"/api/v1/release/{name}" for name in COMMANDS), "/api/v1/incidents/inc1/close", ALERTS_PATH)
METHODS = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "PROPFIND", "get")
DELIVERY = {
    "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "guard",
    "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example",
    "alerts": [{"status": "firing", "labels": {"alertname": "HighErrorRate"}, "annotations": {"summary": "bad"},
                "startsAt": "2025-06-15T15:06:40Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prom.example/graph", "fingerprint": "abc123"}],
}  # fmt: skip

INCIDENT = Incident(
    "inc1", IncidentKind.ROLLBACK, "faq-bot", 1_750_000_000.0, "hallucination", "8.1 % of 500",
    Version("v1.2.1", kb="b"), Version("v1.2.0", kb="a"), 7, timeline=(TimelineEntry(1_750_000_000.0, "breach"),),
    evidence=(Evidence("hallucination", "sft_quality_hallucination_rate", "r2", "breach", 3600.0, 500, 40, 0.08,
                       (0.061, None), 0.045, "over"),),
    differences=(Difference("kb", "a", "b"),), exemplars=(Exemplar("e1", "t1"),),
)  # fmt: skip


class FakeBackend:
    """Answers with `words` in every free-text field; remembers what it was told; fails when `error` is set."""

    def __init__(self, words: str = "fine") -> None:
        self.words = words
        self.commands: list[tuple[str, shapes.ReleaseCommand, str]] = []
        self.batches: list[shapes.AlertBatch] = []
        self.closed: list[tuple[str, str, str]] = []
        self.seen: set[tuple[str, str, str]] = set()
        self.error: Exception | None = None
        self.is_ready = True
        self.verdict = "inconclusive"

    def _may_fail(self) -> None:
        if self.error is not None:
            raise self.error

    async def metrics(self, *, openmetrics: bool) -> bytes:
        self._may_fail()
        return b"# EOF\n" if openmetrics else b"sft_guard_uptime_seconds 1\n"

    def health(self) -> shapes.Health:
        return shapes.Health("ok", "0.1.0", 90_000.0, (shapes.Part("disk", "degraded", self.words),))

    def ready(self) -> shapes.Readiness:
        return shapes.Readiness(self.is_ready, () if self.is_ready else ("draining",))

    def slo(self) -> shapes.SloReport:
        self._may_fail()
        row = shapes.SloRow(
            self.words, "sft_quality_hallucination_rate", self.words, "canary", "breach", True, 0.081, 0.045, 0.06,
            "ratio", 3600.0, 500, 400, "rollback", self.words, comparison=shapes.ComparisonRow(
                "fail", self.words, 812.0, 700.0, 0.02, 0.09, {self.words: self.words}
            ),
        )  # fmt: skip
        empty = shapes.SloRow(
            "cost", "sft_cost_inference_per_request_usd", "r1", "stable", "unknown", False, None, None, None,
            "usd", 86_400.0, 0, 400, "track", "no data",
        )  # fmt: skip
        return shapes.SloReport(self.words, None, (row, empty))

    def release_status(self) -> shapes.ReleaseStatus:
        version = shapes.VersionView(self.words, "abc123", self.words, self.words, self.words)
        return shapes.ReleaseStatus(
            "faq-bot", "enforce", "rolling_out", "auto", version, version, None, 0.1, 1, 4, 60.0, 86_400.0, 12, 400,
            7, 3, reason=self.words, recommendation=self.words, conditions=(self.words,),
        )  # fmt: skip

    async def release_command(self, name: str, body: shapes.ReleaseCommand, actor: str) -> shapes.CommandResult:
        self._may_fail()
        self.commands.append((name, body, actor))
        return shapes.CommandResult(f"{name} done", self.release_status(), mttr_s=1.5 if name == "drill" else None)

    def exchanges(self, limit: int) -> shapes.ExchangeList:
        findings = (shapes.FindingRow(self.words, "fail", 0.2, self.words),)
        row = shapes.ExchangeRow(self.words, 1_750_000_000.0, self.words, "r1", "canary", "ok", 200, self.words, 0.5,
                                 None, False, "bypass", 10, 20, "reported", 0.001, findings)  # fmt: skip
        return shapes.ExchangeList((row,) * min(limit, 3))

    async def incidents(self) -> shapes.IncidentList:
        self._may_fail()
        return shapes.IncidentList((incident_row(INCIDENT),))

    async def incident(self, incident_id: str) -> shapes.IncidentDetail | None:
        return incident_detail(INCIDENT) if incident_id == "inc1" else None

    async def postmortem(self, incident_id: str) -> str | None:
        return f"# {self.words}\n" if incident_id == "inc1" else None

    async def close_incident(self, incident_id: str, reason: str, actor: str) -> shapes.IncidentClosed:
        self._may_fail()
        if incident_id != "inc1":
            raise RefusedError("unknown_incident", f"incident {incident_id!r} is not known")
        self.closed.append((incident_id, reason, actor))
        return shapes.IncidentClosed(incident_id, self.words, 1_750_000_100.0, changed=len(self.closed) == 1)

    def drift(self) -> shapes.DriftReport:
        return shapes.DriftReport((shapes.DriftRow("r1", "query", None),))

    def quality(self) -> shapes.QualityReport:
        return shapes.QualityReport()

    def baseline(self) -> shapes.BaselineInfo:
        return shapes.BaselineInfo(False, "none yet; run `sft-guard baseline collect`")

    def config(self) -> shapes.ConfigView:
        return shapes.ConfigView("cafe", "guard.yaml", True, None, {"service": self.words})

    async def alerts_in(self, batch: shapes.AlertBatch) -> shapes.AlertsStored:
        self._may_fail()
        self.batches.append(batch)
        new = {alert.key for alert in batch.alerts} - self.seen
        self.seen |= new
        return shapes.AlertsStored(len(new), len(batch.alerts) - len(new))

    def gate(self, release: str) -> shapes.Gate:
        return shapes.Gate(shapes.GateData(self.verdict, release=release))  # type: ignore[arg-type]

    def history(self) -> shapes.History:
        points = ((1_750_000_000.0, 0.02), (1_750_000_060.0, 0.08))
        return shapes.History((shapes.Course(self.words, self.words, "canary", 0.045, points),))

    def exchange_words(self, exchange_id: str) -> shapes.Words | None:
        return shapes.Words(self.words, self.words) if exchange_id == "e1" else None

    async def saved_usd(self) -> float | None:
        return None

    def stats(self) -> shapes.Stats:
        return shapes.Stats({"queue_length": 3})


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert b"\n" not in self.body, "one line"
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["type"])


@dataclass
class Site:
    """One admin application with its clock, backend and audit."""

    token: str | None = TOKEN
    words: str = "fine"
    clock: Clock = field(default_factory=ManualClock)
    allowed_hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")
    protect_reads: bool = False
    refusals: list[Refusal] = field(default_factory=list)
    audit: Callable[[Refusal], None] | None = None

    def __post_init__(self) -> None:
        self.backend = FakeBackend(self.words)
        self.app = create_admin_app(
            self.backend, token=self.token, allowed_hosts=self.allowed_hosts, clock=self.clock,
            on_refusal=self.audit or self.refusals.append, protect_reads=self.protect_reads,
        )  # fmt: skip

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        host: str | None = "127.0.0.1:8801",
        address: str = "10.0.0.1",
        query: str = "",
    ) -> Answer:
        """Send one request. body: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = [(b"host", host.encode())] if host is not None else []
        if data and "content-type" not in dict(headers):
            sent.append((b"content-type", b"application/json"))
        if token is not None:
            sent.append((b"authorization", f"Bearer {token}".encode()))
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        sent += [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
        return await call(self.app, method, path, sent, data, address=address, query=query)


async def call(
    app: Callable[..., Awaitable[None]], method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes,
    *, address: str = "10.0.0.1", query: str = "", chunk_bytes: int = 65_536,
) -> Answer:  # fmt: skip
    """One request through an ASGI application."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": query.encode(), "headers": headers,
        "client": (address, 40_000), "server": ("127.0.0.1", 8801), "state": {},
    }  # fmt: skip
    chunks = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)] or [b""]
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not chunks:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, "one answer"
    found = {name.decode().lower(): value.decode() for name, value in starts[0]["headers"]}
    return Answer(starts[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))


def fresh(number: int) -> str:
    """An address of its own, so that the throttle of one try does not answer the next."""
    return f"10.1.{number // 250}.{number % 250}"
