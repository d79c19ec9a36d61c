"""Key intents, questions asked again, drift by component, probes: decided on numbers, without a process."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from guard.checks.semantic import Semantic
from guard.following.components import ComponentWatch
from guard.following.intents import IntentIndex
from guard.following.intents_file import load_intents
from guard.following.query_drift import QueryDrift
from guard.following.reopen import Asked, Reopens
from guard.following.space import Space
from guard.probing.probes_file import load_probes
from guard.probing.results import ProbeResult, row_of
from guard.quality import QualityRecorder
from guard.quality_rows import intent_row
from rag.embedding import HashedNgramEmbedder
from slo.clock import SystemClock
from slo.errors import ConfigError
from slo.sources.memory import MemorySource
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

LEAVE_ZH = "\u7279\u4f11\u6709\u5e7e\u5929"
INTENTS = f"""\
intents:
  - {{name: leave, examples: ["How many days of annual leave do I get?", "{LEAVE_ZH}"]}}
  - {{name: password, minimum: 0.9, examples: ["How do I reset my password?"]}}
"""


def exchange(number: int, *, cache: CacheStatus = CacheStatus.MISS, wall_s: float = 0.0, session: str = "s",
             findings: tuple[Finding, ...] = ()) -> Exchange:  # fmt: skip
    return Exchange(f"e{number}", wall_s, "chat", "r1", "stable", Outcome.OK, 200, cache=cache, session=session,
                    findings=findings)  # fmt: skip


# -- key intents -------------------------------------------------------------------------------------------------------


def test_a_question_belongs_to_the_nearest_example_or_to_none(tmp_path: Path) -> None:
    (tmp_path / "intents.yaml").write_text(INTENTS, encoding="utf-8")
    index = IntentIndex(load_intents(tmp_path / "intents.yaml"), Space())
    assert index.name_of("how many days of annual leave do I get")[0] == "leave"
    assert index.name_of(f"\u8acb\u554f{LEAVE_ZH}\u5462")[0] == "leave"
    assert index.name_of("how do i reset my password please")[0] == "password"
    assert index.name_of("Where do I park my bicycle?")[0] == ""
    assert index.name_of("?!")[0] == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("intents: []\n", "intents"),
        ("intents:\n  - {name: a, examples: []}\n", "intents[0].examples"),
        ("intents:\n  - {name: a, examples: [x], minimum: 1.5}\n", "intents[0].minimum"),
        ("intents:\n  - {name: a, examples: [x]}\n  - {name: b, examples: [X]}\n", "intents"),
        ("intents:\n  - {name: a, example: [x]}\n", "intents[0]"),
    ],
)
def test_a_wrong_file_names_its_place(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "intents.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_intents(path)
    assert f"intents.yaml: {place}" in str(caught.value)


def test_quality_of_an_intent_is_low_only_beyond_chance() -> None:
    assert intent_row("r", "a", 100, 0, 3).state == "ok"
    assert intent_row("r", "a", 82, 18, 0).state == "ok"  # below 85 %, and well within chance
    low = intent_row("r", "a", 70, 30, 0)
    assert (low.state, low.good_ratio) == ("low", 0.7)
    assert low.high is not None
    assert low.high < 0.85


# -- asked again -------------------------------------------------------------------------------------------------------


def asked(space: Space, question: str, wall_s: float, release: str = "r1") -> Asked:
    read = space.vector(question)
    assert read is not None
    return Asked(wall_s, f"e{wall_s:.0f}", release, *read)


def test_a_like_question_of_one_session_within_a_day_was_asked_again() -> None:
    space, reopens = Space(), Reopens()
    assert reopens.take("anna", asked(space, "How do I reset my password?", 0.0)) is None
    assert reopens.take("bert", asked(space, "How do I reset my password?", 60.0)) is None
    assert reopens.take("anna", asked(space, "Where is the cafeteria?", 120.0)) is None
    again = reopens.take("anna", asked(space, "how do I reset my password please", 300.0))
    assert again is not None
    assert again.exchange_id == "e0"
    assert reopens.take("anna", asked(space, "How do I reset my password?", 300.0 + 86_401.0)) is None


def test_a_retry_of_the_client_is_no_question_asked_again() -> None:
    space, reopens = Space(), Reopens()
    assert reopens.take("anna", asked(space, "How do I reset my password?", 0.0)) is None
    assert reopens.take("anna", asked(space, "How do I reset my password?", 3.0)) is None
    assert reopens.take("anna", asked(space, "How do I reset my password?", 30.0)) is not None


WORDS = ["".join(random.Random(n).choices("bcdfghjklmnpqrstvwxyz", k=9)) for n in range(41)]


def test_memory_is_bounded_by_sessions_and_questions() -> None:
    space, reopens = Space(), Reopens(sessions_count=10)
    for number in range(40):
        reopens.take(f"s{number}", asked(space, f"question about topic {number}", float(number)))
        reopens.take("busy", asked(space, f"{WORDS[number]} {WORDS[number + 1]}", float(number)))
    assert len(reopens) == 10
    assert sum(session == "busy" for session, _ in reopens.rows()) == 8


def test_vectors_of_questions_are_bounded_in_bytes() -> None:
    """20,000 sessions of eight questions were 328 MB of the worker, a day after its start."""
    space, reopens = Space(), Reopens(vector_bytes=100_000)
    for number in range(300):
        reopens.take(f"s{number // 3}", asked(space, WORDS[number % 41], float(number)))
        assert reopens.vector_bytes == sum(kept.vector.nbytes for _, kept in reopens.rows()) <= 100_000
    assert 20 < len(reopens) < 50
    assert reopens.take("s99", asked(space, WORDS[299 % 41], 400.0)) is not None


def test_the_same_stored_answer_again_counts_for_its_session_alone() -> None:
    counted: list[tuple[str, object]] = []
    memory = MemorySource((), SystemClock())
    sources = {"e2": "e1", "e3": "e1", "e4": "e1"}
    recorder = QualityRecorder(memory, lambda m, labels: counted.append((m, dict(labels))), source_of=sources.get)
    recorder.served(exchange(1))
    recorder.served(exchange(2, cache=CacheStatus.HIT, wall_s=3.0))  # a retry
    recorder.served(exchange(3, cache=CacheStatus.HIT, wall_s=600.0))  # asked again
    recorder.served(exchange(4, cache=CacheStatus.HIT, wall_s=900.0, session="other"))
    assert counted == [("sft_quality_reopens_total", {"release": "r1"})]
    (row,) = recorder.user_rows()
    assert (row.asked_count, row.reopened_count) == (3, 1)


def test_an_answer_that_grounding_judged_is_counted_by_the_tier_that_had_a_say() -> None:
    counted: list[tuple[str, object]] = []
    recorder = QualityRecorder(MemorySource((), SystemClock()), lambda m, labels: counted.append((m, dict(labels))))
    for result, detector in ((CheckResult.FAIL, "lexical+judge:m"), (CheckResult.SKIPPED, "lexical")):
        recorder.checked(exchange(1, findings=(Finding("grounding", result, 0.1, detector=detector),)))
    assert counted == [("sft_quality_grounding_answers_total", {"release": "r1", "tier": "judge"})]


def test_what_another_release_answered_badly_is_counted_against_that_release() -> None:
    recorder = QualityRecorder(MemorySource((), SystemClock()), lambda m, labels: None)
    finding = Finding("reopen", CheckResult.SKIPPED, 1.0, "", ("e1", "r0"))
    recorder.checked(exchange(1, findings=(finding,)))
    assert {row.release: row.reopened_count for row in recorder.user_rows()} == {"r0": 1}


# -- components --------------------------------------------------------------------------------------------------------


def test_a_component_alarms_on_a_move_that_is_large_and_beyond_its_own_spread() -> None:
    chance = random.Random(1)
    watch = ComponentWatch(100)
    states = []
    for number in range(2_500):
        mean = 0.6 if number < 1_500 else 0.3
        moved = watch.take("r1", {"overlap": chance.gauss(mean, 0.2)}, stable=True)
        if moved is not None:
            states.append(moved.state)
    assert states[:5] == ["learning"] * 5
    assert set(states[5:15]) == {"steady"}
    assert states[15:] == ["alarm"] * 10


def test_a_move_that_many_questions_confirm_and_nobody_would_notice_is_no_alarm() -> None:
    chance = random.Random(2)
    watch = ComponentWatch(5_000)
    states = []
    for number in range(60_000):
        mean = 0.6 if number < 25_000 else 0.62  # a tenth of a deviation: 5 spreads of such windows
        moved = watch.take("r1", {"overlap": chance.gauss(mean, 0.2)}, stable=True)
        if moved is not None and moved.state != "learning":
            states.append(moved.state)
    assert "alarm" not in states


# -- questions ---------------------------------------------------------------------------------------------------------

FORMS = ("how do I apply for {}", "who approves {}", "what is the deadline for {}", "where is the form for {}",
         "can I cancel {} later", "which documents are needed for {}")  # fmt: skip
SUBJECTS = ("annual leave", "sick leave", "the travel allowance", "a hotel bill", "the badge", "parking", "overtime")
ENDINGS = ("", "please", "today", "this month", "in the Taipei office", "as a new employee")
STRANGE = ("which planet has the most moons", "how long do I boil an egg", "who won the football final")


def usual(chance: random.Random) -> str:
    return f"{chance.choice(FORMS).format(chance.choice(SUBJECTS))} {chance.choice(ENDINGS)}"


def watching(directory: Path | None, dim: int = 512) -> QueryDrift:
    space = Semantic(HashedNgramEmbedder(dim))
    return QueryDrift("latin", [space], window=50, learn_count=600, directory=directory)


def test_questions_that_are_all_the_same_are_learnt_from_no_model_and_others_later_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = watching(None)
    for _ in range(600):
        watch.take("hello", "r1", stable=True)
    watch.wait()
    assert watch.model is None
    assert "could not be learnt from 600: nearly all questions are the same" in caplog.text
    chance = random.Random(1)
    for _ in range(600):
        watch.take(usual(chance), "r1", stable=True)
    watch.wait()
    assert watch.model is not None


def test_strangers_among_the_questions_are_found_named_and_kept_over_a_restart(tmp_path: Path) -> None:
    chance = random.Random(3)
    watch = watching(tmp_path)
    for _ in range(600):
        watch.take(usual(chance), "r1", stable=True)
    watch.wait()
    assert watch.model is not None

    def window(strange_each: int) -> tuple[str, str]:
        said = [
            watch.take(STRANGE[i % 3] if strange_each and i % strange_each == 0 else usual(chance), "r1", stable=True)
            for i in range(50)
        ]
        moved, clusters = next(s for s in said if s is not None)
        return moved.state, " ".join(e for c in clusters for e in c.examples)

    assert [window(0)[0] for _ in range(6)].count("alarm") == 0
    state, examples = window(4)
    assert state == "alarm"
    assert any(question in examples for question in STRANGE)

    again = watching(tmp_path)
    assert again.model is not None
    assert again.model.limits == watch.model.limits


def test_where_no_words_may_be_kept_none_are_shown(tmp_path: Path) -> None:
    chance = random.Random(5)
    space = Semantic(HashedNgramEmbedder(512))
    watch = QueryDrift("latin", [space], window=50, learn_count=600, directory=tmp_path, examples=False)
    for _ in range(600):
        watch.take(usual(chance), "r1", stable=True)
    watch.wait()
    assert watch.model is not None
    assert set(watch.model.group_examples) == {""}
    said = [watch.take(STRANGE[i % 3], "r1", stable=True) for i in range(50)]
    moved, clusters = next(s for s in said if s is not None)
    assert moved.state == "alarm"
    assert clusters
    assert {e for c in clusters for e in c.examples} == {""}


def test_a_model_of_another_embedder_is_refused_with_the_cure(tmp_path: Path) -> None:
    chance = random.Random(4)
    watch = watching(tmp_path)
    for _ in range(600):
        watch.take(usual(chance), "r1", stable=True)
    watch.wait()
    other = watching(tmp_path, dim=256)
    said = other.take("how do I apply for leave", "r1", stable=True)
    assert said is not None
    assert said[0].state == "unavailable"
    assert "remove the file" in said[0].reason


def test_a_damaged_model_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "drift-latin.npz").write_bytes(b"PK\x03\x04 torn")
    said = watching(tmp_path).take("how do I apply for leave", "r1", stable=True)
    assert said is not None
    assert said[0].state == "unavailable"


# -- probes ------------------------------------------------------------------------------------------------------------


def test_a_round_says_what_is_known_and_of_how_many() -> None:
    results = [
        ProbeResult(("a",), contexts_known=True, documents=("b", "c", "a"), similarity=0.9),
        ProbeResult(("a",), contexts_known=True, documents=("b", "c", "d", "a")),
        ProbeResult(("a",), contexts_known=True, empty=True, documents=()),
        ProbeResult(("a",), contexts_known=False),
        ProbeResult(("a",), failed=True),
    ]
    row = row_of("r1", 5.0, results, k=3)
    assert (row.asked_count, row.failed_count, row.recall_count) == (5, 1, 3)
    assert row.recall_ratio == pytest.approx(1 / 3)
    assert row.zero_hit_ratio == pytest.approx(1 / 3)
    assert (row.similarity, row.similarity_count) == (0.9, 1)
    assert "contexts of 1 answers are unknown" in row.note


def test_without_any_contexts_there_is_no_recall_and_no_zero_hit() -> None:
    row = row_of("r1", 5.0, [ProbeResult(("a",)), ProbeResult(("b",))], k=3)
    assert (row.recall_ratio, row.zero_hit_ratio, row.similarity) == (None, None, None)


def test_probes_are_read_from_yaml_and_lines_and_need_a_label(tmp_path: Path) -> None:
    lines = tmp_path / "p.jsonl"
    lines.write_text('{"question": "How much leave?", "documents": ["1"]}\n\n{"question": "Who?", "reference": "HR"}\n')
    assert [p.question for p in load_probes(lines)] == ["How much leave?", "Who?"]
    lines.write_text('{"question": "How much leave?"}\n')
    with pytest.raises(ConfigError, match=r"p\.jsonl:1.*documents"):
        load_probes(lines)
