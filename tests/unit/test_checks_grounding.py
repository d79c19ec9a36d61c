"""Grounding: what passes, what fails, what is left unchecked, and that near-misses are caught in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guard.checks import grounding as module
from guard.checks.calibration import load_calibration
from guard.checks.context import read_context
from guard.checks.grounding import check_grounding, read_claims
from guard.checks.passages import Passages
from guard.checks.selftest import GOLDEN, selftest
from guard.checks.support import assess
from slo.errors import DataError
from slo.types import CheckResult, Finding

LEAVE = "Employees receive 7 days of paid leave after six months. Requests go to https://hr.example/leave."
TWINS_PATH = Path(__file__).parent.parent / "data" / "checks_near_miss.jsonl"
SECOND_PATH = TWINS_PATH.with_name("checks_near_miss_second.jsonl")
TWINS = [
    json.loads(line) for path in (TWINS_PATH, SECOND_PATH) for line in path.read_text(encoding="utf-8").splitlines()
]
CALIBRATION = load_calibration()


def check(answer: str, *contexts: str, question: str = "") -> Finding:
    return check_grounding(question, answer, contexts, CALIBRATION)


def test_unknown_contexts_are_unchecked_never_passed() -> None:
    found = check_grounding("q", "The limit is 7 days.", None, CALIBRATION)
    assert (found.result, found.reason, found.score) == (CheckResult.SKIPPED, "contexts unknown", None)


def test_asserting_without_any_context_fails_and_refusing_passes() -> None:
    assert check("The limit is 7 days.").result is CheckResult.FAIL
    assert check("I'm sorry, I could not find any information on that.").result is CheckResult.PASS
    assert check("抱歉\uff0c找不到相關資料\u3002").result is CheckResult.PASS


FILLING = "The lamp in the hall is green. " * (module.CONTEXT_CHARS // 30)
ROOMS = tuple(f"Room {n} has a lamp." for n in range(module.CONTEXT_COUNT))


@pytest.mark.parametrize(
    ("contexts", "found", "whole"),
    [
        ((f"{FILLING} {LEAVE}",), False, False),
        ((*ROOMS, LEAVE), False, False),
        ((f"{LEAVE} {FILLING}",), True, False),
        ((LEAVE, *ROOMS), True, False),
        ((*(" " for _ in ROOMS), LEAVE), True, True),
    ],
    ids=["long", "many", "long behind it", "many behind it", "blank"],
)
def test_what_may_stand_in_the_rest_of_the_contexts_is_not_made_up(
    contexts: tuple[str, ...], found: bool, whole: bool
) -> None:
    right = check("Employees receive 7 days of paid leave after six months.", *contexts)
    wrong = check("Employees receive 9 weeks of paid leave after six months.", *contexts)
    assert right.result is (CheckResult.PASS if found else CheckResult.UNAVAILABLE)
    assert wrong.result is (CheckResult.FAIL if whole else CheckResult.UNAVAILABLE)
    if not whole:
        assert (wrong.score, wrong.reason) == (
            None, "too long to be judged whole: of the contexts 50 are read, 64,000 characters of each",
        )  # fmt: skip


def test_an_answer_of_which_only_a_part_is_read_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = "Employees receive 7 days of paid leave after six months. "
    wrong = "Employees receive 9 weeks of paid leave after six months. "
    monkeypatch.setattr(module, "CLAIM_COUNT", 2)
    assert check(fine * 2, LEAVE).result is CheckResult.PASS
    assert check(fine * 2 + wrong, LEAVE).result is CheckResult.UNAVAILABLE
    assert check(wrong + fine * 2, LEAVE).result is CheckResult.FAIL
    monkeypatch.setattr(module, "ANSWER_CHARS", len(fine) + 30)
    for answer, result in ((fine * 2, CheckResult.UNAVAILABLE), (wrong + fine, CheckResult.FAIL)):
        assert check(answer, LEAVE).result is result
        assert [claim.text for claim in read_claims(answer)[0]] == [answer[: len(answer) - len(fine)].strip()]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("If you cannot provide proof within 7 days, you pay.", "If you cannot provide proof within 9 days, you pay."),
        ("未於7日內提供文件者\uff0c視同放棄\u3002", "未於30日內提供文件者\uff0c視同放棄\u3002"),
    ],
    ids=["en", "zh"],
)  # fmt: skip
def test_a_rule_about_those_who_provide_nothing_is_no_refusal(right: str, wrong: str) -> None:
    assert check(right, right).result is CheckResult.PASS
    assert check(wrong, right).result is CheckResult.FAIL


def test_the_finding_names_the_unsupported_sentence_and_the_reason() -> None:
    found = check("You get 14 days of paid leave after six months. Requests go to https://hr.example/leave.", LEAVE)
    assert found.result is CheckResult.FAIL
    assert len(found.evidence) == 1
    assert found.evidence[0].startswith("You get 14 days")
    assert "14 days" in found.reason
    assert "7 days" in found.reason
    assert found.score is not None
    assert found.score < 0.6


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("You get 7 weeks of paid leave after six months.", "number"),
        ("Requests go to https://hr.example/holiday.", "identifier"),
        ("Employees do not receive paid leave after six months.", "negation"),
        ("Employees receive 7 days of unpaid leave after six months.", "opposite"),
    ],
)
def test_a_contradiction_is_named_by_its_kind(answer: str, kind: str) -> None:
    found = check(answer, LEAVE)
    assert found.result is CheckResult.FAIL
    assert found.reason.startswith(kind) or "negation" in found.reason


@pytest.mark.parametrize(
    ("answer", "context"),
    [
        ("賀年銑床兩冊須於週五歸還\u3002", "贺年铣床两册须于周五归还\u3002"),
        ("会议于二〇二五年三月举行\u3002", "會議於民國114年3月舉行\u3002"),
        ("每月的補助金額是1,200元\u3002", "員工每月補助\uff11\uff0c\uff12\uff10\uff10元\uff0c須於月底前申請\u3002"),
        ("公司去年的營收是1億2000萬元\u3002", "公司去年營收一億二千萬元\u3002"),
        ("The archive may hold 2048 MB.", "The archive may hold 2 GB."),
        ("The fee is 60 cents per share.", "The fee is 0.60 euros per share."),
        ("It is sent two times a week.", "It is sent twice a week."),
    ],
    ids=["script", "calendar", "wide", "ten thousands", "bytes", "cents", "twice"],
)
def test_the_same_in_another_script_calendar_or_unit_is_no_contradiction(answer: str, context: str) -> None:
    assert check(answer, context).result is CheckResult.PASS


def test_a_finding_shows_the_characters_of_the_texts() -> None:
    found = check("借閱圖書須於十四天內歸還\u3002", "借阅图书须于七天内归还\u3002")
    assert found.result is CheckResult.FAIL
    assert "十四天內歸還" in found.reason
    assert "七天内归还" in found.reason


def test_a_finding_says_when_its_language_has_no_calibration() -> None:
    context = "Der Urlaub ist mit dem Formular zu beantragen und wird von der Leitung genehmigt."
    assert check(context, context).detector == "lexical (numbers of en: de has no calibration)"
    assert check("\u6709\u7d66\u4f11\u6687\u306f\u4e03\u65e5\u3067\u3059\u3002", context).detector.endswith(
        "(numbers of zh: ja has no calibration)"
    )
    assert check(LEAVE, LEAVE).detector == "lexical"


def test_facts_bind_within_a_clause() -> None:
    context = "The Tokyo office opens at 9:00 and the Osaka office opens at 10:00."
    assert check("The Osaka office opens at 10:00.", context).result is CheckResult.PASS
    assert check("The Osaka office opens at 9:00.", context).result is CheckResult.FAIL


def test_two_names_that_changed_places_are_noticed() -> None:
    context = "Every Monday Alice Moreno sends the weekly plan to Robert Chen."
    assert check("Every Monday Alice Moreno sends the weekly plan to Robert Chen.", context).result is CheckResult.PASS
    assert check("Every Monday Robert Chen sends the weekly plan to Alice Moreno.", context).result is CheckResult.FAIL


@pytest.mark.parametrize(("half", "lang", "caught_ratio", "alarmed_ratio"), [
    ("tuned", "en", 0.82, 0.06), ("tuned", "zh", 0.88, 0.04), ("held out", "en", 0.80, 0.18),
    ("held out", "zh", 0.82, 0.10), ("tuned 2", "en", 0.72, 0.26), ("tuned 2", "zh", 0.60, 0.14),
    ("held out 2", "en", 0.76, 0.30), ("held out 2", "zh", 0.62, 0.20),
], ids=["tuned-en", "tuned-zh", "held-en", "held-zh", "tuned2-en", "tuned2-zh", "held2-en", "held2-zh"])  # fmt: skip
def test_near_misses_and_true_twins_are_told_apart_as_well_as_reported(
    half: str, lang: str, caught_ratio: float, alarmed_ratio: float
) -> None:
    """A floor under docs/accuracy.md; the held-out half is for measuring, so its failures are counted, not named."""
    twins = [t for t in TWINS if t["half"] == half and t["lang"] == lang]
    assert len(twins) == 50
    results = [
        [check_grounding("", t[kind], t["contexts"], CALIBRATION).result is CheckResult.FAIL for t in twins]
        for kind in ("unsupported", "supported")
    ]
    caught_count, alarmed_count = map(sum, results)
    assert caught_count >= caught_ratio * len(twins)
    assert alarmed_count <= alarmed_ratio * len(twins)


@pytest.mark.parametrize(
    ("answer", "context", "kind"),
    [
        ("You can bring flowers to intensive care.", "Flowers are not allowed in intensive care.", "permission"),
        ("加護病房可以帶花。", "加護病房禁止攜帶鮮花。", "permission"),
        ("The southern route is closed in winter.", "The northern route is closed in winter.", "other"),
        ("會議室的冷氣由資訊部控制。", "會議室冷氣由行政部控制。", "other"),
    ],
    ids=["en-permission", "zh-permission", "en-set", "zh-class"],
)
def test_what_is_said_the_other_way_round_is_named(answer: str, context: str, kind: str) -> None:
    found = check(answer, context)
    assert found.result is CheckResult.FAIL
    assert found.reason.startswith(kind)


@pytest.mark.parametrize(
    ("answer", "context"),
    [
        ("None of the last eight passwords may be used again.", "The last eight passwords cannot be used again."),
        ("更新韌體不會清除設定。", "更新韌體會保留設定；回復原廠值則會清除設定。"),
        ("溫度至少要26度。", "溫度不得低於26度。"),
    ],
    ids=["both-deny", "each-clause-its-own", "no-less-than"],
)
def test_the_same_in_other_words_contradicts_nothing(answer: str, context: str) -> None:
    passages = Passages([read_context(context)])
    assert [assess(claim, passages).contradictions for claim in read_claims(answer)[0]] == [()]


def test_the_threshold_of_the_spec_decides() -> None:
    answer = "Employees receive paid leave, and the canteen offers soup."
    strict = check_grounding("", answer, (LEAVE,), CALIBRATION, threshold=0.01)
    loose = check_grounding("", answer, (LEAVE,), CALIBRATION, threshold=0.999)
    assert (strict.result, loose.result) == (CheckResult.FAIL, CheckResult.PASS)


def test_the_golden_pairs_separate_in_both_languages() -> None:
    assert len(GOLDEN) >= 8
    assert selftest(CALIBRATION) == ""


def test_a_detector_that_does_not_separate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "split_claims", lambda answer: ([], 0))
    assert "golden answers judged wrongly" in selftest(CALIBRATION)


def test_the_calibration_says_on_what_it_was_made() -> None:
    assert CALIBRATION.made_on.startswith("20")
    for language in CALIBRATION.languages.values():
        assert sum(language.sample_count.values()) > 500
        assert 0 < language.thresholds["balanced"] < 1


@pytest.mark.parametrize("content", [b"", b"{}", b'{"made_on":"x","features":[],"embedder":"","languages":{}}'])
def test_a_damaged_calibration_is_refused_with_the_cure(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sft-guard combiner train"):
        load_calibration(path)
