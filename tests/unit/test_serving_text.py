"""Text of an answer as tokens come: no half character, nothing of a stop text, nothing lost."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lora.serving.text import AnswerText


def bytewise(tokens: Sequence[int]) -> str:
    """A tokenizer of single bytes: the hardest for characters."""
    return bytes(tokens).decode("utf-8", "replace")


def pieces(text: str, stops: Sequence[str] = ()) -> tuple[list[str], bool]:
    answer = AnswerText(bytewise, stops)
    out = [answer.push(byte) for byte in text.encode()]
    return [*out, answer.end()], answer.stopped


def test_characters_of_three_and_four_bytes_come_whole() -> None:
    out, _ = pieces("\u5e74\u5047 14 \u5929 \U0001f600")
    assert "".join(out) == "\u5e74\u5047 14 \u5929 \U0001f600"
    assert all("\ufffd" not in piece for piece in out)


def test_a_stop_text_over_several_tokens_is_not_sent_and_ends_the_answer() -> None:
    out, stopped = pieces("Yes.\nUser: more", ["\nUser:", "never"])
    assert ("".join(out), stopped) == ("Yes.", True)


def test_what_only_looked_like_a_stop_text_is_sent_later() -> None:
    out, stopped = pieces("a\nUsual", ["\nUser:"])
    assert ("".join(out), stopped) == ("a\nUsual", False)
    out, stopped = pieces("ends with \nUse", ["\nUser:"])
    assert ("".join(out), stopped) == ("ends with \nUse", False)


def test_the_earliest_of_several_stop_texts_counts() -> None:
    assert "".join(pieces("one two three", ["three", "two"])[0]) == "one "


def test_bytes_that_are_no_text_are_replaced_at_the_end_and_hold_nothing_up() -> None:
    answer = AnswerText(bytewise)
    assert [answer.push(0xE5), answer.push(0xE5)] == ["", ""]
    assert answer.push(ord("a")).endswith("a")
    assert answer.push(0xE5) == ""
    assert answer.end() == "\ufffd"


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_the_pieces_are_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    text = text.replace("\ufffd", "?")
    out, stopped = pieces(text, stops)
    first = min((at for at in (text.find(stop) for stop in stops) if at >= 0), default=None)
    assert stopped == (first is not None)
    said = "".join(out)
    # A stop text may be seen before a longer one that began earlier is complete, as a reader of the stream would.
    assert said == text[: len(said)]
    assert (said == text) if first is None else (len(said) >= first and not any(stop in said for stop in stops))
