"""Rules of rules.yaml and built in, safe patterns, personal data, similarity, zero-hit and drift."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.checks.drift import DriftCheck, Reference, compare, hashed_vector, load_reference
from guard.checks.pii import check_pii, find_pii, redact
from guard.checks.pii_patterns import luhn
from guard.checks.rules import Rules, json_problem, load_rules, parse_rules
from guard.checks.semantic import Semantic
from guard.checks.similarity import best_part_cosine, check_similarity, check_zero_hit, lexical_cosine
from guard.checks.spec import HASHED_FINGERPRINT
from rag.hashed import HashedTfIdfEmbedder
from slo.errors import ConfigError, DataError
from slo.patterns import compile_safe
from slo.types import CheckResult

FILE = r"""
rules:
  - name: refund-needs-form
    when: {question_any: [refund, 退款]}
    require_any: [form RF-1, 表單RF-1]
  - {name: no-promises, forbid_any: [guarantee]}
  - {name: leave-days, number: {near: annual leave, unit: days, min: 0, max: 30}}
  - {name: no-invoices, forbid_pattern: 'INV-\d{4,8}'}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    path = tmp_path / "rules.yaml"
    path.write_text(FILE, encoding="utf-8")
    return load_rules(path)


@pytest.mark.parametrize(
    ("question", "answer", "broken"),
    [
        ("refund?", "Send us form RF-1.", ""),
        ("refund?", "Just ask.", "refund-needs-form"),
        ("怎麼退款", "請填表單ＲＦ－１\u3002", ""),
        ("hours?", "Just ask.", ""),
        ("", "We guarantee it.", "no-promises"),
        ("", "Annual leave is 45 days.", "leave-days"),
        ("", "Annual leave is 6 weeks.", "leave-days"),
        ("", "Annual leave is 14 days.", ""),
        ("", "See inv-20391.", "no-invoices"),
        ("", "Read /etc/passwd now.", "system_paths"),
        ("", "Click the link below to continue.", "promised_link"),
        ("", "Use this link: https://hr.example/x", ""),
        ("", "See [the form](htp:/broken).", "promised_link"),
        ("", "請點擊以下連結申請\u3002", "promised_link"),
        ("", 'Result: ```json\n{"a": [1, 2}\n```', "balanced_json"),
        ("", '{"a": 1, "b": "x}"}', ""),
        ("", '{"a": 1', "balanced_json"),
        ("", "Use {braces} (freely].", ""),
    ],
)
def test_an_answer_breaks_the_rule(rules: Rules, question: str, answer: str, broken: str) -> None:
    found = rules.check(question, answer)
    assert [e.split(":")[0] for e in found.evidence] == ([broken] if broken else [])
    assert (found.result is CheckResult.FAIL) is bool(broken)


