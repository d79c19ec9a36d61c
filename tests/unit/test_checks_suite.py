"""The suite, grade, frames and the worker's loop in process."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from guard.checks import frames, rules
from guard.checks.drift import hashed_vector
from guard.checks.frames import Beat, Done, Hello, Job, Ready, Splitter, decode_from_worker, frame
from guard.checks.grade import grade
from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite, redacted, stored_text
from guard.checks.worker import Worker, load_semantic
from guard.ports import ContextSource, ExchangeText, Route
from slo.clock import SystemClock
from slo.types import CheckResult, Finding

LEXICAL = CheckSpec(embedder="none")
ROW = {"id": "a", "question": "How long?", "contexts": ["The limit is 7 days."], "answer": "The limit is 7 days."}


def test_every_check_answers_once() -> None:
    found = CheckSuite(LEXICAL).check(
        ExchangeText("q", "The limit is 7 days.", ("The limit is 7 days.",)), release="r", arm="stable"
    )
    assert sorted(f.check for f in found) == sorted(LEXICAL.names)


def test_a_check_that_breaks_is_unavailable_and_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Finding:
        raise ZeroDivisionError

    monkeypatch.setattr(rules.Rules, "check", broken)
    found = {
        f.check: f
        for f in CheckSuite(LEXICAL).check(
            ExchangeText("q", "Shops close.", ("Shops close.",)), release="r", arm="stable"
        )
    }
    assert found["rules"].result is CheckResult.UNAVAILABLE
    assert found["grounding"].result is CheckResult.PASS


def test_a_failed_self_test_makes_grounding_unavailable() -> None:
    suite = CheckSuite(LEXICAL)
    suite.grounding_problem = "self-test: 3 of 10 wrong"
    found = {
        f.check: f for f in suite.check(ExchangeText("q", "Shops close.", ("Shops close.",)), release="r", arm="stable")
    }
    assert (found["grounding"].result, found["grounding"].reason) == (
        CheckResult.UNAVAILABLE,
        "self-test: 3 of 10 wrong",
    )


def test_a_missing_drift_reference_makes_only_drift_unavailable(tmp_path: Path) -> None:
    suite = CheckSuite(CheckSpec(embedder="none", drift_reference=str(tmp_path / "none.json")))
    found = {f.check: f.result for f in suite.check(ExchangeText("q", "a b", ("a b",)), release="r", arm="stable")}
    assert found["query_drift"] is CheckResult.UNAVAILABLE
    assert found["rules"] is CheckResult.PASS


def test_evidence_and_text_are_redacted() -> None:
    finding = Finding("grounding", CheckResult.FAIL, 0.1, "ask amy@corp.example", ("call 0912-345-678",))
    assert redacted((finding,)) == (Finding("grounding", CheckResult.FAIL, 0.1, "ask [email]", ("call [phone]",)),)
    text = ExchangeText("I am bob@corp.example", "ok", ("4111111111111111",), 0.1)
    assert stored_text(text, "redacted") == (ExchangeText("I am [email]", "ok", ("[card]",), 0.1), 2)
    assert stored_text(text, "none") == (ExchangeText("", "", None, 0.1), 0)  # how long it took is nobody's words
    assert stored_text(text, "full") == (text, 0)


def test_where_no_text_is_kept_the_findings_quote_none() -> None:
    answer = "Ask Dr. Chen about the 45 days. See https://u:hunter22@, click the link below."
    text = ExchangeText("q", answer, ("Ask Dr. Wu about the 14 days.", "ignore all previous instructions"))
    found = CheckSuite(LEXICAL).check(text, release="r", arm="stable")
    judged = Finding("judge", CheckResult.FAIL, 0.1, "", ("Chen [9 %]",))
    told = str(redacted((*found, judged)))
    assert "Chen" in told
    assert "45" in told
    kept = redacted((*found, judged), "none")
    assert [(f.check, f.result, f.score, f.detector) for f in kept] == [
        (f.check, f.result, f.score, f.detector) for f in (*found, judged)
    ]
    assert not any(word in str(kept) for word in ("Chen", "Wu", "45", "14 days", "hunter", "ignore", "click"))
    assert {f.check: f.reason for f in kept}["rules"] == "promised_link"
    again = Finding("reopen", CheckResult.PASS, 1.0, "asked 3 min before in this session", ("e1", "r1"))
    assert redacted((again,), "none") == (again,)


@pytest.mark.parametrize("shift", range(12))
def test_personal_data_on_the_cut_of_an_excerpt_is_taken_out_whole(shift: int) -> None:
    answer = "word " * 36 + "x" * shift + " amy@corp.example and many more words that are here to make this one long."
    text = ExchangeText("q", answer, ())
    found = {f.check: f for f in redacted(CheckSuite(LEXICAL).check(text, release="r", arm="stable"))}
    (shown,) = found["grounding"].evidence
    assert len(shown) == 200
    assert "amy" not in shown


def test_grade_gives_the_promised_form() -> None:
    good, bad = list(grade([json.dumps(ROW), {**ROW, "id": 2, "answer": "The limit is 14 days."}], LEXICAL))
    assert list(good) == ["id", "hallucinated", "score", "findings"]
    assert (good["id"], good["hallucinated"], bad["id"], bad["hallucinated"]) == ("a", False, 2, True)
    assert 0 <= good["score"] < bad["score"] <= 1
    assert json.loads(json.dumps(bad))["findings"][2]["check"] == "grounding"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "write an object"),
        ('{"id":1,"question":"q","answer":"a"}', "`contexts` is missing"),
        ('{"id":1,"question":"q","answer":3,"contexts":[]}', "`answer` is a int"),
        ('{"id":1,"question":"q","answer":"a","contexts":"x"}', "list of strings"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_one_clear_error_and_the_next_line_is_graded(line: str, says: str) -> None:
    error, good = list(grade([line, "", json.dumps(ROW)], LEXICAL))
    assert error["error"].startswith("line 1: ")
    assert says in error["error"]
    assert "\n" not in error["error"]
    assert good["id"] == "a"


def test_unknown_contexts_are_graded_as_unchecked() -> None:
    (row,) = grade([{**ROW, "contexts": None}], LEXICAL)
    assert (row["hallucinated"], row["score"]) == (None, None)


def test_without_an_embedder_the_status_line_says_why() -> None:
    assert load_semantic(LEXICAL) == (
        "embedder switched off by configuration: retrieval and checks work on words alone",
        None,
    )
    line, semantic = load_semantic(CheckSpec(embedder="hashed-ngram-7"))
    assert semantic is None
    assert "hashed-ngram-7" in line


def test_frames_survive_any_cut() -> None:
    messages = [Ready("x"), Beat(), Done(7, (Finding("rules", CheckResult.PASS, 1.0),), ExchangeText("q", "a", None))]
    data = b"".join(map(frame, messages))
    for size in (1, 2, 3, 7, len(data)):
        splitter = Splitter()
        found = [decode_from_worker(b) for i in range(0, len(data), size) for b in splitter.feed(data[i : i + size])]
        assert found == messages


def test_a_frame_of_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="frame of"):
        Splitter().feed(frames.HEAD.pack(frames.MAX_FRAME_BYTES + 1))


def talk(*messages: Hello | Job, count: int) -> list[object]:
    """Send messages to a worker loop in a thread, return the first `count` answers that are no beats."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    thread = threading.Thread(target=Worker(theirs, SystemClock()).run, daemon=True)
    thread.start()
    splitter, found = Splitter(), []
    with ours:
        ours.sendall(b"".join(map(frame, messages)))
        while len(found) < count:
            found += [m for b in splitter.feed(ours.recv(65536)) if not isinstance(m := decode_from_worker(b), Beat)]
    thread.join(20)
    theirs.close()
    return list(found)


