"""What people and programs read after a rollback: payload, differences, post-mortem."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.release.alertmanager import alerts_of
from guard.release.incident import (
    Difference,
    Evidence,
    Exemplar,
    Incident,
    IncidentKind,
    TimelineEntry,
    diff_versions,
    evidence_of,
    note,
    postmortem,
    rule_of,
    stable_id,
)
from guard.release.payload import LIMIT_BYTES, message_id, webhook_body
from slo.types import FastPath, Reading, State, Version, Window
from tests.release_kit import BAD, BREACH, DETAILS, GOOD, SLO

OPENED_S = 1_750_000_000.0
INCIDENT = Incident(
    "inc-0123456789abcdef01234567",
    IncidentKind.ROLLBACK,
    "faq-bot",
    OPENED_S,
    "hallucination",
    "breach: 8 % over 4.5 %",
    BAD,
    GOOD,
    5,
    closed_s=OPENED_S + 180,
    pointer="at_target",
    timeline=(TimelineEntry(OPENED_S, "verdict"), TimelineEntry(OPENED_S + 1, "weight 0")),
    evidence=(evidence_of(BREACH),),
    differences=diff_versions(GOOD, BAD, DETAILS["v1.2.0"], DETAILS["v1.2.1"]),
    exemplars=(Exemplar("ex-1", "0af7651916cd43dd8448eb211c80319c"), Exemplar("ex-2")),
)


def test_the_same_decision_has_the_same_id_everywhere_and_others_do_not() -> None:
    ours = stable_id("hallucination", BAD.release_id, 5)
    assert len(ours) == 24
    others = {
        stable_id("p95", BAD.release_id, 5),
        stable_id("hallucination", GOOD.release_id, 5),
        stable_id("hallucination", BAD.release_id, 6),
    }
    assert ours not in others
    assert len(others) == 3
    assert message_id(INCIDENT) == "msg_0123456789abcdef01234567"


def test_what_changed_names_the_tuple_first_and_then_the_details() -> None:
    assert diff_versions(GOOD, BAD, DETAILS["v1.2.0"], DETAILS["v1.2.1"]) == (
        Difference("kb", "600/100", "350/50"),
        Difference("kb.chunking", "600/100", "350/50"),
        Difference("kb.empty_ratio", "", "0.15"),
        Difference("kb.mean_length", "450", "280"),
    )
    assert diff_versions(GOOD, replace(GOOD, name="same parts")) == ()


def test_evidence_bounds_from_the_side_that_is_worse() -> None:
    assert evidence_of(BREACH).interval == (0.062, None)
    similarity = replace(BREACH, slo=replace(SLO, indicator="sft_quality_similarity_score"), bound=0.7)
    assert evidence_of(similarity).interval == (None, 0.7)


def test_evidence_of_the_fast_path_has_the_fast_window() -> None:
    fast = replace(BREACH, slo=replace(SLO, fast=FastPath(0.2, Window(60.0), 20)), fast=True, reading=Reading(9, 20))
    assert (evidence_of(fast).window_s, evidence_of(fast).n, evidence_of(fast).fast) == (60.0, 20, True)


def test_the_rule_is_the_first_that_fires() -> None:
    quiet = replace(BREACH, slo=replace(SLO, name="p95"), firing=False)
    assert rule_of((quiet, BREACH)) == "hallucination"
    assert rule_of((quiet,)) == "p95"
    assert rule_of((replace(BREACH, state=State.UNKNOWN),)) == "none"


def test_the_postmortem_has_the_facts_and_leaves_the_causes_to_people() -> None:
    text = postmortem(INCIDENT)
    for fact in (
        "# Incident inc-0123456789abcdef01234567: rollback of v1.2.1",
        "| lasted | 180 s |",
        f"| taken out | v1.2.1 ({BAD.release_id}) |",
        "- 2025-06-15 15:06:41Z weight 0",
        "| kb.chunking | 600/100 | 350/50 |",
        "| kb.empty\\_ratio |  | 0.15 |",
        "40 of 500",
        "(baseline abababababab)",
        "- exchange `ex-1`, trace `0af7651916cd43dd8448eb211c80319c`",
        "_To be written by people._",
    ):
        assert fact in text
    assert "lasted | open" in postmortem(replace(INCIDENT, closed_s=None))
    bare = replace(INCIDENT, timeline=(), evidence=(), differences=(), exemplars=(), kind=IncidentKind.DRILL)
    assert "# Drill" in postmortem(bare)
    assert "No rule spoke" in postmortem(bare)


def test_text_from_outside_stays_text() -> None:
    evil = "<script>alert(1)</script> | [x](javascript:1)\n# head `code`"
    text = postmortem(replace(INCIDENT, reason=evil, exemplars=(Exemplar("`; rm -rf /"),)))
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\n# head" not in text
    assert "- exchange `rm-rf`" in text


def test_a_moment_is_noted_once() -> None:
    once = note(INCIDENT, 1.0, "done")
    assert note(once, 2.0, "done") is once


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(0, 1500), st.sampled_from(["x", "\u554f", "\x00", '"', "\ud800"]))
def test_a_payload_is_always_below_20_kb_and_whole_json(count: int, length: int, char: str) -> None:
    text = char * length
    evidence = Evidence(
        text, text, text, "breach", 1.0, 1, 1, 0.1, (0.1, None), 0.1, text, more=((text, text),) * 20
    )  # fmt: skip
    big = replace(
        INCIDENT,
        reason=text,
        bad=Version(*[text.encode(errors="replace").decode()] * 6),
        evidence=(evidence,) * min(count, 10),
        differences=(Difference(text, text, text),) * count,
        exemplars=(Exemplar(text, text),) * count,
        timeline=(TimelineEntry(1.0, text),) * count,
    )
    body = webhook_body(big)
    assert len(body) < LIMIT_BYTES
    said = msgspec.json.decode(body)
    assert said["data"]["incident_id"] == INCIDENT.incident_id
    if length > 1000:
        assert said["data"]["truncated"]


def test_nothing_is_cut_from_an_ordinary_payload() -> None:
    said = msgspec.json.decode(webhook_body(INCIDENT))
    assert said["data"]["truncated"] is False
    assert [d["part"] for d in said["data"]["differences"]] == ["kb", "kb.chunking", "kb.empty_ratio", "kb.mean_length"]
    assert said["timestamp"] == "2025-06-15T15:06:40.000Z"


@pytest.mark.parametrize("kind", list(IncidentKind))
def test_every_kind_has_an_event_type_and_an_alert_name(kind: IncidentKind) -> None:
    incident = replace(INCIDENT, kind=kind)
    assert msgspec.json.decode(webhook_body(incident))["type"].startswith("release.")
    (alert,) = alerts_of([incident], OPENED_S + 200)
    assert alert["labels"]["alertname"].startswith("SftGuard")
    assert alert["endsAt"] == "2025-06-15T15:09:40.000Z"  # closed: resolved at its end
