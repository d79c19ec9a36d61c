"""What may be kept of an answer, and for how long. Pure: findings and bytes come in, a reason or an age comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from guard.cache.types import NotStored
from slo.types import CheckResult, Exchange, Finding, Outcome

REFUSAL_CHARS = 600
"""A longer answer that says "I could not find" somewhere has said something else as well."""

# An answer is judged by what its own checks say; drift is about the traffic.
_JUDGING = frozenset({
    "rules", "grounding", "similarity", "pii", "injection", "context_injection", "prompt_leak", "toxicity", "acl",
})  # fmt: skip
# Similarity needs an embedder and only measures; an answer it could not score is still an answer that was checked.
_NEEDED = frozenset({"rules", "grounding", "pii"})
_CUT_SHORT = (b'"content_filter"', b'"tool_calls"', b'"function_call"', b'"response.incomplete"')
_FORBIDDING = frozenset({b"no-store", b"private", b"no-cache"})


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """ttl_s, negative_ttl_s: life of an answer, of a refusal. jitter_ratio: lives are shortened by up to this share,
    so that what was stored together does not expire together. admit: `checked` needs findings without a failure,
    `complete` takes any whole answer that no check failed. refusals: phrases that mark a refusal, lower case.
    ignore_cache_control: the upstream's Cache-Control is about browsers and proxies, says the operator."""

    ttl_s: float = 3600.0
    negative_ttl_s: float = 60.0
    jitter_ratio: float = 0.1
    max_entry_bytes: int = 256 * 1024
    admit: Literal["checked", "complete"] = "checked"
    refusals: tuple[str, ...] = ()
    ignore_cache_control: bool = False


def repeatable(
    exchange: Exchange,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    truncated: bool,
    policy: StorePolicy,
) -> NotStored | None:
    """Why the bytes of an answer may not be given to anybody else; None when they may."""
    if exchange.outcome is not Outcome.OK or exchange.status != 200 or exchange.reason:
        return NotStored.NOT_OK
    if truncated:
        return NotStored.TRUNCATED
    if len(body) > policy.max_entry_bytes:
        return NotStored.TOO_LARGE
    for name, value in headers:
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            return NotStored.CODED
        if name in (b"set-cookie", b"vary") and not (name == b"vary" and _harmless_vary(value)):
            return NotStored.FORBIDDEN
        if policy.ignore_cache_control:
            continue
        if name == b"cache-control" and not _FORBIDDING.isdisjoint(_words(value)):
            # Event streams say no-cache to keep proxies from buffering them; of them it forbids nothing.
            if exchange.stream and not {b"no-store", b"private"} & _words(value):
                continue
            return NotStored.FORBIDDEN
    if not body.strip() or any(mark in body for mark in _CUT_SHORT):
        return NotStored.CUT_SHORT if body.strip() else NotStored.NOT_OK
    return None


def _words(value: bytes) -> set[bytes]:
    return {word.strip().partition(b"=")[0].lower() for word in value.split(b",")}


def _harmless_vary(value: bytes) -> bool:
    """Coding and origin are taken care of; anything else says that other readers get other answers."""
    return _words(value) <= {b"accept-encoding", b"origin", b"accept", b""}


def admissible(findings: tuple[Finding, ...], policy: StorePolicy, *, negative: bool) -> NotStored | None:
    """Why the checks keep an answer out; None when they do not.

    negative: it is a refusal. An answer to which nothing was retrieved is kept only when it says so.
    """
    seen = set()
    for finding in findings:
        failed = finding.result is CheckResult.FAIL
        if failed and (finding.check in _JUDGING or (finding.check == "zero_hit" and not negative)):
            return NotStored.FLAGGED
        if finding.result is not CheckResult.UNAVAILABLE:
            seen.add(finding.check)
    if policy.admit == "complete":
        return None
    told = {finding.check for finding in findings} & _NEEDED
    return None if told and told <= seen else NotStored.UNCHECKED


def is_negative(answer: str, policy: StorePolicy) -> bool:
    """Whether an answer says that there is none.

    >>> is_negative("I could not find this in the documents.", StorePolicy(refusals=("could not find",)))
    True
    """
    if len(answer) > REFUSAL_CHARS:
        return False
    words = answer.casefold()
    return any(phrase in words for phrase in policy.refusals)


def ttl_s(digest: bytes, policy: StorePolicy, *, negative: bool) -> float:
    """Life of an entry: the same for one key on every replica, spread over keys.

    >>> policy = StorePolicy(ttl_s=100.0, jitter_ratio=0.1)
    >>> ttl_s(bytes(32), policy, negative=False), 90.0 < ttl_s(b"\\xff" * 32, policy, negative=False) < 90.1
    (100.0, True)
    """
    full_s = policy.negative_ttl_s if negative else policy.ttl_s
    spread = int.from_bytes(digest[:4], "big") / 2**32
    return full_s * (1.0 - policy.jitter_ratio * spread)
