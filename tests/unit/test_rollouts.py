"""Recorded rollouts decided again: a bad canary, a good one, an outage of both, and what live would have counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from guard.cli import main
from guard.rollouts import Rollout, as_text, decide_rollout, pairs_of
from slo.codec import encode_exchange
from slo.replay import rules_of
from slo.spec import parse_slo
from slo.traffic import Life, Traffic
from slo.types import ActionKind, Exchange, Outcome

BEGIN_S = 1_750_003_200.0
SLO = """\
service: bot
objectives:
  - name: errors
    indicator: sft_availability_llm_error_rate
    window: 10m
    threshold: {absolute: 10%}
    min_events: 100
    for: 5m
    action: rollback
    fast: off
"""


def rollout(canary_bad: float, stable_bad: float, *, seconds: int = 3600, seed: int = 1) -> list[Exchange]:
    """Two answers a second, 30 % of them by the canary."""
    random, found = Random(seed), []
    for number in range(2 * seconds):
        canary = random.random() < 0.3
        release, arm = ("new", "canary") if canary else ("old", "stable")
        bad = random.random() < (canary_bad if canary else stable_bad)
        found.append(
            Exchange(
                f"e{number}", BEGIN_S + number / 2, "chat", release, arm,
                Outcome.SERVER_ERROR if bad else Outcome.OK, 500 if bad else 200, duration_s=0.125,
                session=f"s{number}",
            )
        )  # fmt: skip
    return found


def write(exchanges: Sequence[Exchange], directory: Path) -> list[str]:
    slo, log = directory / "slo.yaml", directory / "exchanges-20250615T150640Z-0000.jsonl"
    slo.write_text(SLO)
    log.write_bytes(b"".join(encode_exchange(e) + b"\n" for e in exchanges))
    return ["slo", "replay", "--rollouts", "--slo", str(slo), "--log", str(log)]


def decided(exchanges: Sequence[Exchange], tmp_path: Path) -> Rollout:
    """Through the engine, as the command does it."""
    pytest.importorskip("duckdb", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
    from slo.sources.log_stream import exchanges_between, hourly_shares
    from slo.sources.log_table import open_log
    from slo.sources.log_ticks import read_traffic

    rules = rules_of(parse_slo(SLO).objectives)
    with open_log(write(exchanges, tmp_path)[-1], threads=1) as table:
        traffic = read_traffic(table, [rule.quantity for rule in rules])
        ((canary, stable),) = pairs_of(traffic)
        end_s = traffic.last_s
        stream = list(exchanges_between(table, ["new", "old"], traffic.first_s, end_s))
        shares = hourly_shares(table, "new", "old", traffic.first_s, end_s)
    assert len(stream) == len(exchanges)
    assert sum(shares.values()) / len(shares) == pytest.approx(0.3, abs=0.05)
    return decide_rollout(traffic, rules, canary, stable, stream, shares, 10.0)


def kinds(found: Rollout) -> list[tuple[str, str]]:
    return [(d.action.kind.value, d.code) for d in found.decisions]


def test_a_bad_canary_is_rolled_back_by_comparison_before_the_rule_would(tmp_path: Path) -> None:
    found = decided(rollout(0.2, 0.01), tmp_path)
    assert kinds(found)[-1] == ("roll_back", "breach")
    assert found.rolled_back_s is not None
    # The rule needs 100 canary answers and then five minutes; the comparison some dozens of answers.
    assert found.rolled_back_s - found.begin_s < 300
    assert "roll_back" in as_text([found])


def test_a_good_canary_is_never_rolled_back_and_comes_to_pass(tmp_path: Path) -> None:
    found = decided(rollout(0.01, 0.01, seconds=5400), tmp_path)
    assert found.rolled_back_s is None
    assert found.decisions[-1].action.kind is ActionKind.ADVANCE
    assert kinds(found)[0][0] == "hold"


def test_when_stable_suffers_too_it_is_not_the_canary(tmp_path: Path) -> None:
    found = decided(rollout(0.4, 0.4), tmp_path)
    assert ("shed", "shared_upstream") in kinds(found)
    assert found.rolled_back_s is None


def test_a_canary_alone_is_not_compared() -> None:
    lives = (Life("old", "stable", 0, 10, 5), Life("new", "canary", 50, 60, 5), Life("new", "stable", 61, 90, 5))
    assert list(pairs_of(Traffic(10.0, lives, {}, 15))) == []
    together = (Life("older", "stable", 0, 52, 99), Life("old", "stable", 40, 80, 5), lives[1])
    assert [(c.release, s.release) for c, s in pairs_of(Traffic(10.0, together, {}, 109))] == [("new", "old")]


def test_the_command_tells_the_rollouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb", reason="needs the analysis extra: pip install 'sft-guard[analysis]'")
    arguments = write(rollout(0.3, 0.01, seconds=900), tmp_path)
    assert main([*arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rollouts"]
    assert (found["canary"], found["stable"]) == ("new", "old")
    assert found["decisions"][-1]["action"] == "roll_back"
    assert found["rolled_back_after_s"] > 0
    only_stable = [e for e in rollout(0.3, 0.01, seconds=300) if e.arm == "stable"]
    assert main(write(only_stable, tmp_path)) == 0
    assert "no canary in the log" in capsys.readouterr().out
