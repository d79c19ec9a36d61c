"""From a request to its key, or to the reason why it has none. Pure; some tens of microseconds for a chat request.

Everything in the request that could change its answer is in the fingerprint: method, path and query, every member of
the JSON body (unknown ones too) and every header that is not known to be harmless. Two requests share a fingerprint
only when they differ in

* white space around and inside one-line texts of messages, line ends and blanks at line ends in longer ones,
* Unicode normal form (NFC: the same characters written in two ways),
* the order of members of an object, and blanks between the tokens of the JSON,
* `stream_options` as far as it only asks for the usage event, which replaying adds or leaves out.

Full and half width, case and punctuation stay different: a model may answer them differently, and so does an embedder.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, NoReturn
from unicodedata import is_normalized, normalize

from guard.cache.types import Bypass, CacheKey, CacheRequest, Namespace, key_in
from guard.ports import Route, Target
from guard.wire.http1 import RequestHead

DETERMINISTIC_TOP_P = 0.01
"""At or below it sampling has one candidate left in practice; temperature 0 is the usual way to say so."""

_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"cookie"})
_HARMLESS_HEADERS = frozenset({
    b"accept", b"accept-encoding", b"cache-control", b"connection", b"content-length", b"content-type", b"date",
    b"dnt", b"forwarded", b"idempotency-key", b"origin", b"pragma", b"priority", b"referer", b"traceparent",
    b"tracestate", b"user-agent", b"via", b"x-client-request-id", b"x-correlation-id", b"x-guard-session",
    b"x-guard-tenant", b"x-real-ip", b"x-request-id", b"x-amzn-trace-id", b"x-cloud-trace-context", b"b3",
})  # fmt: skip
"""Headers that name a connection, a trace or a client, not a wish. `baggage` is not one: services read it."""
_HARMLESS_PREFIXES = (b"x-stainless-", b"x-forwarded-", b"x-b3-", b"sec-")

_SEVERAL = ("n", "best_of")
_OUTSIDE = (
    "tools", "functions", "web_search_options", "previous_response_id", "conversation", "background", "prompt",
    "tool_resources", "file_ids", "attachments", "mcp_servers",
)  # fmt: skip
_EXTRAS = ("logprobs", "top_logprobs", "audio", "modalities", "include", "prediction", "echo")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
_CHAT_ADAPTERS = frozenset({"openai-chat", "openai-responses"})
_BLANK_CHARS = " \t\f\v"
_BLANKS = re.compile(r"[ \t\f\v]+")


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What a route says about its requests.

    assume_deterministic: the operator vouches that one question has one answer whatever its parameters say.
    ignore_fields: top-level members of the body that never change an answer (`user`, say). ignore_headers: the same
    of headers, lower case.
    """

    enabled: bool = True
    assume_deterministic: bool = False
    ignore_fields: frozenset[str] = frozenset()
    ignore_headers: frozenset[bytes] = frozenset()
    max_request_bytes: int = 64 * 1024


def normal_text(text: str) -> str:
    r"""The text as far as a model cannot tell the difference.

    A text of one line loses its outer blanks and counts runs of them as one. In a text of several lines, or with a
    back-tick, blanks may be code: there only line ends, blanks before them, and outer blank lines go.

    >>> normal_text("  how   many days? "), normal_text("e\u0301"), normal_text("if a:\r\n    b  \r\n")
    ('how many days?', 'é', 'if a:\n    b')
    """
    if not text.isascii() and not is_normalized("NFC", text):
        text = normalize("NFC", text)
    if "\n" in text or "\r" in text or "`" in text:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        text = "\n".join([line.rstrip(_BLANK_CHARS) for line in lines]).strip("\n")
        if "\n" in text or "`" in text:
            return text
    if "  " in text or "\t" in text or "\f" in text or "\v" in text:
        text = _BLANKS.sub(" ", text)
    return text.strip(" ")


def tenant_scope(notes: Mapping[bytes, bytes], fields: Iterable[Any], pepper: bytes) -> str:
    """Who the caller is: the tenant it names, else a keyed hash of its credential, else nobody in particular.

    pepper: secret of this installation, so that the scope says nothing about the credential.
    """
    tenant = notes.get(b"x-guard-tenant", b"").strip()
    if tenant:
        try:
            return "t:" + tenant.decode()
        except UnicodeDecodeError:
            return "b:" + tenant.hex()  # no two names in other bytes share a scope
    credentials = [field[3] for field in fields if field[1] in _CREDENTIALS]
    return "c:" + _credential_hash(credentials, pepper) if credentials else ""


