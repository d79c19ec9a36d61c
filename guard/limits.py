"""How much is let in: admission by priority, the budget of retries, and which addresses may be called."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PRIVATE_SUFFIXES = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".svc", ".intranet", ".test")


class Admission:
    """Sheds a given share of the traffic, lowest priority first, evenly and without chance.

    The share that each priority has of the traffic is learnt from the requests themselves; a priority is touched only
    when all lower ones are shed whole.
    """

    def __init__(self) -> None:
        self.shed_ratio = 0.0
        self._seen: dict[int, float] = {}
        self._owed: dict[int, float] = {}
        self._since_decay = 0

    def admits(self, priority: int) -> bool:
        """Count one request of `priority` and say whether it may go on."""
        if not self.shed_ratio and not self._seen:
            return True
        seen = self._seen
        seen[priority] = seen.get(priority, 0.0) + 1.0
        self._since_decay += 1
        if self._since_decay >= 256:  # The mix of yesterday says nothing about the overload of now.
            self._since_decay = 0
            for known in seen:
                seen[known] *= 0.5
        if not self.shed_ratio:
            seen.clear()
            self._owed.clear()
            return True
        owed = self._owed.get(priority, 0.0) + self._share_shed(priority)
        shed = owed >= 1.0 - 1e-9
        self._owed[priority] = owed - 1.0 if shed else owed
        return not shed

    def _share_shed(self, priority: int) -> float:
        """Share of this priority's own requests that must go, so that `shed_ratio` of all goes."""
        to_shed = self.shed_ratio * sum(self._seen.values())
        for known in sorted(self._seen):
            count = self._seen[known]
            if known == priority:
                return min(1.0, max(0.0, to_shed / count))
            to_shed -= count
        return 0.0


class RetryBudget:
    """Retries stay below a share of the requests, so that a failing upstream is not hit harder for failing.

    A small reserve lets the first requests after a start be retried at all.
    """

    def __init__(self, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self._ratio, self._reserve = ratio, reserve
        self._tokens = reserve
        self.retry_count = 0

    def request(self) -> None:
        """Count a first attempt."""
        if self._tokens < self._reserve:
            self._tokens += self._ratio

    def retry(self) -> bool:
        """Take one retry, if the budget has one."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self.retry_count += 1
        return True


class TokenBucket:
    """At most `per_s` events per second in the long run, `burst_count` at once. Time is given.

    >>> bucket = TokenBucket(per_s=1.0, burst_count=1.0)
    >>> bucket.take(0.0), bucket.take(0.5), bucket.take(1.5)
    (True, False, True)
    """

    def __init__(self, per_s: float, burst_count: float) -> None:
        self._per_s, self._burst_count = per_s, burst_count
        self._tokens = burst_count
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Take one, if there is one."""
        if self._at_s is not None:
            self._tokens = min(self._burst_count, self._tokens + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Egress:
    """Which resolved addresses an endpoint's name may have.

    An address written in the configuration is meant. A name of a private zone (no dot, `.local`, `.svc`, ...) may be
    private or loopback. A public name must resolve to public addresses: one that suddenly points inside is an
    attack or a mistake, and is refused. Link-local addresses (cloud metadata) are never reached by name.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self.networks: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in allow)

    def permits(self, host: str, address: str) -> bool:
        """Whether `host` of the configuration may be reached at `address`.

        >>> egress = Egress()
        >>> egress.permits("api.example.com", "10.0.0.7"), egress.permits("vllm", "10.0.0.7")
        (False, True)
        """
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if is_address(host):
            return True
        if any(ip in network for network in self.networks if network.version == ip.version):
            return True
        mapped = getattr(ip, "ipv4_mapped", None)
        ip = mapped or ip
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return False
        return ip.is_global or is_private_name(host)


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_private_name(host: str) -> bool:
    """Whether a name belongs to a zone that is private by its form."""
    name = host.lower().rstrip(".")
    return "." not in name or name.endswith(_PRIVATE_SUFFIXES) or ".svc." in name