@pytest.mark.parametrize(
    ("document", "place", "cure"),
    [
        ({"rules": [{"name": "x"}]}, "rules[0]", "asks for nothing"),
        ({"rules": [{"name": "X Y", "forbid_any": ["a"]}]}, "rules[0].name", "pattern"),
        ({"rules": [{"name": "x", "forbid": ["a"]}]}, "rules[0].forbid", "not permitted"),
        ({"rules": [{"name": "x", "forbid_pattern": "(a+)+"}]}, "rules[0].forbid_pattern", "without limit"),
        ({"rules": [{"name": "x", "number": {"unit": "parsecs", "max": 1}}]}, "rules[0].number.unit", "no known unit"),
        ({"rules": [{"name": "x", "forbid_any": ["a"]}] * 2}, "", "used twice"),
        ([], "rules.yaml", "mapping"),
    ],
)
def test_a_wrong_rules_file_is_refused_with_place_and_cure(document: object, place: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(document)
    assert place in str(caught.value)
    assert cure in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_anchors_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("rules: &a []\nother: *a\n")
    with pytest.raises(ConfigError, match="anchor"):
        load_rules(path)
    with pytest.raises(ConfigError, match="readable"):
        load_rules(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "pattern", ["a*", "(a{1,9}){1,9}", r"(a)\1", "(?=a)b", "a{1,}", "[", "x{0,50}y{0,50}z{0,50}", "a" * 400]
)
def test_a_pattern_that_could_run_long_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        compile_safe(pattern)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("4111 1111 1111 1111", ["card"]),
        ("4111 1111 1111 1112", []),
        ("DE89 3704 0044 0532 0130 00", ["iban"]),
        ("DE88 3704 0044 0532 0130 00", []),
        ("A123456789", ["national_id"]),
        ("A123456788", []),
        ("amy.lee+x@corp.example.com", ["email"]),
        ("0912-345-678", ["phone"]),
        ("(02) 2345-6789", ["phone"]),
        ("+886 912 345 678", ["phone"]),
        ("+44 20 7946 0958", ["phone"]),
        ("(555) 234-5678", ["phone"]),
        ("ghp_" + "a1B2" * 9, ["secret"]),
        ("AKIAIOSFODNN7EXAMPLE", ["secret"]),
        ("password: hunter2hunter2", ["secret"]),
        ("密碼是abc12345xyz", ["secret"]),
        ("您的密碼為Abc12345請儘快更改", ["secret"]),
        ("密码\uff1aAbc12345", ["secret"]),
        ("密碼是8到12位英數字混合", []),
        ("密碼\uff1a長度至少12個字元且每90天更換一次", []),
        ("密碼是不是要8碼以上英數混合", []),
        ("postgres://u:pw12345@db/x", ["secret"]),
        ("order 20240102-7, 14 days, version 1.2.3.4, 2024-01-02 10:00", []),
        ("the password must have 14 characters", []),
        ("０９１２３４５６７８", ["phone"]),
    ],
)
def test_personal_data_is_found_by_kind(text: str, kinds: list[str]) -> None:
    assert redact(f"x {text} y") == (f"x {text} y" if not kinds else redact(f"x {text} y")[0], len(kinds))
    plain = text.translate({c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)})
    assert [m.kind for m in find_pii(f"x {plain} y")] == kinds


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("請撥打客服+852 2345 6789受理", "請撥打客服[phone]受理"),
        ("請致電415-555-2671分機", "請致電[phone]分機"),
        ("請致電(415) 555-2671分機", "請致電[phone]分機"),
        ("電話2345-6789找陳小姐", "電話[phone]找陳小姐"),
        ("請打tel 2345-6789找陳小姐", "請打tel [phone]找陳小姐"),
        ("總機0490 39 07 81轉接", "總機[phone]轉接"),
        ("主機93.184.216.34異常", "主機[ip]異常"),
        ("主機2606:2800:220:1:248:1893:25c8:1946異常", "主機[ip]異常"),
        ("信用card 123456789012", "信用card 123456789012"),
        ("刷card 510000000008失敗", "刷card [card]失敗"),
        ("標頭bearer abcdefgh12345678ijkl即可", "標頭bearer [secret]即可"),
        ("代碼Zx81kQ0pLw93Vb7TyR2mNc64HsJd5GfE過期", "代碼[token]過期"),
        ("信箱amy@corp.example收", "信箱[email]收"),
        ("身分證A123456789無誤", "身分證[national_id]無誤"),
        ("卡4111111111111111號", "卡[card]號"),
        ("由05.12.2024起至01-15-2025止", "由05.12.2024起至01-15-2025止"),
        ("請升級到版本93.184.216.34或第93.184.2.1節", "請升級到版本93.184.216.34或第93.184.2.1節"),
        ("訂單20240102-7於2024-01-02出貨14天", "訂單20240102-7於2024-01-02出貨14天"),
    ],
)
def test_chinese_needs_no_space_around_personal_data(text: str, shown: str) -> None:
    assert redact(text)[0] == shown


