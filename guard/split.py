"""(session, weights) -> release: sticky and monotone, by a hash alone.

A session is put into one bucket per rollout. It goes to the canary while its bucket lies below the canary's share, so a
growing share only ever adds sessions and never sends one back; share 0 is stable alone. The rollout's name salts the
hash: the sessions that met one canary first are not the ones that meet every canary first.

The session key is chosen by `session_key`: the header `x-guard-session`, else the end user that the request names
(`user` of the OpenAI APIs), else the request itself. The caller's API key and address are no key: a bot is one key at
one address, and a share of 10 % of one session is all of its traffic or none.
"""

from __future__ import annotations

from hashlib import blake2b

from guard.ports import Assignment, Target

_BUCKETS = float(1 << 64)


def bucket(session_key: bytes, salt: bytes = b"") -> float:
    """Return where a session lies in [0, 1); uniform over sessions, the same for ever for one salt.

    >>> bucket(b"anna", b"r1") == bucket(b"anna", b"r1") != bucket(b"anna", b"r2")
    True
    """
    digest = blake2b(session_key, digest_size=8, key=salt[:64]).digest()
    # 53 bits: the largest number below 1.0 must stay below 1.0 as a float.
    return (int.from_bytes(digest, "big") >> 11 << 11) / _BUCKETS


def session_key(header: bytes, user: str, request_id: bytes) -> bytes:
    """Return the key of the session of one request, by the first of the three that is there.

    >>> session_key(b"s-1", "anna", b"e7"), session_key(b"", "anna", b"e7"), session_key(b"", "", b"e7")
    (b's:s-1', b'u:anna', b'r:e7')
    """
    if header:
        return b"s:" + header
    if user:
        return b"u:" + user.encode("utf-8", "surrogatepass")
    return b"r:" + request_id


def session_label(key: bytes) -> str:
    """Short hash of a session key for logs and records; "" when every request is a session of its own."""
    return "" if key.startswith(b"r:") else blake2b(key, digest_size=8).hexdigest()


class WeightedSplit:
    """Implements `guard.ports.Splitter` for one stable and at most one canary target."""

    def __init__(self, stable: Target, cache_epoch: int = 0) -> None:
        self._set(stable, None, 0.0, cache_epoch, "")

    def set(
        self, stable: Target, canary: Target | None, canary_ratio: float, cache_epoch: int = 0, rollout: str = ""
    ) -> None:
        """Replace the whole assignment at once; requests under way keep the one they have.

        Args:
            canary_ratio: share of the sessions, in [0, 1]. rollout: name that salts the buckets; keep it for as long
                as the rollout lasts, or sessions change sides.
        Raises:
            ValueError: the share is outside [0, 1], or there is a share and no canary.
        """
        if not 0.0 <= canary_ratio <= 1.0:
            raise ValueError(f"canary_ratio: got {canary_ratio!r}; give a share between 0 and 1")
        if canary is None and canary_ratio:
            raise ValueError(f"canary_ratio: got {canary_ratio!r} without a canary; name one or give 0")
        self._set(stable, canary, canary_ratio, cache_epoch, rollout)

    def _set(self, stable: Target, canary: Target | None, canary_ratio: float, cache_epoch: int, rollout: str) -> None:
        self.canary_ratio = canary_ratio
        self._salt = rollout.encode()
        self._stable = Assignment("stable", stable, cache_epoch)
        self._canary = Assignment("canary", canary, cache_epoch) if canary and canary_ratio else None

    def in_traffic(self) -> tuple[Assignment, ...]:
        """What sessions are sent to now, stable first."""
        return (self._stable,) if self._canary is None else (self._stable, self._canary)

    def assign(self, session_key: bytes) -> Assignment:
        """Never fails, never waits."""
        if self._canary is not None and bucket(session_key, self._salt) < self.canary_ratio:
            return self._canary
        return self._stable