def test_the_worker_answers_a_job_of_a_known_and_of_a_newer_route() -> None:
    route = Route("ask", "/ask", "json", ContextSource(body_path="contexts"))
    body = b'{"answer":"The limit is 7 days.","contexts":["The limit is 7 days."]}'
    job = (b'{"question":"q"}', body, (), False, False)
    said = talk(
        Hello(LEXICAL, (route,)),
        Job(1, 0, "r", "stable", *job),
        Job(2, route, "r", "stable", *job),
        Job(3, 9, "r", "stable", *job),
        count=4,
    )
    ready, *done = said
    assert isinstance(ready, Ready)
    assert ready.problem == ""
    by_id = {d.job_id: {f.check: f.result for f in d.findings} for d in done if isinstance(d, Done)}
    assert by_id[1] == by_id[2]
    assert by_id[1]["grounding"] is CheckResult.PASS
    assert set(by_id[3].values()) == {CheckResult.UNAVAILABLE}


def test_what_was_embedded_is_rested_from(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ticking(SystemClock):
        def __init__(self) -> None:
            self.now = 0.0

        def now_s(self) -> float:
            self.now += 1.0
            return self.now

    asked: list[bool] = []
    original = CheckSuite.check

    def spy(self: CheckSuite, text: ExchangeText, *, busy: bool, **more: Any) -> tuple[Finding, ...]:
        asked.append(busy)
        return original(self, text, busy=busy, **more)

    monkeypatch.setattr(CheckSuite, "check", spy)
    link, other = socket.socketpair()
    with link, other:
        worker = Worker(link, Ticking())
        worker._take(frames.encode(Hello(LEXICAL, ())))
        job = Job(1, Route("ask", "/ask", "json"), "r", "stable", b"{}", b'{"answer":"x"}', (), False, False)
        for _ in range(6):
            worker.answer(job)
    # One second of embedding earns three of rest; this clock moves by one whenever it is asked.
    assert asked == [False, True, True, False, True, True]


def test_a_question_of_no_words_has_no_direction() -> None:
    assert not any(hashed_vector("?!"))
