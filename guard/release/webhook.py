"""Standard Webhooks: signing, verifying, posting.

    webhook-id         the same over all tries of one message; the receiver drops what it has seen
    webhook-timestamp  Unix seconds of this try
    webhook-signature  space-separated `v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`, one per secret

Secrets are `whsec_` + base64 of 24 to 64 bytes; two are valid at a time while one replaces the other. The body is
signed byte for byte as it is stored.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from guard.release.records import OutboxItem
from slo.clock import Clock
from slo.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    import aiohttp

PREFIX = "whsec_"
TIMEOUT_S = 15.0
TOLERANCE_S = 300
SECRET_COUNT = 2


class Delivery(StrEnum):
    """How one try ended: the `result` label of sft_guard_webhook_deliveries_total."""

    DELIVERED = "delivered"
    HTTP_ERROR = "http_error"
    REDIRECT = "redirect"  # A redirect is a failure: origins come from the configuration only.
    TIMEOUT = "timeout"
    CONNECT_ERROR = "connect_error"
    GONE = "gone"  # 410: the receiver asks not to be called again
    EXPIRED = "expired"  # given up after 24 h; counted by the outbox


@dataclass(frozen=True, slots=True)
class Sent:
    """Result of one try; `detail` is one line for the journal, without the URL's secrets."""

    result: Delivery
    detail: str = ""


class Sender(Protocol):
    """Takes one message to one target, once."""

    @property
    def identity(self) -> str:
        """Name and hash of the target: a changed URL is another target."""
        ...

    async def send(self, item: OutboxItem) -> Sent: ...


def decode_secret(secret: str, place: str = "webhooks.secret") -> bytes:
    """Return the key bytes of a `whsec_` secret.

    Raises:
        ConfigError: without the secret itself in the message.
    """
    if not secret.startswith(PREFIX):
        raise ConfigError(place, "...", f"a secret begins with `{PREFIX}`; make one with `{_HOW}`")
    try:
        key = base64.b64decode(secret[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(place, f"{PREFIX}...", f"the rest is base64; make one with `{_HOW}`") from None
    if not 24 <= len(key) <= 64:
        raise ConfigError(place, f"{len(key)} bytes", f"a key has 24 to 64 bytes; make one with `{_HOW}`")
    return key


_HOW = "echo whsec_$(openssl rand -base64 32)"


def sign(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return one `v1,...` signature."""
    text = message_id.encode() + b"." + str(timestamp_s).encode() + b"." + body
    return "v1," + base64.b64encode(hmac.new(key, text, sha256).digest()).decode()


def signed_headers(keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers, signed with every key that is valid now."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(sign(key, message_id, timestamp_s, body) for key in keys),
    }


def verify(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now_s: float, *, tolerance_s: int = TOLERANCE_S
) -> str:
    """Reference verifier: return the webhook-id of a message that is ours and fresh.

    headers: names in lower case. now_s: Unix seconds of the receiver. Remember returned ids for 24 h and drop
    repeats; this function does not.

    Raises:
        RefusedError: missing_header, bad_timestamp, too_old, too_new, bad_signature.
    """
    try:
        message_id = headers["webhook-id"]
        timestamp = headers["webhook-timestamp"]
        signatures = headers["webhook-signature"]
    except KeyError as error:
        raise RefusedError("missing_header", f"{error.args[0]}: missing; is this a Standard Webhooks call?") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise RefusedError("bad_timestamp", f"webhook-timestamp: got {timestamp[:20]!r}; Unix seconds are digits")
    age_s = now_s - int(timestamp)
    if abs(age_s) > tolerance_s:
        raise RefusedError("too_old" if age_s > 0 else "too_new", f"webhook-timestamp: {age_s:.0f} s off; check clocks")
    wanted = [sign(decode_secret(secret), message_id, int(timestamp), body) for secret in secrets]
    given = signatures.split(" ")[:8]
    # Every pair is compared: the time taken does not tell which signature or key was near.
    hits = [hmac.compare_digest(a.encode(), b.encode()) for a in given for b in wanted]
    if not any(hits):
        raise RefusedError("bad_signature", "webhook-signature: none fits; compare the secrets and sign the raw body")
    return message_id


class WebhookSender:
    """POSTs to one configured URL.

    session: shared by all senders, owned by the caller. secrets: one, or two during rotation.
    """

    def __init__(
        self,
        name: str,
        url: str,
        secrets: Sequence[str],
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.fragment:
            raise ConfigError(f"webhooks.{name}.url", url, "write http(s)://host[:port]/path, without a user name")
        if not 1 <= len(secrets) <= SECRET_COUNT:
            raise ConfigError(
                f"webhooks.{name}.secrets", f"{len(secrets)} secrets", "give one, or two during a rotation"
            )
        self._keys = [decode_secret(secret, f"webhooks.{name}.secrets[{n}]") for n, secret in enumerate(secrets)]
        self._name, self._url, self._session, self._clock = name, url, session, clock
        import aiohttp  # only where something is posted: 9 MB

        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._failures = (aiohttp.ClientError, OSError, ValueError)

    @property
    def identity(self) -> str:
        return f"{self._name} {sha256(self._url.encode()).hexdigest()[:16]}"

    async def send(self, item: OutboxItem) -> Sent:
        headers = signed_headers(self._keys, item.message_id, int(self._clock.wall_s()), item.body)
        headers["content-type"] = "application/json"
        headers["user-agent"] = "sft-guard"
        try:
            async with self._session.post(
                self._url, data=item.body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as response:
                return judge_status(response.status)
        except TimeoutError:
            return Sent(Delivery.TIMEOUT, f"no answer within {self._timeout.total:g} s")
        except self._failures as error:
            return Sent(Delivery.CONNECT_ERROR, type(error).__name__)


def judge_status(status: int) -> Sent:
    """What an HTTP status says of a delivery."""
    if 200 <= status < 300:
        return Sent(Delivery.DELIVERED)
    if status == 410:
        return Sent(Delivery.GONE, "HTTP 410: the receiver asks not to be called again")
    if 300 <= status < 400:
        return Sent(Delivery.REDIRECT, f"HTTP {status}: redirects are not followed; configure the final URL")
    return Sent(Delivery.HTTP_ERROR, f"HTTP {status}")