def _credential_hash(credentials: list[tuple[bytes, bytes]], pepper: bytes) -> str:
    joined = b"".join(b"%d:%s%d:%s" % (len(n), n, len(v), v) for n, v in sorted(credentials))
    return blake2b(joined, digest_size=8, key=pepper[:64]).hexdigest()


def target_mark(target: Target) -> str:
    """Hash of what a target changes in a request; "" when it changes nothing that an answer could depend on.

    Keys of the upstream are left out: a new one gives the same answers, and must not empty the cache.
    """
    headers = sorted(h for h in target.set_headers if h[0].lower().encode("latin-1") not in _CREDENTIALS)
    if not headers and not target.rename_model:
        return ""
    return blake2b(repr((target.rename_model, headers)).encode(), digest_size=8).hexdigest()


def request_key(
    head: RequestHead,
    body: bytes,
    route: Route,
    rules: KeyRules,
    *,
    release: str,
    epoch: int,
    mark: str,
    replaced: frozenset[bytes],
    pepper: bytes,
) -> CacheRequest | Bypass:
    """The key of one request, or why it has none.

    Args:
        mark: hash of what the target changes in the request. replaced: names of headers that the guard sets itself, so
            that what the client wrote there reaches nobody.
    """
    if not rules.enabled:
        return Bypass.OFF
    if head.method != b"POST" or head.notes.get(b"content-encoding", b"identity").lower() != b"identity":
        return Bypass.UNREADABLE
    if len(body) > rules.max_request_bytes:
        return Bypass.TOO_LARGE
    wish = _cache_wish(head.fields)
    if wish:
        return Bypass.CLIENT
    asked = read_object(body)
    if asked is None:
        return Bypass.UNREADABLE
    reason = unfit(asked, rules, chat=route.adapter in _CHAT_ADAPTERS)
    if reason is not None:
        return reason
    stream = asked.get("stream") is True
    headers = _telling_headers(head.fields, rules, replaced)
    try:
        fingerprint = _fingerprint(head.target, route.adapter, _telling_members(asked, rules), headers)
    except (UnicodeEncodeError, RecursionError):
        return Bypass.UNREADABLE  # a lone surrogate: no two programs agree on what it is
    tenant = tenant_scope(head.notes, head.fields, pepper)
    key: CacheKey = key_in(_namespace(release, epoch, tenant, route.name, mark), fingerprint)
    personal = any(name in _CREDENTIALS for name, _ in headers)
    return CacheRequest(key, route, head.target, body, stream, personal, tuple(headers))


@lru_cache(maxsize=1024)
def _namespace(release: str, epoch: int, tenant: str, route: str, mark: str) -> Namespace:
    """One object for all keys of it: many thousands of them are remembered."""
    return Namespace(release, epoch, tenant, route, mark)


