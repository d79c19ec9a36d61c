"""Keys, admission, ages, what was taken back, envelopes: by hand, number by number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporters.labels import closed_set
from guard.cache import revocation_log
from guard.cache.breaker import Breaker
from guard.cache.care_build import NAME, KeptCare
from guard.cache.documents import cited
from guard.cache.envelope import Crosstalk, InvalidValue, seal, unseal
from guard.cache.key import KeyRules, normal_text, request_key, target_mark
from guard.cache.memory import MemoryStore
from guard.cache.policy import StorePolicy, admissible, is_negative, repeatable, ttl_s
from guard.cache.quiet import head_of
from guard.cache.revocations import Revocations
from guard.cache.types import Bypass, CacheKey, CacheRequest, Entry, Namespace, NotStored, Removed, Revocation, key_in
from guard.ports import ContextSource, Endpoint, Route, Target
from guard.replay import replay
from guard.settings.cache import REFUSALS
from guard.split import WeightedSplit
from guard.wire.http1 import read_request_head
from slo.types import CheckResult, Exchange, Finding, Outcome, Version
from tests.cache_kit import BLIND, FAILED, PASSED, Counted, Wall, memory_cache

CHAT = Route("chat", "/v1/chat/completions", "openai-chat")
SPACE = Namespace("r1", 3, "t:acme", "chat")


def head(*lines: str, target: str = "/v1/chat/completions", method: str = "POST") -> Any:
    return read_request_head("\r\n".join([f"{method} {target} HTTP/1.1", "host: g", *lines]).encode())


def key(body: Any, *lines: str, rules: KeyRules | None = None, **more: Any) -> CacheRequest | Bypass:
    given = {"release": "r1", "epoch": 3, "mark": "", "replaced": frozenset(), "pepper": b"p", **more}
    route, target = given.pop("route", CHAT), given.pop("target", "/v1/chat/completions")
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return request_key(head(*lines, target=target), raw, route, rules or KeyRules(), **given)


def digest(body: Any, *lines: str, **more: Any) -> bytes:
    found = key(body, *lines, **more)
    assert isinstance(found, CacheRequest), found
    return found.key.digest


def asked(text: str = "How many days?", **more: Any) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}


BASE = digest(asked())


@pytest.mark.parametrize(
    "body",
    [
        asked("  How many   days? "),
        asked("How many\tdays?"),
        dict(reversed(asked().items())),
        asked(stream=False),
        asked(stream_options=None),
        json.dumps(asked(), indent=3).encode(),
    ],
)
def test_writing_the_same_in_another_way_is_the_same(body: Any):
    assert digest(body) == BASE


@pytest.mark.parametrize(
    "body",
    [
        asked("How many days\uff1f"),  # full width
        asked("how many days?"),
        asked("How many days"),
        asked("How\u3000many days?"),  # ideographic space
        asked("How many\ndays?"),
        asked(stream=True),
        asked(seed=1),
        asked(user="anna"),
        asked(max_tokens=5),
        asked(max_tokens=5.0),
        asked(response_format={"type": "json_object"}),
        asked(somebody_elses_field=None),
        asked(stop=["a", "b"]),
        asked(stop=["ab"]),
        asked(stop="ab"),
        asked(temperature=0.0),
        {**asked(), "model": "m2"},
        {**asked(), "messages": [{"role": "system", "content": "How many days?"}]},
        {**asked(), "messages": [{"role": "user", "content": "How many days?", "name": "x"}]},
        {**asked(), "messages": [{"role": "user", "content": [{"type": "text", "text": "How many days?"}]}]},
    ],
)
def test_what_could_change_the_answer_changes_the_key(body: Any):
    assert digest(body) != BASE


@pytest.mark.parametrize(
    "more",
    [
        {"release": "r2"},
        {"epoch": 4},
        {"mark": "x"},
        {"target": "/v1/chat/completions?v=2"},
        {"route": replace(CHAT, name="chat2")},
    ],
)
def test_the_namespace_is_part_of_the_key(more: Any):
    assert digest(asked(), **more) != BASE


def test_headers_count_unless_they_are_known_to_be_harmless():
    harmless = ("user-agent: a", "x-stainless-os: b", "traceparent: 00-ab-cd-01", "x-guard-session: s", "accept: */*")
    assert digest(asked(), *harmless) == BASE
    lines = ("x-role: admin", "accept-language: de", "x-guard-tenant: a", "baggage: a=1", "x-guard-roles: hr")
    others = [digest(asked(), line) for line in lines]
    assert len({BASE, *others}) == 6
    rules = KeyRules(ignore_headers=frozenset({b"x-role"}), ignore_fields=frozenset({"user"}))
    assert digest({**asked(), "user": "anna"}, "x-role: admin", rules=rules) == BASE


def test_a_credential_is_a_tenant_of_its_own_and_cannot_be_read_from_the_key():
    one, two = (key(asked(), f"authorization: Bearer {secret}") for secret in ("one", "two"))
    assert isinstance(one, CacheRequest)
    assert isinstance(two, CacheRequest)
    assert one.key.namespace.tenant != two.key.namespace.tenant
    assert one.key.namespace.tenant.startswith("c:")
    assert "one" not in repr(one.key)
    assert one.personal
    # Without a tenant the caller is its credential, also when the upstream never sees it.
    replaced = key(asked(), "authorization: Bearer one", replaced=frozenset({b"authorization"}))
    assert isinstance(replaced, CacheRequest)
    assert (replaced.personal, replaced.key.namespace.tenant) == (False, one.key.namespace.tenant)
    # Within a tenant a key that the upstream checks still separates: a hit must not let in who would be refused.
    same_tenant = [digest(asked(), "x-guard-tenant: a", f"authorization: Bearer {s}") for s in ("one", "two")]
    assert same_tenant[0] != same_tenant[1]


@pytest.mark.parametrize(
    ("raw", "scope"),
    [
        (b"acme", "t:acme"),
        ("\u53f0\u7a4d".encode(), "t:\u53f0\u7a4d"),  # as `cache purge --tenant` and `semantic.tenants` name it
        (b"caf\xe9", "b:636166e9"),
    ],
    ids=["ascii", "chinese", "no utf-8"],
)
def test_a_tenant_is_called_what_people_call_it_and_is_asked_for_again_under_the_same_bytes(raw: bytes, scope: str):
    named = read_request_head(b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nx-guard-tenant: " + raw)
    found = request_key(named, json.dumps(asked()).encode(), CHAT, KeyRules(), release="r1", epoch=3, mark="",
                        replaced=frozenset(), pepper=b"p")  # fmt: skip
    assert isinstance(found, CacheRequest)
    assert found.key.namespace.tenant == scope
    assert head_of(found).notes[b"x-guard-tenant"] == raw


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (asked(temperature=0.2), Bypass.NOT_DETERMINISTIC),
        ({"messages": []}, Bypass.NOT_DETERMINISTIC),
        (asked(temperature=None), Bypass.NOT_DETERMINISTIC),
        (asked(temperature=True), Bypass.NOT_DETERMINISTIC),
        (asked(temperature=None, seed=7), Bypass.NOT_DETERMINISTIC),
        (asked(n=2), Bypass.SEVERAL_ANSWERS),
        (asked(tools=[{"type": "function"}]), Bypass.OUTSIDE_STATE),
        (asked(previous_response_id="r"), Bypass.OUTSIDE_STATE),
        (asked(store=True), Bypass.OUTSIDE_STATE),
        (asked(prompt={"id": "p"}), Bypass.OUTSIDE_STATE),
        (asked(messages=[{"role": "tool", "content": "x"}]), Bypass.OUTSIDE_STATE),
        (asked(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), Bypass.OUTSIDE_STATE),
        (asked(logprobs=True), Bypass.EXTRAS),
        (asked(modalities=["text", "audio"]), Bypass.EXTRAS),
        (b"[]", Bypass.UNREADABLE),
        (b"{", Bypass.UNREADABLE),
        (b'{"temperature":0,"temperature":1}', Bypass.UNREADABLE),
        (b'{"temperature":0,"x":NaN}', Bypass.UNREADABLE),
        (b'{"temperature":0,"x":1e999}', Bypass.UNREADABLE),
        (b'{"temperature":0,"x":"\\ud800"}', Bypass.UNREADABLE),
        (b"[" * 100_000, Bypass.TOO_LARGE),
        (b"[" * 60_000, Bypass.UNREADABLE),
        (asked("\xff").__repr__().encode("latin-1"), Bypass.UNREADABLE),
    ],
)
def test_what_may_not_be_repeated_has_no_key_and_says_why(body: Any, reason: Bypass):
    assert key(body) is reason


def test_top_p_and_the_word_of_the_operator_make_an_answer_deterministic():
    assert isinstance(key({"messages": [], "top_p": 0.01}), CacheRequest)
    assert isinstance(key(asked(temperature=0.7), rules=KeyRules(assume_deterministic=True)), CacheRequest)
    assert key(asked(), rules=KeyRules(enabled=False)) is Bypass.OFF


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        ("  a  b\t\fc ", "a b c"),
        ("e\u0301", "\u00e9"),
        ("\u8acb\u5047\uff1f", "\u8acb\u5047\uff1f"),
        ("\u8acb\u5047?", "\u8acb\u5047?"),
        ("a\r\nb  \r\n", "a\nb"),
        ("if x:\n    y = 'a  b'", "if x:\n    y = 'a  b'"),
        ("run `a  b` ", "run `a  b`"),
        ("\n \n a\n \n", "a"),
    ],
)
def test_normal_text(text: str, normal: str):
    assert normal_text(text) == normal
    assert normal_text(normal) == normal


def test_blanks_cost_no_more_than_their_length():
    # A pattern that looks for blanks before a line end would need a minute for this.
    assert normal_text(" " * 60_000 + "a\nb") == " " * 60_000 + "a\nb"


def test_what_a_target_changes_is_part_of_the_namespace_but_not_its_key():
    version, ends = Version("v"), (Endpoint("http", "h", 1),)
    plain = target_mark(Target(version, ends))
    assert plain == target_mark(Target(version, ends, (("authorization", "Bearer x"),))) == ""
    assert (
        len({plain, target_mark(Target(version, ends, (), "m2")), target_mark(Target(version, ends, (("x-a", "1"),)))})
        == 3
    )


# Admission ------------------------------------------------------------------------------------------------------------

FRESH = Exchange("e1", 1000.0, "chat", "r1", "stable", Outcome.OK, 200)


@pytest.mark.parametrize(
    ("exchange", "body", "headers", "truncated", "reason"),
    [
        (FRESH, b"{}", (), False, None),
        (replace(FRESH, outcome=Outcome.INCOMPLETE), b"{}", (), False, NotStored.NOT_OK),
        (replace(FRESH, status=204), b"{}", (), False, NotStored.NOT_OK),
        (FRESH, b" ", (), False, NotStored.NOT_OK),
        (FRESH, b"{}", (), True, NotStored.TRUNCATED),
        (FRESH, b"x" * 11, (), False, NotStored.TOO_LARGE),
        (FRESH, b"{}", ((b"content-encoding", b"gzip"),), False, NotStored.CODED),
        (FRESH, b"{}", ((b"set-cookie", b"a=1"),), False, NotStored.FORBIDDEN),
        (FRESH, b"{}", ((b"cache-control", b"max-age=3, No-Store"),), False, NotStored.FORBIDDEN),
        (FRESH, b"{}", ((b"cache-control", b"no-cache"),), False, NotStored.FORBIDDEN),
        (replace(FRESH, stream=True), b"{}", ((b"cache-control", b"no-cache"),), False, None),
        (replace(FRESH, stream=True), b"{}", ((b"cache-control", b"no-cache, private"),), False, NotStored.FORBIDDEN),
        (FRESH, b"{}", ((b"vary", b"Accept-Encoding, Origin"),), False, None),
        (FRESH, b"{}", ((b"vary", b"*"),), False, NotStored.FORBIDDEN),
    ],
)
def test_which_bytes_may_be_repeated(exchange: Exchange, body: bytes, headers: Any, truncated: bool, reason: Any):
    assert repeatable(exchange, body, headers, truncated=truncated, policy=StorePolicy(max_entry_bytes=10)) is reason


def test_a_filtered_answer_is_not_repeated():
    body = b'{"choices":[{"finish_reason": "content_filter"}]}'
    assert repeatable(FRESH, body, (), truncated=False, policy=StorePolicy()) is NotStored.CUT_SHORT


def test_the_operator_may_say_that_cache_control_is_about_browsers():
    policy, no_store = StorePolicy(ignore_cache_control=True), (b"cache-control", b"no-store")
    assert repeatable(FRESH, b"{}", (no_store,), truncated=False, policy=policy) is None
    cookie = (no_store, (b"set-cookie", b"a=1"))
    assert repeatable(FRESH, b"{}", cookie, truncated=False, policy=policy) is NotStored.FORBIDDEN


NO_HITS = (*PASSED, Finding("zero_hit", CheckResult.FAIL))


@pytest.mark.parametrize(
    ("findings", "negative", "checked", "complete"),
    [
        (PASSED, False, None, None),
        (FAILED, False, NotStored.FLAGGED, NotStored.FLAGGED),
        (BLIND, False, NotStored.UNCHECKED, None),
        ((), False, NotStored.UNCHECKED, None),
        ((Finding("query_drift", CheckResult.FAIL), *PASSED), False, None, None),
        ((Finding("similarity", CheckResult.UNAVAILABLE), *PASSED), False, None, None),
        ((Finding("grounding", CheckResult.SKIPPED), Finding("rules", CheckResult.PASS)), False, None, None),
        (NO_HITS, False, NotStored.FLAGGED, NotStored.FLAGGED),
        (NO_HITS, True, None, None),
    ],
)
def test_what_the_checks_let_in(findings: Any, negative: bool, checked: Any, complete: Any):
    assert admissible(findings, StorePolicy(), negative=negative) is checked
    assert admissible(findings, StorePolicy(admit="complete"), negative=negative) is complete


def test_refusals_are_short_and_live_shortly():
    policy = StorePolicy(ttl_s=1000.0, negative_ttl_s=10.0, jitter_ratio=0.5, refusals=REFUSALS)
    for text in (
        "I could not find this.",
        "\u5f88\u62b1\u6b49\uff0c\u6587\u4ef6\u4e2d\u6c92\u6709\u63d0\u5230\u9019\u4ef6\u4e8b\u3002",
    ):
        assert is_negative(text, policy)
    assert not is_negative("You have seven days.", policy)
    assert not is_negative("I could not find the form, but: " + "x" * 600, policy)
    assert ttl_s(bytes(32), policy, negative=True) == 10.0
    assert ttl_s(b"\x80" + bytes(31), policy, negative=False) == 750.0


def test_documents_are_known_only_when_every_context_names_its_own():
    body = ContextSource(body_path="r.contexts")
    of = {"r": {"contexts": [{"doc_id": "b"}, {"doc_id": 7}, {"doc_id": "b"}]}}
    assert cited(body, [of], ()) == ("b", "7")
    assert cited(body, [{"r": {"contexts": []}}], ()) == ()
    assert cited(body, [{"r": {"contexts": [{"doc_id": "b"}, {"text": "x"}]}}], ()) is None
    assert cited(body, [{}], ()) is None
    assert cited(ContextSource(header="X-Contexts"), [], ((b"x-contexts", b'[{"doc_id":"a"}]'),)) == ("a",)
    assert cited(ContextSource(prompt_start="<"), [], ()) == ()
    assert cited(ContextSource(), [], ()) is None


# What was taken back --------------------------------------------------------------------------------------------------


def entry(asked_s: float = 1000.0, documents: Any = ("d1",), name: bytes = b"q", **more: Any) -> Entry:
    fields: dict[str, Any] = {
        "key": key_in(SPACE, name.ljust(32, b".")), "body": b"{}", "headers": ((b"content-type", b"application/json"),),
        "stream": False, "exchange_id": "e1", "document_ids": documents, "model": "m", "input_tokens": 3,
        "output_tokens": 4, "cost_usd": 0.5, "generation_s": 2.0, "asked_wall_s": asked_s, "stored_wall_s": asked_s + 1,
        "ttl_s": 100.0, "refusal": False, **more,
    }  # fmt: skip
    return Entry(**fields)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("exchange", "e1", Removed.FLAGGED),
        ("document", "d1", Removed.DOCUMENT),
        ("release", "r1", Removed.RELEASE),
        ("tenant", "t:acme", Removed.TENANT),
        ("key", entry().key.text, Removed.KEY),
        ("all", "", Removed.ALL),
    ],
)
def test_a_line_voids_what_was_asked_before_it_and_nothing_else(kind: Any, value: str, reason: Removed):
    lines = Revocations(3600.0)
    assert lines.add(Revocation(kind, value, 1000.0))
    assert not lines.add(Revocation(kind, value, 999.0))
    assert lines.forbids(entry(1000.0)) is reason
    if kind != "exchange":
        assert lines.forbids(entry(1000.1)) is None
        assert lines.forbids(entry(1000.1), since=0) is reason  # asked before it, by a clock that was set back
    assert lines.forbids(entry(2000.0, ("d9",), b"other", exchange_id="e2")) is None
    assert list(lines.lines()) == [Revocation(kind, value, 1000.0)]


def test_unknown_sources_may_be_any_document():
    lines = Revocations(3600.0)
    lines.add(Revocation("document", "", 1000.0))
    assert lines.forbids(entry(1000.0, None)) is Removed.DOCUMENT
    assert lines.forbids(entry(1000.0, ("d1",))) is None


def test_a_list_that_overflows_voids_everything_older_than_what_it_forgot():
    lines = Revocations(3600.0, kept_count=2)
    for number in range(3):
        lines.add(Revocation("exchange", f"x{number}", 1000.0 + number))
    assert len(lines) == 2
    assert lines.forbids(entry(1000.0)) is Removed.ALL
    assert lines.forbids(entry(1000.5)) is None
    lines.prune(1002.0 + 3600.0)
    assert len(lines) == 0


def test_the_list_survives_a_restart_and_distrusts_a_damaged_file(tmp_path: Any):
    first = [Revocation("document", "d1", 1000.0), Revocation("exchange", "\u8acb", 1001.0)]
    revocation_log.append(tmp_path, first)
    revocation_log.append(tmp_path, [Revocation("tenant", "t:a", 1002.0)])
    known = Revocations(3600.0)
    assert revocation_log.load(tmp_path, known, 1100.0)
    assert list(known.lines()) == [*first, Revocation("tenant", "t:a", 1002.0)]
    file = tmp_path / revocation_log.NAME
    file.write_bytes(file.read_bytes()[:-4])  # killed while it wrote
    half = Revocations(3600.0)
    assert revocation_log.load(tmp_path, half, 1100.0)
    assert len(half) == 2
    file.write_bytes(b"\x00garbage\n" + file.read_bytes())
    damaged = Revocations(3600.0)
    assert not revocation_log.load(tmp_path, damaged, 1100.0)
    assert damaged.forbids(entry(1099.0)) is Removed.ALL
    revocation_log.rewrite(tmp_path, first)
    assert revocation_log.load(tmp_path, Revocations(3600.0), 1100.0)


# Stores ---------------------------------------------------------------------------------------------------------------


def test_the_store_in_memory_is_bounded_by_bytes_and_forgets_the_least_recently_used():
    clock, gone = Wall(), []
    store = MemoryStore(3 * entry().size_bytes, clock.now_s, lambda k, reason: gone.append((k, reason)))
    kept = [entry(name=bytes([65 + n]), exchange_id=f"e{n}") for n in range(4)]
    for one in kept[:3]:
        assert store.put(one)
    assert store.peek(kept[0].key) is kept[0]  # used, so the second goes first
    store.put(kept[3])
    assert gone == [(kept[1].key, Removed.EVICTED)]
    assert [e.exchange_id for e in store.entries()] == ["e0", "e2", "e3"]
    assert store.stats().bytes == 3 * entry().size_bytes
    assert not store.put(entry(body=b"x" * 100_000))
    assert store.revoke(Revocation("exchange", "e2", 0.0)) == 1
    assert store.revoke(Revocation("document", "d1", 0.0)) == 2
    assert store.revoke(Revocation("document", "d1", 0.0)) == 0
    assert store.stats().bytes == 0
    assert not store._of


def test_an_entry_ends_with_its_life():
    clock, gone = Wall(), []
    store = MemoryStore(10**6, clock.now_s, lambda k, reason: gone.append(reason))
    store.put(entry())
    clock.move(99.9)
    assert store.peek(entry().key) is not None
    clock.move(0.1)
    assert store.peek(entry().key) is None
    store.put(entry())
    clock.move(100)
    assert store.expire() == 1
    assert gone == [Removed.EXPIRED] * 2


def test_another_key_with_the_same_digest_would_not_get_the_answer():
    store = MemoryStore(10**6, Wall().now_s, lambda k, reason: None)
    store.put(entry())
    own = entry().key
    assert store.peek(CacheKey(replace(own.namespace, tenant="t:b"), own.fingerprint, own.digest)) is None


SECRET = b"sixteen bytes or more"


def test_an_envelope_opens_to_what_was_put_in():
    whole = entry(refusal=True, cost_usd=None, documents=None)
    assert unseal(seal(whole, SECRET), whole.key, SECRET) == whole


def test_an_envelope_of_another_key_is_crosstalk_and_of_another_secret_invalid():
    value = seal(entry(), SECRET)
    other = key_in(replace(SPACE, tenant="t:globex"), entry().key.fingerprint)
    with pytest.raises(Crosstalk):
        unseal(value, other, SECRET)
    with pytest.raises(InvalidValue):
        unseal(value, entry().key, b"another secret")
    for damaged in (b"", b"SGA1", value[:-1], value + b"x", b"\x00" + value[1:]):
        with pytest.raises(InvalidValue):
            unseal(damaged, entry().key, SECRET)


def test_the_breaker_opens_after_five_in_a_row_and_closes_only_by_the_probe():
    breaker = Breaker()
    for _ in range(4):
        breaker.failed()
    breaker.succeeded()
    for _ in range(4):
        breaker.failed()
    assert not breaker.open
    breaker.failed()
    assert breaker.open
    breaker.succeeded()
    assert breaker.open
    breaker.close()
    assert (breaker.open, breaker.failed_count, breaker.opened_count) == (False, 0, 1)


def test_a_replayed_stream_keeps_its_odd_end():
    stored = entry(body=b"data: a\n\ndata: b", stream=True, headers=((b"content-type", b"text/event-stream"),))
    response, pieces = replay(stored, True, stored.stored_wall_s + 7.9)
    assert pieces == [b"data: a\n\n", b"data: b"]
    assert [field[2] for field in response.fields] == [b"content-type: text/event-stream", b"age: 7"]


def test_every_reason_is_a_word_of_its_metric():
    for name, words in (("bypassed", Bypass), ("not_stored", NotStored), ("removed", Removed)):
        assert closed_set(f"sft_cache_{name}_total", "reason") == {word.value for word in words}


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\xff", b'{"savings": []}', b'{"savings": {"2026-01-01": {"r\xff": {}}}}', b"[" * 100_000],
    ids=["empty", "no text", "another form", "no utf-8 inside", "nested"],
)
def test_damaged_figures_of_the_past_keep_no_guard_from_starting(tmp_path: Path, damaged: bytes):
    (tmp_path / NAME).write_bytes(damaged)
    split = WeightedSplit(Target(Version("v1"), ()))
    kept: Any = KeptCare(SimpleNamespace(state_dir=tmp_path), memory_cache(), split, Counted(), Wall())
    assert kept.care.savings.rows() == []
