"""Sealed bytes: nothing comes out of a file that was touched in any way."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora.envelope import HEAD_BYTES, TAG_BYTES, Label, open_bytes, seal_bytes
from slo.errors import RefusedError

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
LABEL = Label("hr-rules", "v3", "k1", "adapter_model.safetensors")
CHUNK = 16


def chance_of(seed: int):
    return random.Random(seed).randbytes


@given(plain=st.binary(max_size=70), seed=st.integers(0, 1000))
def test_what_was_sealed_comes_out_at_every_size_around_chunk_borders(plain: bytes, seed: int) -> None:
    sealed = seal_bytes(plain, KEY, LABEL, chunk_bytes=CHUNK, chance=chance_of(seed))
    assert open_bytes(sealed, KEY, LABEL, chunk_bytes=CHUNK) == plain
    assert len(sealed) == HEAD_BYTES + len(plain) + TAG_BYTES * max(1, -(-len(plain) // CHUNK))


def test_every_single_bit_flip_is_refused() -> None:
    sealed = seal_bytes(b"0123456789abcdef" * 3 + b"tail", KEY, LABEL, chunk_bytes=CHUNK)
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(RefusedError, match="nothing was released"):
                open_bytes(bytes(changed), KEY, LABEL, chunk_bytes=CHUNK)


def test_every_truncation_and_any_addition_is_refused_chunk_borders_included() -> None:
    sealed = seal_bytes(b"x" * 3 * CHUNK, KEY, LABEL, chunk_bytes=CHUNK)
    for length in range(len(sealed)):
        with pytest.raises(RefusedError):
            open_bytes(sealed[:length], KEY, LABEL, chunk_bytes=CHUNK)
    for added in (b"\x00", sealed[HEAD_BYTES : HEAD_BYTES + CHUNK + TAG_BYTES]):
        with pytest.raises(RefusedError):
            open_bytes(sealed + added, KEY, LABEL, chunk_bytes=CHUNK)


def test_chunks_cannot_change_places() -> None:
    sealed = seal_bytes(b"a" * CHUNK + b"b" * CHUNK + b"c" * CHUNK, KEY, LABEL, chunk_bytes=CHUNK)
    step = CHUNK + TAG_BYTES
    head, one, two, three = sealed[:HEAD_BYTES], *(sealed[HEAD_BYTES + n * step :][:step] for n in range(3))
    for order in ((two, one, three), (three, two, one), (one, one, three)):
        with pytest.raises(RefusedError):
            open_bytes(head + b"".join(order), KEY, LABEL, chunk_bytes=CHUNK)


@pytest.mark.parametrize(
    "label",
    [
        Label("other", "v3", "k1", LABEL.file),
        Label("hr-rules", "v4", "k1", LABEL.file),
        Label("hr-rules", "v3", "k2", LABEL.file),
        Label("hr-rules", "v3", "k1", "other"),
        Label("hr-rulesv", "3", "k1", LABEL.file),
    ],
    ids=["name", "version", "key", "file", "moved-border"],
)
def test_a_file_of_another_artefact_sealed_with_the_same_key_is_refused(label: Label) -> None:
    with pytest.raises(RefusedError):
        open_bytes(seal_bytes(b"secret", KEY, LABEL), KEY, label)


def test_the_wrong_key_is_refused() -> None:
    with pytest.raises(RefusedError):
        open_bytes(seal_bytes(b"secret", KEY, LABEL), OTHER, LABEL)


def test_two_sealings_of_one_file_share_neither_nonce_nor_key_nor_ciphertext() -> None:
    one, two = seal_bytes(b"secret", KEY, LABEL), seal_bytes(b"secret", KEY, LABEL)
    assert one[8:20] != two[8:20]
    assert one[HEAD_BYTES:] != two[HEAD_BYTES:]
    assert b"secret" not in one
