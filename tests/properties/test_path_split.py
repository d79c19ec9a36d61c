"""The split: sticky, monotone, fair, and nothing but stable without a share."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.limits import Admission, Egress, RetryBudget
from guard.ports import Endpoint, Target
from guard.split import WeightedSplit, bucket, session_key, session_label
from slo.types import Version

STABLE = Target(Version("v1"), (Endpoint("http", "a", 80),))
CANARY = Target(Version("v2", kb="2"), (Endpoint("http", "b", 80),))
RATIOS = st.floats(0, 1)


@given(st.binary(max_size=40), st.binary(max_size=80))
def test_a_bucket_lies_in_the_unit_interval_and_never_moves(key: bytes, salt: bytes):
    assert 0.0 <= bucket(key, salt) < 1.0
    assert bucket(key, salt) == bucket(key, salt)


@given(st.lists(st.binary(max_size=20), max_size=30), st.lists(RATIOS, min_size=2, max_size=8), st.text(max_size=20))
def test_a_growing_share_never_sends_a_session_back(keys: list[bytes], ratios: list[float], rollout: str):
    split = WeightedSplit(STABLE)
    on_canary: set[bytes] = set()
    for ratio in sorted(ratios):
        split.set(STABLE, CANARY, ratio, 0, rollout)
        now = {key for key in keys if split.assign(key).arm == "canary"}
        assert on_canary <= now
        on_canary = now


@given(st.binary(max_size=20), RATIOS)
def test_no_share_is_stable_and_a_whole_share_is_canary(key: bytes, ratio: float):
    split = WeightedSplit(STABLE, cache_epoch=4)
    assert (split.assign(key).target, split.assign(key).cache_epoch) == (STABLE, 4)
    split.set(STABLE, CANARY, 0.0, 5, "r")
    assert split.assign(key).arm == "stable"
    split.set(STABLE, CANARY, 1.0, 5, "r")
    assert (split.assign(key).target, split.assign(key).cache_epoch) == (CANARY, 5)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("rollout", ["r1", "r2", "\u767c\u4f48"])
def test_the_share_of_sessions_is_the_weight_within_chance(ratio: float, rollout: str):
    split = WeightedSplit(STABLE)
    split.set(STABLE, CANARY, ratio, 0, rollout)
    count = 20_000
    hits = sum(split.assign(b"session-%d" % n).arm == "canary" for n in range(count))
    assert abs(hits - ratio * count) < 4.5 * sqrt(count * ratio * (1 - ratio))


def test_another_rollout_meets_other_sessions():
    keys = [b"s%d" % n for n in range(4000)]
    first = {key for key in keys if bucket(key, b"r1") < 0.1}
    second = {key for key in keys if bucket(key, b"r2") < 0.1}
    assert len(first & second) < 80  # independent: 40 expected


@pytest.mark.parametrize(("canary", "ratio"), [(None, 0.1), (CANARY, 1.1), (CANARY, -0.1), (CANARY, float("nan"))])
def test_an_impossible_share_is_refused(canary: Target | None, ratio: float):
    split = WeightedSplit(STABLE)
    with pytest.raises(ValueError, match="canary_ratio: got"):
        split.set(STABLE, canary, ratio)
    assert split.assign(b"x").target is STABLE


def test_the_session_is_the_header_then_the_user_then_the_request():
    keys = [session_key(b"a", "a", b"a"), session_key(b"", "a", b"a"), session_key(b"", "", b"a")]
    assert len(set(keys)) == 3
    assert [bool(session_label(key)) for key in keys] == [True, True, False]
    assert session_key(b"", "\ud800", b"r")


@given(st.lists(st.integers(0, 3), min_size=200, max_size=400), st.floats(0.05, 0.95))
def test_admission_sheds_the_share_it_is_given_and_spares_the_important(priorities: list[int], ratio: float):
    admission = Admission()
    admission.shed_ratio = ratio
    admitted = [(priority, admission.admits(priority)) for priority in priorities]
    shed = {p: sum(not ok for q, ok in admitted if q == p) for p in range(4)}
    assert sum(shed.values()) <= ratio * len(priorities) + 40  # learning the mix costs a few
    order = [p for p in range(4) if p in priorities]
    counts = {p: priorities.count(p) for p in order}
    if shed[order[-1]] > 30 and len(order) > 1:
        assert shed[order[0]] >= 0.5 * counts[order[0]]


def test_without_overload_everything_is_admitted():
    assert all(Admission().admits(priority) for priority in range(10))


@given(st.integers(0, 500))
def test_retries_are_a_tenth_of_the_requests_and_a_reserve(requests: int):
    budget = RetryBudget()
    retried = 0
    for _ in range(requests):
        budget.request()
        retried += budget.retry()
    assert retried <= 10 + 0.1 * requests
    assert budget.retry_count == retried


@pytest.mark.parametrize(
    ("host", "address", "permitted"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("vllm", "10.0.0.4", True),
        ("vllm.models.svc.cluster.local", "10.0.0.4", True),
        ("api.example.com", "93.184.216.34", True),
        ("api.example.com", "2606:2800:220:1::1", True),
        ("api.example.com", "127.0.0.1", False),
        ("api.example.com", "10.0.0.4", False),
        ("api.example.com", "192.168.1.1", False),
        ("api.example.com", "::1", False),
        ("api.example.com", "::ffff:10.0.0.4", False),
        ("api.example.com", "fd00::1", False),
        ("api.example.com", "0.0.0.0", False),
        ("api.example.com", "169.254.169.254", False),
        ("metadata", "169.254.169.254", False),
        ("vllm", "fe80::1%eth0", False),
        ("api.example.com", "not an address", False),
    ],
)
def test_a_name_reaches_only_addresses_of_its_kind(host: str, address: str, permitted: bool):
    assert Egress().permits(host, address) is permitted


def test_networks_can_be_allowed_by_configuration():
    assert Egress(["10.0.0.0/8"]).permits("api.example.com", "10.0.0.4")
    assert not Egress(["10.0.0.0/8"]).permits("api.example.com", "192.168.0.1")
