"""An entry as bytes in a shared store, and back: what is not exactly what was written is refused. Pure.

    magic (4) | HMAC-SHA256 of the rest (32) | msgpack of the entry with its whole key

The HMAC says that a holder of the secret wrote these bytes; the key inside says for which question. A reply that is
genuine and answers another question is crosstalk: the connection it came on is not to be trusted any further.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

import msgspec

from guard.cache.types import CacheKey, Entry, Namespace, key_in
from slo.codec import NOT_JSON

MAGIC = b"SGA1"
_HEAD_BYTES = len(MAGIC) + 32


class InvalidValue(Exception):
    """Not an envelope of ours: damaged, foreign, or of another secret."""


class Crosstalk(Exception):
    """A genuine envelope, for another key."""


class _Written(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    release: str
    epoch: int
    tenant: str
    route: str
    mark: str
    fingerprint: bytes
    digest: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    stream: bool
    exchange_id: str
    document_ids: tuple[str, ...] | None
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    generation_s: float
    asked_wall_s: float
    stored_wall_s: float
    ttl_s: float
    refusal: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Written)


def seal(entry: Entry, secret: bytes) -> bytes:
    """The envelope of an entry."""
    key, space = entry.key, entry.key.namespace
    written = _encoder.encode(
        _Written(
            space.release, space.epoch, space.tenant, space.route, space.mark, key.fingerprint, key.digest, entry.body,
            entry.headers, entry.stream, entry.exchange_id, entry.document_ids, entry.model, entry.input_tokens,
            entry.output_tokens, entry.cost_usd, entry.generation_s, entry.asked_wall_s, entry.stored_wall_s,
            entry.ttl_s, entry.refusal,
        )
    )  # fmt: skip
    return MAGIC + hmac.digest(secret, written, sha256) + written


def unseal(value: bytes, key: CacheKey, secret: bytes) -> Entry:
    """The entry in an envelope that was read for `key`.

    Raises:
        InvalidValue, Crosstalk.
    """
    if len(value) <= _HEAD_BYTES or not value.startswith(MAGIC):
        raise InvalidValue("no envelope")
    written = value[_HEAD_BYTES:]
    if not hmac.compare_digest(value[len(MAGIC) : _HEAD_BYTES], hmac.digest(secret, written, sha256)):
        raise InvalidValue("signature")
    try:
        w = _decoder.decode(written)
    except NOT_JSON as error:
        raise InvalidValue("signed, but of another version of this program") from error
    space = Namespace(w.release, w.epoch, w.tenant, w.route, w.mark)
    if w.digest != key.digest or space != key.namespace or w.fingerprint != key.fingerprint:
        raise Crosstalk
    if key_in(space, w.fingerprint).digest != w.digest:
        raise InvalidValue("digest")
    return Entry(
        key, w.body, w.headers, w.stream, w.exchange_id, w.document_ids, w.model, w.input_tokens, w.output_tokens,
        w.cost_usd, w.generation_s, w.asked_wall_s, w.stored_wall_s, w.ttl_s, w.refusal,
    )  # fmt: skip
