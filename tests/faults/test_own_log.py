"""The program's own log: one event is one line, and nobody waits for whoever reads it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.log_lines import LINE_CHARS, QUEUE_COUNT, LineHandler, one_line


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("t", logging.INFO, __file__, 1, message, None, None)


@given(st.text(max_size=300))
def test_whatever_is_logged_is_one_line(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line


def test_times_are_utc_wherever_the_machine_is(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Taipei")
    time.tzset()
    try:
        reading, writing = pipe
        event = record("rolled back")
        event.created, event.msecs = 1_750_000_000.25, 250.0
        handler = LineHandler(writing)
        handler.emit(event)
        handler.flush()
        assert os.read(reading, 200) == b"2025-06-15T15:06:40.250Z INFO t: rolled back\n"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_endless_event_is_cut() -> None:
    assert len(one_line("x" * 1_000_000)) == LINE_CHARS + 3


def test_a_reader_that_stopped_reading_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    dropped = []
    handler = LineHandler(writing, on_drop=lambda: dropped.append(1))
    handler.emit(record("the first"))
    handler.flush()
    os.set_blocking(writing, False)
    filled = 0
    while True:  # until the pipe holds no more
        try:
            filled += os.write(writing, b"." * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    count = 3 * QUEUE_COUNT
    done = threading.Event()

    def log_all() -> None:
        for number in range(count):
            handler.emit(record(f"event {number}"))
        done.set()

    threading.Thread(target=log_all, daemon=True).start()
    assert done.wait(30), "logging waited for its reader"
    assert len(dropped) == handler.dropped_count >= count - QUEUE_COUNT - 2
    os.set_blocking(reading, False)
    read = b""

    def read_all() -> None:
        nonlocal read
        while not read.rstrip().endswith(b"event %d" % (count - 1)):
            try:
                read += os.read(reading, 1 << 20)
            except BlockingIOError:
                done.wait(0.001)

    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    reader.join(30)
    assert not reader.is_alive(), "the newest line never came"
    assert b"lines of this log were dropped" in read
    assert b"the first\n" in read


def test_a_reader_that_is_gone_costs_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = LineHandler(writing)
    for _ in range(10):
        handler.emit(record("nobody hears this"))
    handler.flush()
    assert not handler._lines
    os.close(writing)