def test_a_day_written_with_dots_or_dashes_is_no_phone() -> None:
    assert find_pii("from 05.12.2024 to 01-15-2025, order 05 12 2024") == []
    assert [m.kind for m in find_pii("call 05.12.20.24.01 or 0490 39 07 81")] == ["phone", "phone"]


def test_a_private_key_is_taken_out_whole() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"
    assert redact(f"a {key} b") == ("a [private_key] b", 1)


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0F\n\nMIIEow\n"
        "-----END RSA PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2.4-beta\n\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
    ids=["encrypted", "pgp"],
)
def test_a_private_key_with_headers_is_taken_out_whole(key: str) -> None:
    assert redact(f"a {key} b") == ("a [private_key] b", 1)


def test_a_published_address_is_no_leak_but_a_card_always_is() -> None:
    context = "Write to help@corp.example. Card 4111111111111111."
    assert check_pii("Write to help@corp.example.", [context]).result is CheckResult.PASS
    assert check_pii("Write to amy@corp.example.", [context]).result is CheckResult.FAIL
    found = check_pii("Use 4111111111111111.", [context])
    assert found.result is CheckResult.FAIL
    assert "4111" not in str(found)


def test_luhn_digit_by_hand() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")


def test_similarity_prefers_the_reference_and_says_how_it_was_measured() -> None:
    found = check_similarity("The fee is 5 EUR.", ("Dogs bark.",), "The fee is 5 EUR.")
    assert (found.result, found.score, found.reason) == (CheckResult.PASS, 1.0, "to the reference")
    assert found.detector.startswith("lexical")
    assert check_similarity("The fee is 5 EUR.", ("Dogs bark.",)).result is CheckResult.FAIL
    assert check_similarity("x", None).result is CheckResult.SKIPPED
    assert lexical_cosine("", "a") == 0.0


def test_one_sentence_of_a_long_passage_word_for_word_is_alike() -> None:
    other = ("\u52a0\u73ed\u9808\u4e8b\u5148\u7533\u8acb\u3002\u8a13\u7df4\u8cbb\u7528\u7531\u516c\u53f8\u8ca0"
             "\u64d4\u3002\u51fa\u5dee\u4e7e\u652f\u65e5\u984d\u516b\u767e\u5143\u3002")  # fmt: skip
    leave = "\u7b2c\u4e00\u5e74\u7279\u4f11\u6709\u5341\u4e94\u5929\u3002"
    passage = other + leave + "\u8acb\u5047\u8acb\u5728\u7cfb\u7d71\u4e2d\u7533\u8acb\u3002"
    found = check_similarity(leave, (passage,))
    assert (found.result, found.score, found.reason) == (CheckResult.PASS, 1.0, "to the best context")
    assert lexical_cosine(leave, passage) < 0.5  # to the whole it only says that the passage is longer
    assert best_part_cosine(other[:8] + leave, passage) > 0.7
    assert check_similarity("\u54ea\u88e1\u53ef\u4ee5\u505c\u8eca", (passage,)).result is CheckResult.FAIL


LETTERS = "ab c.\u3002\u516c\u53f8\u8ca0\n1"


@given(st.text(LETTERS, max_size=60), st.text(LETTERS, max_size=200))
def test_the_best_part_is_at_least_as_like_as_the_whole(answer: str, context: str) -> None:
    score = best_part_cosine(answer, context)
    assert lexical_cosine(answer, context) <= score <= 1.0


class CoversAscii:
    """Stands in for an embedder that reads Latin script only."""

    name = "fake"
    by_characters = False

    def covers(self, text: str) -> bool:
        return text.isascii()

    def best_cosine(self, text: str, others: list[str]) -> float:
        return 0.875

    def semantic_for(self, *texts: str) -> CoversAscii:
        return self


