"""Keys separate what may differ and join what may not; no damaged envelope opens."""

from __future__ import annotations

import json
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.cache.envelope import Crosstalk, InvalidValue, seal, unseal
from guard.cache.key import KeyRules, normal_text, request_key
from guard.cache.types import CacheRequest
from tests.unit.test_cache_rules import CHAT, SECRET, entry, head

BLANKS = dict.fromkeys(map(ord, " \t\f\v\r\n"))
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
HEAD = head()


def key(body: dict[str, Any]) -> CacheRequest:
    found = request_key(
        HEAD,
        json.dumps(body).encode(),
        CHAT,
        KeyRules(),
        release="r",
        epoch=0,
        mark="",
        replaced=frozenset(),
        pepper=b"",
    )
    assert isinstance(found, CacheRequest)
    return found


@given(texts)
def test_normalising_changes_nothing_but_blanks_and_normal_form_and_is_done_once(text: str):
    normal = normal_text(text)
    assert normal_text(normal) == normal
    assert normal.translate(BLANKS) == normalize("NFC", text).translate(BLANKS)


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(values, values)
def test_two_values_of_any_field_have_one_key_only_when_they_are_equal(one: Any, other: Any):
    keys = [key({"temperature": 0, "messages": [], "x": value}).key for value in (one, other)]
    assert (keys[0] == keys[1]) == same(one, other)


@given(texts, texts)
def test_two_questions_have_one_key_only_when_their_normal_forms_are_equal(one: str, other: str):
    keys = [key({"temperature": 0, "messages": [{"role": "user", "content": t}]}).key for t in (one, other)]
    assert (keys[0] == keys[1]) == (normal_text(one) == normal_text(other))


@given(st.lists(st.lists(texts, max_size=3), max_size=3), st.lists(st.lists(texts, max_size=3), max_size=3))
def test_cutting_the_same_words_elsewhere_is_another_request(one: Any, other: Any):
    keys = [key({"temperature": 0, "stop": value}).key for value in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


WHOLE = seal(entry(), SECRET)


@given(st.data())
def test_no_damaged_envelope_opens(data: st.DataObject):
    raw = bytearray(WHOLE)
    how = data.draw(st.sampled_from(("flip", "cut", "grow", "swap", "zero")))
    at = data.draw(st.integers(0, len(raw) - 1))
    if how == "flip":
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del raw[at:]
    elif how == "grow":
        raw[at:at] = data.draw(st.binary(min_size=1, max_size=5))
    elif how == "swap":
        end = data.draw(st.integers(at, len(raw)))
        raw[at:end] = bytes(reversed(raw[at:end]))
    else:
        raw[at:] = bytes(len(raw) - at)
    if bytes(raw) == WHOLE:
        return
    with pytest.raises((InvalidValue, Crosstalk)):
        unseal(bytes(raw), entry().key, SECRET)
