"""What must hold for any text: nothing raises, no secret stays, numbers mean what was written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from guard.checks.calibration import load_calibration
from guard.checks.facts import statement
from guard.checks.grounding import answer_score, check_grounding
from guard.checks.lexicon import normalise
from guard.checks.numbers import quantities
from guard.checks.numerals import chinese_number, to_chinese
from guard.checks.pii import find_pii, redact
from guard.checks.pii_patterns import luhn
from guard.checks.rules import Rules
from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite, redacted
from guard.ports import ExchangeText
from slo.types import CheckResult

SUITE = CheckSuite(CheckSpec(embedder="none", drift_window=20))
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
SPICE = st.sampled_from(
    [
        "7 days",
        "十四天",
        "１４",
        "http://",
        "/etc/",
        "不",
        "not ",
        "\u3002",
        "\uff0c",
        "\n",
        "```",
        "{",
        "@",
        "$",
        "%",
        "\ud83d",
        "\x00",
        "-",
        "1,",
        "a.b",
        "年",
        "月",
        "百分之",
        "萬",
    ]
)
TEXT = st.lists(st.one_of(st.text(max_size=20), SPICE), max_size=12).map("".join)


@settings(max_examples=60)
@given(TEXT, TEXT, st.one_of(st.none(), st.lists(TEXT, max_size=3)), TEXT)
def test_no_text_makes_a_check_raise_or_break(
    question: str, answer: str, contexts: list[str] | None, reference: str
) -> None:
    text = ExchangeText(question, answer, None if contexts is None else tuple(contexts), None, reference)
    found = redacted(SUITE.check(text, release="r", arm="stable"))
    assert sorted(f.check for f in found) == sorted(SUITE.spec.names)
    for finding in found:
        assert "the check broke" not in finding.reason
        assert finding.score is None or 0.0 <= finding.score <= 1.0
    if contexts is None:
        assert next(f for f in found if f.check == "grounding").result is CheckResult.SKIPPED


@given(TEXT)
def test_an_answer_that_quotes_its_context_is_not_contradicted(text: str) -> None:
    found = check_grounding("", text, (text,), load_calibration())
    assert not any("negation:" in e or "number:" in e or "order:" in e for e in found.evidence)


@given(st.one_of(st.integers(0, 99_999_999), st.integers(0, 999_999_999_999)))
def test_chinese_numerals_round_trip(value: int) -> None:
    assert chinese_number(to_chinese(value)) == value


@given(st.integers(2, 99_999), st.sampled_from(["days", "hours", "percent", "kg", "usd"]))
def test_digits_read_the_same_in_every_width_and_spelling(value: int, unit: str) -> None:
    plain = quantities(f"it is {value} {unit} now")[0]
    for other in (f"it is {value:,} {unit} now", normalise(f"it is {str(value).translate(FULL_WIDTH)} {unit} now")):
        assert [(q.dimension, q.value) for q in quantities(other)[0]] == [(q.dimension, q.value) for q in plain]
    assert len(plain) == 1


@given(TEXT)
def test_blanking_numbers_keeps_positions(text: str) -> None:
    lower = normalise(text).lower()
    found, rest = quantities(lower)
    assert len(rest) == len(lower)
    assert all(0 <= q.start < len(lower) for q in found)


def _card(digits: str) -> str:
    return next(digits + str(d) for d in range(10) if luhn(digits + str(d)))


SECRETS = st.one_of(
    st.from_regex(r"\A[a-z]{3,10}\.[a-z]{2,8}@[a-z]{3,10}\.(com|example|org)\Z"),
    st.from_regex(r"\A09[0-9]{2}-[1-9][0-9]{2}-[0-8][0-9]{2}\Z"),
    st.from_regex(r"\A4[0-9]{14}\Z").map(_card).filter(lambda c: len(set(c)) > 1),
    st.from_regex(r"\Ask-[A-Za-z0-9]{24,40}\Z"),
    st.from_regex(r"\Aghp_[A-Za-z0-9]{36}\Z"),
    st.from_regex(r"\AAKIA[A-Z0-9]{16}\Z"),
)


@given(TEXT, SECRETS, TEXT)
def test_redaction_never_leaves_the_secret(before: str, secret: str, after: str) -> None:
    cleaned, count = redact(f"{before} {secret} {after}")
    if secret not in before and secret not in after:
        assert count >= 1
    assert secret not in cleaned


@given(TEXT)
def test_redaction_is_stable(text: str) -> None:
    once, _ = redact(text)
    assert redact(once)[0] == once or find_pii(once)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 200), st.floats(0, 1))
def test_a_worse_claim_never_lowers_the_score(chances: list[float], term_count: int, more: float) -> None:
    language = load_calibration().languages["en"]
    base = answer_score(chances, term_count, language)
    worse = answer_score([max(chances[0], more), *chances[1:]], term_count, language)
    assert 0 <= base <= worse + 1e-9 <= 1 + 1e-9


@given(TEXT)
def test_statements_and_rules_take_any_text(text: str) -> None:
    assert statement(text).lower is not None
    assert Rules().check("", text).check == "rules"
