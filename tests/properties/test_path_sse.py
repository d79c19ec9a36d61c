"""Event splitting: whatever the chunking, the same events, and never half of one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.streaming import EventRelay
from guard.wire.dialect import StreamWatcher
from guard.wire.sse import EventSplitter, EventTooLarge, read_event

LINE_ENDS = [b"\n", b"\r\n", b"\r"]
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=12).map(str.encode)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """(bytes of a stream, its events); each event with line ends of its own, comments between them."""
    raw, events = b"\xef\xbb\xbf" if draw(st.booleans()) else b"", []
    for _ in range(draw(st.integers(0, 5))):
        end = draw(st.sampled_from(LINE_ENDS))
        name, data = draw(TEXT), draw(st.lists(TEXT, min_size=1, max_size=3))
        lines = [b"event: " + name] if draw(st.booleans()) else []
        if draw(st.booleans()):
            lines.append(b": comment")
        lines += [b"data: " + line for line in data]
        raw += end.join(lines) + end + end
        events.append((name if lines[0].startswith(b"event") else b"", b"\n".join(data)))
    return raw, events


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    return [raw[a:b] for a, b in pairwise(edges)]


def parsed(splitter: EventSplitter, pieces: list[bytes]) -> list[tuple[bytes, bytes]]:
    events = [read_event(raw) for piece in pieces for raw in splitter.feed(piece)]
    return [(name, data) for name, data in events if data is not None]


@given(streams(), st.lists(st.integers(0, 2000), max_size=30))
def test_any_chunking_gives_the_same_events(stream: tuple[bytes, list[tuple[bytes, bytes]]], places: list[int]):
    raw, events = stream
    assert parsed(EventSplitter(), cut(raw, places)) == events
    assert parsed(EventSplitter(), [raw[at : at + 1] for at in range(len(raw))]) == events


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=20))
def test_what_is_handed_out_is_the_stream_in_order_and_ends_after_a_blank_line(raw: bytes, places: list[int]):
    splitter = EventSplitter()
    out = b""
    for piece in cut(raw.replace(b"a", b"\n").replace(b"b", b"\r"), places):
        for event in splitter.feed(piece):
            assert event[-1:] in b"\r\n"
            out += event
    whole = raw.replace(b"a", b"\n").replace(b"b", b"\r")
    assert out + splitter.rest() == whole
    assert b"\n\n" not in splitter.rest()
    assert b"\r\n\r\n" not in splitter.rest()


@given(streams(), st.lists(st.integers(0, 2000), max_size=10), st.integers(0, 2000))
def test_a_cut_stream_never_shows_half_an_event(
    stream: tuple[bytes, list[tuple[bytes, bytes]]], places: list[int], end: int
):
    raw, events = stream
    relay = EventRelay(StreamWatcher())
    out = b"".join(relay.feed(piece) for piece in cut(raw[: end % (len(raw) + 1)], places))
    shown = parsed(EventSplitter(), [out])
    assert shown == events[: len(shown)]
    assert EventSplitter().feed(out) == [] or raw.startswith(out)


def test_an_endless_event_is_an_error_and_not_a_memory():
    splitter = EventSplitter(limit_bytes=1000)
    for _ in range(90):
        assert splitter.feed(b"data: 12345") == []
    with pytest.raises(EventTooLarge, match="more than 1000 bytes"):
        splitter.feed(b"data: 12345")


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (b"data: [DONE]\n\n", (b"", b"[DONE]")),
        (b"data:x\r\ndata: y\r\n\r\n", (b"", b"x\ny")),
        (b": ping\n\n", (b"", None)),
        (b"\ndata: late\n\n", (b"", b"late")),
        (b"data\n\n", (b"", b"")),
        (b"id: 3\nretry: 10\ndata:  two blanks\n\n", (b"", b" two blanks")),
        ("data: \u4e03\u5929\uff0c\u597d\n\n".encode(), (b"", "\u4e03\u5929\uff0c\u597d".encode())),
    ],
)
def test_events_are_read_as_the_standard_says(raw: bytes, event: tuple[bytes, bytes | None]):
    assert read_event(raw) == event
