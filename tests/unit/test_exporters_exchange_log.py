"""The exchange log loses nothing silently: each line is in a segment or counted with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporters.exchange_log import LIST_ITEMS, STRING_CHARS, ExchangeLog
from exporters.segments import prune, segment_name, segment_start_s
from slo.clock import LoopClock
from slo.codec import decode_exchange
from slo.types import CheckResult, Finding
from tests.exchange_log_kit import EXCHANGE, Bench, log_bench, numbered

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with log_bench(tmp_path / "log") as made:
        yield made


def test_an_exchange_is_one_line_that_reads_back_the_same(bench: Bench) -> None:
    log = bench.log()
    exchange = replace(EXCHANGE, findings=(Finding("grounding", CheckResult.FAIL, 0.3, evidence=("7 days",)),))
    log.checked(
        exchange,
        {"question": "q", "answer": "\u8acb\u5047\u4e94\u5929\u3002", "contexts": ("a", "b"), "retrieval_s": 0.1},
    )
    assert log.close()
    (line,) = bench.lines()
    assert decode_exchange(line) == (
        exchange,
        {"question": "q", "answer": "\u8acb\u5047\u4e94\u5929\u3002", "contexts": ["a", "b"], "retrieval_s": 0.1},
    )
    assert [path.name for path in bench.segments()] == ["exchanges-20250615T150640Z-0000.jsonl"]
    assert bench.segments()[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "has_text"), [("none", False), ("redacted", True), ("full", True)])
def test_the_words_are_written_only_when_asked_for(bench: Bench, mode: str, has_text: bool) -> None:
    log = bench.log(text_mode=mode)
    log.checked(EXCHANGE, {"question": "q"})
    log.close()
    assert (decode_exchange(bench.lines()[0])[1] is not None) is has_text


def test_a_text_mode_of_ones_own_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="text_mode: got 'some'; write one of none, redacted, full"):
        bench.log(text_mode="some")


def test_a_segment_is_open_while_written_and_flush_makes_it_readable(bench: Bench) -> None:
    log = bench.log()
    for exchange in numbered(3):
        log.checked(exchange)
    assert log.flush()
    assert [path.suffix for path in bench.segments()] == [".open"]
    assert bench.ids() == ["e0", "e1", "e2"]
    assert log.written_count == 3


def test_segments_rotate_by_size_in_order_and_without_loss(bench: Bench) -> None:
    log = bench.log(segment_bytes=1000)
    for exchange in numbered(100):
        log.checked(exchange)
    log.close()
    assert bench.ids() == [f"e{i}" for i in range(100)]
    sizes = [path.stat().st_size for path in bench.segments()]
    assert len(sizes) > 5
    assert max(sizes) < 1000 + 200
    assert all(path.suffix == ".jsonl" for path in bench.segments())


def test_segments_rotate_at_the_full_hour_with_or_without_traffic(bench: Bench) -> None:
    log = bench.log()
    log.checked(EXCHANGE)
    log.flush()
    bench.clock.advance(3600)
    log.flush()
    assert [path.name for path in bench.segments()] == ["exchanges-20250615T150640Z-0000.jsonl"]
    log.checked(EXCHANGE)
    log.close()
    assert [path.name for path in bench.segments()][1:] == ["exchanges-20250615T160640Z-0000.jsonl"]


def test_nothing_said_leaves_no_file(bench: Bench) -> None:
    bench.log().close()
    assert not bench.directory.exists()


def test_old_segments_go_by_age_then_by_size_oldest_first(tmp_path: Path) -> None:
    now_s = 1_750_000_000.0
    for days in range(10):
        (tmp_path / segment_name(now_s - days * 86_400, 0).removesuffix(".open")).write_bytes(b"x" * 100)
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / segment_name(now_s - 50 * 86_400, 0)).write_bytes(b"open ones stay")
    assert prune(tmp_path, now_s, keep_days=7, max_total_bytes=10_000) == 2
    assert prune(tmp_path, now_s, keep_days=7, max_total_bytes=420) == 4
    left = sorted(path.name for path in tmp_path.iterdir())
    starts = [segment_start_s(name) for name in left if name.endswith(".jsonl")]
    assert starts == [now_s - days * 86_400 for days in (3, 2, 1, 0)]
    assert "notes.txt" in left
    assert any(name.endswith(".open") for name in left)


def test_retention_runs_when_a_segment_is_closed(bench: Bench) -> None:
    log = bench.log(segment_bytes=1000, max_total_bytes=3000)
    for exchange in numbered(100):
        log.checked(exchange)
    log.close()
    assert sum(path.stat().st_size for path in bench.segments()) <= 3000
    assert bench.ids()[-1] == "e99"


def test_a_clock_of_the_event_loop_does_not_stop_the_writer(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path, clock=LoopClock(), queue_bytes=1000)
    log.checked(EXCHANGE)
    log.checked(EXCHANGE, {"answer": "x" * 1500})  # dropped, so that the clock is asked for the warning too
    assert log.close()
    (segment,) = tmp_path.iterdir()
    assert decode_exchange(segment.read_bytes())[0] == EXCHANGE


def test_what_comes_after_closing_is_counted(bench: Bench) -> None:
    log = bench.log()
    assert log.close()
    log.checked(EXCHANGE)
    assert bench.drops == {"closed": 1}
    assert log.flush()


HOSTILE = [
    "a\nb",
    "a\r\nb",
    "\x1b[31m",
    "\x9b31m",
    "a\u2028b\u2029c",
    "a\x85b",
    "\x00\x7f",
    "\u202e\u2066",
    "\x0b\x0c\x1c",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_whatever_was_said_one_event_is_one_line(bench: Bench, words: str) -> None:
    log = bench.log()
    log.checked(replace(EXCHANGE, model=words, tenant=words), {"question": words, "answer": "\u53f0\u5317" + words})
    log.close()
    data = bench.segments()[0].read_bytes()
    assert len(data.decode().splitlines()) == 1
    assert data.count(b"\n") == 1
    assert not any(ch < " " or "\x7f" <= ch < "\xa0" or ch in "\u2028\u2029\u202e\u2066" for ch in data.decode()[:-1])
    exchange, text = decode_exchange(data)
    assert (exchange.model, exchange.tenant) == (words, words)
    assert text == {"question": words, "answer": "\u53f0\u5317" + words}


def test_text_that_is_no_unicode_costs_the_text_not_the_numbers(bench: Bench) -> None:
    log = bench.log()
    log.checked(EXCHANGE, {"question": "\ud800"})
    log.checked(replace(EXCHANGE, model="\ud800"))
    log.close()
    assert decode_exchange(bench.lines()[0]) == (EXCHANGE, None)
    assert bench.drops == {"unencodable": 1}


def test_endless_text_is_cut(bench: Bench) -> None:
    log = bench.log()
    log.checked(EXCHANGE, {"answer": "x" * 100_000, "contexts": ["y" * 100_000] * 100, "reference": None})
    log.checked(EXCHANGE, {f"field{i}": "z" * STRING_CHARS for i in range(60)})
    log.close()
    _, text = decode_exchange(bench.lines()[0])
    assert text is None, "32 contexts of 16,384 characters are over the limit of one line"
    assert decode_exchange(bench.lines()[1])[1] is None
    log = bench.log()
    log.checked(EXCHANGE, {"answer": "x" * 100_000, "contexts": ["y"] * 100})
    log.close()
    _, text = decode_exchange(bench.lines()[-1])
    assert text is not None
    assert text["answer"] == "x" * STRING_CHARS + "\u2026"
    assert len(text["contexts"]) == LIST_ITEMS