def test_two_scales_of_similarity_are_never_mixed_for_one_script() -> None:
    fake: Any = CoversAscii()
    english, chinese = ("The fee is 5 EUR.", ("The fee.",)), ("費用五元\u3002", ("費用五元\u3002",))
    assert check_similarity(*english, semantic=fake).score == 0.875
    assert check_similarity(*english, semantic=fake, waiting_for="busy").result is CheckResult.SKIPPED
    assert check_similarity(*english, waiting_for="loading").result is CheckResult.SKIPPED
    assert check_similarity(*chinese, semantic=fake, waiting_for="busy").score == 1.0


def test_hashed_characters_are_not_compared_with_a_whole_passage() -> None:
    hashed = Semantic(HashedTfIdfEmbedder())
    sentence = "\u7b2c\u4e00\u5e74\u7279\u4f11\u6709\u5341\u4e94\u5929\u3002"
    passage = sentence + "\u8acb\u5047\u8acb\u5728\u7cfb\u7d71\u4e2d\u7533\u8acb\u3002" * 3 + "abc def. " * 20
    assert hashed.best_cosine(sentence, [passage]) < 0.5
    found = check_similarity(sentence, (passage,), semantic=hashed)
    assert (found.score, found.detector) == (1.0, "lexical (words and character bigrams)")
    assert check_similarity(sentence, (), sentence, semantic=hashed).detector == hashed.name


def test_zero_hit_knows_unknown_from_nothing() -> None:
    assert check_zero_hit(None).result is CheckResult.SKIPPED
    assert check_zero_hit(()).result is CheckResult.FAIL
    assert check_zero_hit(("", " ")).result is CheckResult.FAIL
    assert check_zero_hit(("a",)).result is CheckResult.PASS


def test_drift_is_learnt_from_stable_and_found_when_the_subject_changes() -> None:
    check = DriftCheck(window=50)
    topics = [
        "how many days of annual leave",
        "who approves travel requests",
        "reset my password please",
        "vpn does not connect",
    ]
    for i in range(50):
        assert check.check(hashed_vector(f"{topics[i % 4]} {i % 7}"), "r1", stable=True).result is CheckResult.SKIPPED
    for i in range(49):
        assert check.check(hashed_vector(topics[i % 4]), "r1", stable=True).result is CheckResult.SKIPPED
    calm = check.check(hashed_vector(topics[1]), "r1", stable=True)
    assert calm.result is CheckResult.PASS
    assert calm.score is not None
    assert calm.score < 0.05
    for i in range(50):
        moved = check.check(hashed_vector(f"best pizza recipe with cheese {i % 3}"), "r2", stable=False)
    assert moved.result is CheckResult.FAIL
    assert moved.score is not None
    assert moved.score > 0.5


def test_a_canary_never_teaches_the_reference() -> None:
    check = DriftCheck(window=2)
    for _ in range(5):
        assert "learning" in check.check(hashed_vector("anything"), "canary", stable=False).reason


def test_drift_effect_by_hand() -> None:
    reference = Reference(HASHED_FINGERPRINT, 100, (0.8, 0.0))
    distance, effect = compare([0.0, 0.8], 100, reference)
    assert distance == 1.0
    assert effect == pytest.approx(math.hypot(0.8, 0.8) / math.sqrt(0.36 * 0.02))


def test_a_reference_of_another_embedder_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "ref.json"
    path.write_text(json.dumps({"fingerprint": "other", "count": 10, "mean": [1.0]}))
    found = DriftCheck(10, load_reference(path)).check(hashed_vector("a question"), "r", stable=True)
    assert found.result is CheckResult.UNAVAILABLE
    assert "other" in found.reason
    path.write_text("{}")
    with pytest.raises(DataError, match="no drift reference"):
        load_reference(path)


def test_json_is_looked_at_only_where_json_was_meant() -> None:
    assert json_problem("A set {1, 2 and [3") == ""
    assert json_problem('["a", {"b": 1}]') == ""
    assert json_problem('```json\n{"a": "}"\n') == "1 brackets stay open"
