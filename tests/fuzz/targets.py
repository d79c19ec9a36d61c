"""One function per parser of bytes from outside: it raises when the parser does what it never may.

What a parser may do with nonsense is refuse it in its own words (`DataError`, `ConfigError`...). Any other exception, a
broken invariant, or a second of processor time for one input is a finding.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from guard.admin.alerts_in import read_delivery
from guard.cache.envelope import MAGIC, Crosstalk, InvalidValue, seal, unseal
from guard.cache.types import Entry, Namespace, key_in
from guard.ports import ContextSource, Route
from guard.settings.file import GuardFile
from guard.settings.loading import Settings
from guard.wire.dialects import DIALECTS
from guard.wire.sse import EventSplitter, EventTooLarge, read_event
from rag import storage
from slo.artefact import from_json
from slo.errors import ConfigError, DataError
from slo.spec import parse_slo
from slo.strict_yaml import parse_yaml, validate_model

CORPUS = Path(__file__).parent / "corpus"
LONGEST_S = 1.0
SECRET = b"a secret of the fuzzed envelopes"
KEY = key_in(Namespace("r1", 1, "t:1", "chat"), bytes(32))
ENTRY = Entry(
    KEY, b'{"a":1}', ((b"content-type", b"application/json"),), False, "e1", ("d1",), "m", 1, 1, 0.1, 1.0, 1e9, 1e9,
    60.0, False,
)  # fmt: skip
_ROUTES = {
    name: Route("r", "/", name, ContextSource(body_path="retrieval.contexts", prompt_start="<<", prompt_end=">>"))
    for name in DIALECTS
}


def sse(data: bytes) -> None:
    """Any cutting of a stream gives the same events, whole, in order; nothing is lost or made up."""
    step, stream = 1 + (data[0] % 37 if data else 0), data[1:]
    one, many = EventSplitter(4096), EventSplitter(4096)
    try:
        whole = one.feed(stream)
        pieces = [event for at in range(0, len(stream), step) for event in many.feed(stream[at : at + step])]
    except EventTooLarge:
        return
    assert b"".join(whole) + one.rest() == stream
    if not stream.endswith(b"\r"):  # a CR at the end of a piece may be half of a CRLF
        assert b"".join(pieces) + many.rest() == stream
    for event in whole:
        read_event(event)
    for name, dialect in DIALECTS.items():
        watcher = dialect.watch(_ROUTES[name], dialect.read_request(_ROUTES[name], b'{"stream":true}'))
        for event in whole:
            watcher.see(event)


def chat_json(data: bytes) -> None:
    """Requests and answers of every dialect: forwarded as they are, whatever they are."""
    for name, dialect in DIALECTS.items():
        route = _ROUTES[name]
        facts = dialect.read_request(route, data)
        assert facts.body == data
        dialect.request_text(route, data)
        dialect.question(route, data)
        dialect.read_answer(route, data)
        if facts.understood:
            dialect.upstream_body(facts, "renamed")
        for stream in (False, True):
            with contextlib.suppress(DataError):
                dialect.extract_text(route, data, data, (), stream)


def webhook_json(data: bytes) -> None:
    """Deliveries of Alertmanager."""
    with contextlib.suppress(DataError):
        for alert in read_delivery(data).alerts:
            assert alert.fingerprint


def config(data: bytes) -> None:
    """guard.yaml or slo.yaml; refused with place and cure, or usable."""
    text = data[1:].decode("utf-8", "replace")
    try:
        if data[:1] < b"\x80":
            parse_slo(text, "slo.yaml")
            return
        file = validate_model(GuardFile, parse_yaml(text, "guard.yaml"), "guard.yaml")
        if file.admin.token_file is None:
            Settings(Path("/nonexistent/guard.yaml"), file, {}, "hash")
    except ConfigError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error


def envelope(data: bytes) -> None:
    """Cached values: as they are, and as if somebody with the secret had signed them."""
    written = data if len(data) < 40 else data[len(MAGIC) + 32 :]
    for value in (data, MAGIC + hmac.digest(SECRET, written, sha256) + written):
        with contextlib.suppress(InvalidValue, Crosstalk):
            entry = unseal(value, KEY, SECRET)
            assert entry.key == KEY


def manifest(data: bytes) -> None:
    """Pointer and manifest of a knowledge base."""
    with contextlib.suppress(DataError):
        storage._decode_pointer(data, Path("kb"))
    with contextlib.suppress(DataError):
        made = storage._decode_manifest(data, Path("m"), 1, None)
        assert all(".." not in name.split("/") and not name.startswith("/") for name in made.files)


def baseline(data: bytes) -> None:
    """Baselines: as they are, and with a hash that fits."""
    with contextlib.suppress(DataError):
        from_json(data, "baseline.json")
    with contextlib.suppress(ValueError, msgspec.MsgspecError, RecursionError):
        content = msgspec.json.decode(data)
        if isinstance(content, dict):
            from slo.artefact import _digest

            content["sha256"] = _digest(content)
            with contextlib.suppress(DataError):
                from_json(msgspec.json.encode(content), "baseline.json")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (sse, chat_json, webhook_json, config, envelope, manifest, baseline)
}


def run(name: str, data: bytes) -> None:
    """One input; also the clock is an oracle."""
    began_s = time.process_time()
    TARGETS[name](data)
    spent_s = time.process_time() - began_s
    assert spent_s < LONGEST_S, f"{spent_s:.1f} s for {len(data)} bytes"


def corpus(name: str) -> list[bytes]:
    """What is kept for a target, one hexadecimal line an input."""
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").split()
    return [bytes.fromhex(line) for line in lines]


def seeds(name: str) -> list[bytes]:
    """Well-formed inputs to begin with."""
    if name == "sse":
        events = (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', b"event: error\r\ndata: x\r\n\r\n", b": c\r\r")
        return [b"\x03" + b"".join(events) + b"data: [DONE]\n\n", *(b"\x00" + event for event in events)]
    if name == "chat_json":
        said = {"role": "assistant", "content": "yes", "tool_calls": [{"function": {"arguments": "{}"}}]}
        return [
            json.dumps(document).encode()
            for document in (
                {"model": "m", "stream": True, "user": "u", "messages": [{"role": "user", "content": "<<a>> 7?"}]},
                {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "7?"}]}]},
                {"id": "x", "model": "m", "choices": [{"message": said, "delta": said, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.1}, "retrieval": {"contexts": ["a"]}},
                {"error": {"message": "m", "type": "t", "code": 1}},
                {"type": "response.completed", "response": {"status": "failed", "usage": {"input_tokens": 1}}},
                {"input": [{"role": "user", "content": [{"type": "input_text", "text": "7?"}]}], "question": "q"},
            )
        ]  # fmt: skip
    if name == "webhook_json":
        alert = {
            "status": "firing",
            "labels": {"alertname": "A"},
            "startsAt": "2026-01-01T00:00:00Z",
            "fingerprint": "f",
        }
        return [json.dumps({"version": "4", "groupKey": "g", "truncatedAlerts": 1, "alerts": [alert]}).encode()]
    if name == "config":
        root = Path(__file__).parents[2]
        guard = "service: a\nroutes: [{name: c, path: /c, adapter: openai-chat}]\n"
        guard += 'versions: {v1: {upstreams: ["http://h:1"], model: m}}\nrelease: {stable: v1}\ncache: {ttl: 1h}\n'
        slo = "service: a\npreset: support-faq\nobjectives:\n- {name: x, indicator: sft_availability_success_rate, "
        slo += "window: 1h, threshold: {absolute: 99%}, min_events: 20}\n"
        preset = (root / "slo" / "presets" / "support-faq.yaml").read_text(encoding="utf-8")[:1000]
        return [b"\xff" + guard.encode(), b"\x00" + slo.encode(), b"\x00" + preset.encode()]
    if name == "envelope":
        return [seal(ENTRY, SECRET), seal(ENTRY, b"another")]
    if name == "manifest":
        digest = sha256(b"").hexdigest()
        return [
            storage._encode_pointer(1, digest, None),
            storage._encode_pointer(1, digest, SECRET),
            *_manifest_seeds(),
        ]
    return _baseline_seeds()


def _manifest_seeds() -> list[bytes]:
    import tempfile

    from rag.commands import kb_add, kb_init

    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "kb"
        source = Path(directory) / "a.md"
        source.write_text("# A\n\nSeven days.\n")
        kb_init(place)
        kb_add(place, text=[source])
        return [file.read_bytes() for file in sorted(place.rglob("*.json")) if file.stat().st_size < 4000]


def _baseline_seeds() -> list[bytes]:
    from slo.artefact import to_json
    from tests.unit.test_slo_baselines import of_week

    whole = msgspec.json.decode(to_json(of_week()))
    for part in whole["indicators"]:
        part["profile"] = part["profile"][:1]
    small = {**whole, "hours": whole["hours"][:1]}
    return [
        msgspec.json.encode({**small, "indicators": small["indicators"][:1]}),
        msgspec.json.encode({**small, "indicators": small["indicators"][1:3]}),
    ]
