"""What the proxy process and the worker of the semantic cache say to each other: length-prefixed msgpack.

Proxy to worker: one `Setup`, then `Add`, `Remove`, `Find`, `Compare` as they come. Worker to proxy: `Loaded`, one
`Answer` per `Find`, one `Compared` per `Compare`. Imported by both sides, so it imports nothing heavy.
"""

from __future__ import annotations

import struct

import msgspec

MAX_FRAME_BYTES = 4 * 2**20
HEAD = struct.Struct("<I")


class Setup(msgspec.Struct, tag="s", array_like=True, frozen=True):
    """embedder: of `rag.embedding.load_embedder`. vector_count: vectors kept over all spaces."""

    embedder: str
    vector_count: int


class Add(msgspec.Struct, tag="a", array_like=True, frozen=True):
    """A question whose answer is in the store. space: who may share it."""

    space: bytes
    digest: bytes
    question: str


class Remove(msgspec.Struct, tag="r", array_like=True, frozen=True):
    """Its answer is gone."""

    space: bytes
    digest: bytes


class Find(msgspec.Struct, tag="f", array_like=True, frozen=True):
    """Is there a question that means the same? threshold: least cosine."""

    job_id: int
    space: bytes
    question: str
    threshold: float


class Compare(msgspec.Struct, tag="c", array_like=True, frozen=True):
    """Do two answers say the same? served: from the cache; fresh: asked again."""

    job_id: int
    served: str
    fresh: str


class Loaded(msgspec.Struct, tag="l", array_like=True, frozen=True):
    """The worker can work. latin, han: what measures the likeness of such questions; "" when they are refused."""

    latin: str
    han: str


class Answer(msgspec.Struct, tag="n", array_like=True, frozen=True):
    """digest: of the question found, empty for none. refusal: why the nearest one above the threshold was refused, or
    "far" when there was none. script: latin | han | other."""

    job_id: int
    digest: bytes
    cosine: float
    refusal: str
    script: str


class Compared(msgspec.Struct, tag="d", array_like=True, frozen=True):
    """same: None when it cannot be told."""

    job_id: int
    same: bool | None
    likeness: float


FromWorker = Loaded | Answer | Compared
ToWorker = Setup | Add | Remove | Find | Compare

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode


def frame(message: FromWorker | ToWorker) -> bytes:
    """Message with its length in front."""
    body = encode(message)
    return HEAD.pack(len(body)) + body