def _cache_wish(fields: Iterable[Any]) -> bool:
    """Whether the client asks for a fresh answer, or for nothing to be kept."""
    for field in fields:
        if field[1] == b"cache-control":
            words = {word.strip().lower() for word in field[3][1].split(b",")}
            if not words.isdisjoint((b"no-store", b"no-cache", b"max-age=0")):
                return True
        elif field[1] == b"pragma" and field[3][1].strip().lower() == b"no-cache":
            return True
    return False


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")  # parsers differ in which of the two they take
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse_constant)


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body; None when it is none, or when two programs could read it differently."""
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def unfit(asked: Mapping[str, Any], rules: KeyRules, *, chat: bool) -> Bypass | None:
    """Why the answer to these parameters may not be repeated; None when it may.

    Deterministic means: temperature 0, or top_p at most `DETERMINISTIC_TOP_P`, or the route vouches for it. A seed
    alone is not enough, providers call it best effort. An absent temperature is the model's default, which samples.
    """
    if not chat:
        return None if rules.assume_deterministic else Bypass.NOT_DETERMINISTIC
    for name in _SEVERAL:
        if asked.get(name) not in (None, 1):
            return Bypass.SEVERAL_ANSWERS
    if asked.get("store") is True:
        return Bypass.OUTSIDE_STATE
    for name in _OUTSIDE:
        value = asked.get(name)
        # `prompt` is the text of a completion, or the reference of a stored prompt.
        if value and not (name == "prompt" and isinstance(value, str)):
            return Bypass.OUTSIDE_STATE
    for name in _EXTRAS:
        if asked.get(name) and not (name == "modalities" and asked[name] == ["text"]):
            return Bypass.EXTRAS
    for name in ("messages", "input"):
        if not _only_words(asked.get(name)):
            return Bypass.OUTSIDE_STATE
    if rules.assume_deterministic or _is_number(asked.get("temperature"), 0.0):
        return None
    return None if _is_number(asked.get("top_p"), DETERMINISTIC_TOP_P) else Bypass.NOT_DETERMINISTIC


def _is_number(value: Any, at_most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= at_most


def _only_words(messages: Any) -> bool:
    """No part of a message is a file, an image or the result of a tool."""
    if messages is None or isinstance(messages, str):
        return True
    if not isinstance(messages, list):
        return False
    for message in messages:
        if isinstance(message, str):
            continue
        if not isinstance(message, dict) or message.get("type", "message") != "message":
            return False
        if message.get("role") in ("tool", "function") or message.get("tool_calls") or message.get("audio"):
            return False
        content = message.get("content")
        if isinstance(content, list) and not all(
            isinstance(part, str) or (isinstance(part, dict) and part.get("type") in _TEXT_PARTS) for part in content
        ):
            return False
    return True


def _telling_headers(fields: Iterable[Any], rules: KeyRules, replaced: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """Headers that could change the answer, sorted."""
    found = []
    for field in fields:
        name: bytes = field[1]
        if name in _HARMLESS_HEADERS or name in replaced or name in rules.ignore_headers:
            continue
        if not name.startswith(_HARMLESS_PREFIXES):
            found.append(field[3])
    found.sort()
    return found


def _telling_members(asked: dict[str, Any], rules: KeyRules) -> dict[str, Any]:
    members = {name: value for name, value in asked.items() if name not in rules.ignore_fields}
    options = members.get("stream_options")
    if isinstance(options, dict):
        rest = {name: value for name, value in options.items() if name != "include_usage"}
        if rest:
            members["stream_options"] = rest
        else:
            del members["stream_options"]
    for flag in ("stream", "stream_options"):
        if members.get(flag) in (None, False):
            members.pop(flag, None)  # absent, null and false say the same here
    return members


def _fingerprint(target: bytes, adapter: str, members: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> bytes:
    out: list[bytes] = [b"sft-guard request 1\n"]
    _write(target.decode("latin-1"), out)
    _write(adapter, out)
    out.append(b"h%d:" % len(headers))
    for name, value in headers:
        out.append(b"%d:%s%d:%s" % (len(name), name, len(value), value))
    out.append(b"m%d:" % len(members))
    for member in sorted(members):
        _write(member, out)
        value = members[member]
        if member in ("messages", "input", "prompt", "question", "instructions"):
            value = _normal_words(value)
        _write(value, out)
    return sha256(b"".join(out)).digest()


def _normal_words(value: Any) -> Any:
    """Texts of messages in their normal form; roles, names and whatever else there is as they are."""
    if isinstance(value, str):
        return normal_text(value)
    if isinstance(value, list):
        return [_normal_words(item) for item in value]
    if isinstance(value, dict):
        return {
            name: _normal_words(item) if name in ("content", "text") else item for name, item in value.items()
        }  # fmt: skip
    return value


def _write(value: Any, out: list[bytes]) -> None:
    """Append a JSON value in a form that no other value has: type, length, content."""
    if isinstance(value, str):
        raw = value.encode("utf-8")
        out.append(b"s%d:" % len(raw))
        out.append(raw)
    elif value is None or isinstance(value, bool):
        out.append(b"c%d;" % (0 if value is None else 1 + value))
    elif isinstance(value, int):
        out.append(b"i%d;" % value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UnicodeEncodeError("json", "", 0, 0, "a number beyond all bounds")
        out.append(b"f%s;" % repr(value).encode())
    elif isinstance(value, list):
        out.append(b"l%d:" % len(value))
        for item in value:
            _write(item, out)
    else:
        out.append(b"d%d:" % len(value))
        for name in sorted(value):
            _write(name, out)
            _write(value[name], out)
