"""What fuzzing found interesting is replayed, and mutated a little more; the long form: `make fuzz RUNS=1000000`."""

from __future__ import annotations

import random

import pytest

from guard.wire.dialects import DIALECTS
from guard.wire.sse import EventSplitter
from tests.faults.scripted_upstream import chat_stream
from tests.fuzz.targets import _ROUTES, TARGETS, corpus, run

COUNT = {"config": 60, "baseline": 150}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_replayed(name: str):
    kept = corpus(name)
    assert kept
    for data in kept:
        run(name, data)


def mutated(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    raw = bytearray(data)
    for _ in range(dice.choice((1, 2, 4, 16))):
        at, how = dice.randrange(len(raw) + 1), dice.randrange(5)
        if how == 0:
            raw[at:at] = dice.randbytes(dice.randrange(1, 9))
        elif how == 1:
            del raw[at : at + dice.randrange(1, 9)]
        elif how == 2 and at < len(raw):
            raw[at] ^= 1 << dice.randrange(8)
        elif how == 3:
            other = dice.choice(others)
            begin = dice.randrange(len(other) + 1)
            raw[at:at] = other[begin : begin + dice.randrange(40)]
        else:
            raw[at:at] = dice.choice((b"\xff\xfe", b"\\ud800", b"1e999", b"-0", b"[" * 60, b"{" * 60, b"\x00", b"NaN"))
    return bytes(raw[:4096])


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_corpus(name: str):
    dice = random.Random(4)
    kept = corpus(name)
    for _ in range(COUNT.get(name, 400)):
        run(name, mutated(dice.choice(kept), kept, dice))


STREAMS = {
    "openai-chat": (chat_stream(["one ", "\u4e03\u5929 ", "two"], usage=True), b"data: [DONE]\n\n"),
    "openai-responses": (
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\xe4\xb8\x83"}\n\n'
        b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed"}}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed"}}\n\n',
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_no_cut_stream_is_seen_as_complete(name: str):
    """Every cut, in one piece and byte by byte: complete only once the whole terminal event was there."""
    stream, last = STREAMS[name]
    assert stream.endswith(last)
    for cut in range(len(stream) + 1):
        for step in (1, 7, len(stream)):
            splitter = EventSplitter()
            watcher = DIALECTS[name].watch(
                _ROUTES[name], DIALECTS[name].read_request(_ROUTES[name], b'{"stream":true}')
            )
            for at in range(0, cut, step):
                for event in splitter.feed(stream[at : min(cut, at + step)]):
                    watcher.see(event)
            assert watcher.needs_marker
            assert watcher.complete == (cut == len(stream)), cut
