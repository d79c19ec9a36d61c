"""Who may: token, host and origin lists, and the throttle on failed tokens. Pure: time comes in as a number."""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

FAILURES_PER_WINDOW = 5
WINDOW_S = 60.0
ADDRESSES_COUNT = 10_000


_NOT_A_NAME = re.compile(r"[^\w.@+ -]")


def actor_of(said: str, token: str) -> str:
    """Who asks, for the audit log: what they say of themselves, and the id of the token that vouches for it.

    >>> actor_of("ann; drop", "3f2a"), actor_of("", "3f2a")
    ('ann drop (token 3f2a)', 'admin (token 3f2a)')
    """
    return f"{_NOT_A_NAME.sub('', said).strip() or 'admin'} (token {token})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request, for the audit log. token_id: of what was presented, never the token itself."""

    address: str
    method: str
    path: str
    reason: str
    token_id: str = ""


def token_id(token: bytes) -> str:
    """Short name of a token that tells two apart and reveals neither."""
    return sha256(b"sft-guard token id\x1f" + token).hexdigest()[:8]


class TokenCheck:
    """Compares presented tokens with the configured one in constant time."""

    __slots__ = ("_digest", "id")

    def __init__(self, token: str) -> None:
        self._digest = sha256(token.encode()).digest()
        self.id = token_id(token.encode())

    def accepts(self, presented: bytes) -> bool:
        """True for the configured token. Digests have one length, so nothing is learnt from the time it takes."""
        return hmac.compare_digest(sha256(presented).digest(), self._digest)


class FailureThrottle:
    """At most `FAILURES_PER_WINDOW` failed tokens per address in `WINDOW_S`; then none is looked at until it passes."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """Seconds until `address` may try again; 0 when it may now."""
        recent = [at for at in self._failures.get(address, ()) if now_s - at < WINDOW_S]
        return WINDOW_S - (now_s - recent[-FAILURES_PER_WINDOW]) if len(recent) >= FAILURES_PER_WINDOW else 0.0

    def failed(self, address: str, now_s: float) -> None:
        """Remember one failure. The address heard of longest ago goes first when there are too many."""
        recent = [at for at in self._failures.pop(address, ()) if now_s - at < WINDOW_S]
        recent.append(now_s)
        self._failures[address] = recent[-FAILURES_PER_WINDOW:]
        while len(self._failures) > ADDRESSES_COUNT:
            self._failures.popitem(last=False)


class HostList:
    """The host names under which this listener may be asked for; a name without a port fits any port.

    Without such a list any web page could reach a loopback listener through a name of its own (DNS rebinding).

    >>> hosts = HostList(["localhost", "[::1]", "guard.example:8801"])
    >>> hosts.allows("localhost:8801"), hosts.allows("guard.example:9"), hosts.allows("evil.example")
    (True, False, False)
    """

    __slots__ = ("_all", "_names")

    def __init__(self, hosts: Iterable[str]) -> None:
        self._names = frozenset(host.strip().lower().rstrip(".") for host in hosts)
        self._all = "*" in self._names

    def allows(self, host: str) -> bool:
        """True when `host` (as in the `Host` header) is on the list."""
        host = host.lower()
        return self._all or host in self._names or _without_port(host).rstrip(".") in self._names

    def allows_origin(self, origin: str) -> bool:
        """True when a page of `origin` may ask: http(s) from a host on the list. `null` never is."""
        scheme, mark, host = origin.partition("://")
        return bool(mark) and scheme in ("http", "https") and not set(host) & set("/@?#\\ ") and self.allows(host)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host
