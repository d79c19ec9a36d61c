"""Numbers, units, identifiers, names, polarity and claims, as hand-computed rows."""

from __future__ import annotations

import pytest

from guard.checks.claims import clauses, kind_of, split_claims
from guard.checks.facts import statement
from guard.checks.lexicon import is_cjk, normalise
from guard.checks.numbers import quantities, same
from guard.checks.polarity import negated, opposed, periods_of, sides_of

DAY = 86_400.0


def read(text: str) -> list[tuple[str, float]]:
    return sorted((q.dimension, q.value) for q in quantities(normalise(text).lower())[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14 days", [("time", 14 * DAY)]),
        ("fourteen days", [("time", 14 * DAY)]),
        ("two weeks", [("time", 14 * DAY)]),
        ("十四天", [("time", 14 * DAY)]),
        ("１４天", [("time", 14 * DAY)]),
        ("兩週", [("time", 14 * DAY)]),
        ("14 business days", [("workday", 14.0)]),
        ("十個工作天", [("workday", 10.0)]),
        ("NT$1,200", [("twd", 1200.0)]),
        ("$30 million", [("usd", 30e6)]),
        ("20%", [("percent", 20.0)]),
        ("百分之二十", [("percent", 20.0)]),
        ("三成", [("percent", 30.0)]),
        ("January 2, 2024", [("day_of_year", 102), ("year", 2024)]),
        ("2 Jan 2024", [("day_of_year", 102), ("year", 2024)]),
        ("2024-01-02", [("day_of_year", 102), ("year", 2024)]),
        ("2024年1月2日", [("day_of_year", 102), ("year", 2024)]),
        ("民國113年5月", [("month_of_year", 5), ("year", 2024)]),
        ("民國一百一十四年三月五日", [("day_of_year", 305), ("year", 2025)]),
        ("114年3月5日", [("day_of_year", 305), ("year", 2025)]),
        ("二〇二五年", [("year", 2025)]),
        ("二○二五年三月", [("month_of_year", 3), ("year", 2025)]),
        ("\uff12\uff10\uff12\uff15年", [("year", 2025)]),
        ("113年度", [("year", 2024)]),
        ("一一三年底", [("year", 2024)]),
        ("114年第2季", [("", 2.0), ("year", 2025)]),
        ("120年", [("month", 1440.0)]),
        ("百年底蘊、100年底蘊", [("month", 1200.0), ("month", 1200.0)]),
        ("二十年", [("month", 240.0)]),
        ("十冊", [("", 10.0)]),
        ("下午2點到6點", [("clock", 840), ("clock", 1080)]),
        ("三分之二", [("percent", 200 / 3)]),
        ("two thirds of it", [("percent", 200 / 3)]),
        ("八折", [("percent", 20.0)]),
        ("八五折", [("percent", 15.0)]),
        ("两个百分点", [("point", 2.0)]),
        ("2 percentage points", [("point", 2.0)]),
        ("twice a week", [("times", 2.0)]),
        ("下午三點半", [("clock", 930)]),
        ("3:30 pm", [("clock", 930)]),
        ("9 am", [("clock", 540)]),
        ("half an hour", [("time", 1800.0)]),
        ("a dozen eggs", [("", 12.0)]),
        ("一萬二", [("", 12_000.0)]),
        ("1.5萬輛", [("", 15_000.0)]),
        ("一億二千萬元", [("yuan", 120e6)]),
        ("千萬不要外流、千萬別忘", []),
        ("一千萬要先繳", [("", 1e7)]),
        ("一萬億元", [("yuan", 1e12)]),
        ("1億2000萬元", [("yuan", 120e6)]),
        ("1億2,345萬6,789元", [("yuan", 123_456_789.0)]),
        ("3億5千萬元", [("yuan", 350e6)]),
        ("1萬5千元", [("yuan", 15_000.0)]),
        ("2萬3千5百元", [("yuan", 23_500.0)]),
        ("3萬5,000元", [("yuan", 35_000.0)]),
        ("1萬5000元", [("yuan", 15_000.0)]),
        ("薪資5萬3年後調整", [("", 50_000.0), ("month", 36.0)]),
        ("2萬3萬都可以", [("", 20_000.0), ("", 30_000.0)]),
        ("half a million dollars", [("usd", 500_000.0)]),
        ("half a dozen eggs", [("", 6.0)]),
        ("$1.5M", [("usd", 1.5e6)]),
        ("NT$500M", [("twd", 500e6)]),
        ("a $20 t-shirt, 1.5m long", [("", 1.5), ("usd", 20.0)]),
        ("2\xbd hours", [("time", 9000.0)]),
        ("2 \xbd hours", [("time", 9000.0)]),
        ("mix \xbe cup", [("cup", 0.75)]),
        ("in 2020 \xbd of them", [("", 0.5), ("", 2020.0)]),
        ("晚間七點", [("clock", 1140)]),
        ("傍晚6點", [("clock", 1080)]),
        ("晚上12點", [("clock", 0)]),
        ("24:00", [("clock", 0)]),
        ("半夜2點", [("clock", 120)]),
        ("深夜11點", [("clock", 1380)]),
        ("凌晨12點半", [("clock", 30)]),
        ("中午12點", [("clock", 720)]),
        ("中午1點半", [("clock", 810)]),
        ("晚上5點半", [("clock", 1050)]),
        ("每月3日前", [("time", 3 * DAY)]),
        ("週三", [("weekday", 3)]),
        ("on Wednesday", [("weekday", 3)]),
        ("one of them", []),
        ("三明治、一些、十分重要、一個人", []),
    ],
)
def test_a_number_reads_as(text: str, expected: list[tuple[str, float]]) -> None:
    assert read(text) == expected


def test_the_same_value_in_another_unit_is_another_fact() -> None:
    days, hours, bare = (quantities(t)[0][0] for t in ("7 days", "7 hours", "7"))
    assert not same(days, hours)
    assert same(days, quantities("1 week")[0][0])
    assert same(bare, days)


def test_exact_items_are_urls_paths_and_identifiers() -> None:
    found = statement(
        "See https://hr.example/leave?x=1, /etc/hosts, form HR-204 (v1.2.1) and bob@hr.example, 5th floor."
    )
    assert found.exact == ("hr.example/leave?x=1", "/etc/hosts", "hr-204", "v1.2.1", "bob@hr.example")


def test_names_are_capitalised_words_inside_the_sentence() -> None:
    assert statement("Travel is approved by Tom Ross in Lisbon.").names == ("tom", "ross", "lisbon")


def test_citations_and_list_marks_are_no_facts() -> None:
    found = statement("3. According to passage 2, the fee is 5 EUR [4].").numbers
    assert [(n.dimension, n.value) for n in found] == [("eur", 5.0)]


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("alcohol is never reimbursed", {"reimburs"}),
        ("it is not only fast", set()),
        ("no later than 5 pm", set()),
        ("if it does not start, call us", set()),
        ("不得使用個人電腦", {"使用"}),
        ("不超過三天", set()),
        ("費用不予報銷", {"报销"}),
    ],
)
def test_what_a_sentence_denies(text: str, denied: set[str]) -> None:
    assert negated(text)[0] == denied


@pytest.mark.parametrize(
    ("one", "other", "against"),
    [
        ("receipts over 25 usd", "receipts under 25 usd", True),
        ("it must be signed", "signing is optional", True),
        ("it is allowed", "it is allowed", False),
        ("before or after lunch", "after lunch", False),
        ("須於出發前送出", "須於出發後送出", True),
        ("三天以上", "三天以內", True),
    ],
)
def test_opposites(one: str, other: str, against: bool) -> None:
    assert opposed(sides_of(one), sides_of(other)) is against
    assert opposed(sides_of(other), sides_of(one)) is against


def test_periods_of_a_rate() -> None:
    assert periods_of("25 usd per month") == periods_of("每月25元") == periods_of("a monthly allowance") == {"month"}


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Hello!", "other"),
        ("Is there anything else?", "other"),
        ("I do not know the answer.", "refusal"),
        ("The passages do not mention a price.", "refusal"),
        ("抱歉\uff0c資料中沒有相關內容\u3002", "refusal"),
        ("If you need more than a week, the director has to approve it.", "claim"),
        ("If you need anything else, let me know.", "other"),
        ("If you have further questions, the service desk will answer them.", "other"),
        ("If you cannot provide a receipt within 9 days, you pay.", "claim"),
        ("Employees who can't find their badge must report it.", "claim"),
        ("No documents are required for stays under 30 days.", "claim"),
        ("未於30日內提供文件者\uff0c視同放棄\u3002", "claim"),
        ("若無法提供收據\uff0c須自行負擔\u3002", "claim"),
        ("If you can't find the answer here, please ask HR.", "refusal"),
        ("I could not find when employees must return their 2 badges.", "refusal"),
        ("The document does not say what employees must do within 9 days.", "refusal"),
        ("資料中沒有提到30天的規定\u3002", "refusal"),
        ("若以上資訊沒有您要的答案\uff0c請洽人資\u3002", "refusal"),
        ("請問您要查哪一項\uff1f", "other"),
        ("希望以上資訊對您有幫助\u3002", "other"),
        ("Yes, the fee is 5 EUR.", "claim"),
        ("His fee is 5 EUR.", "claim"),
        ("每年有七天特別休假\u3002", "claim"),
        ("Here are the steps:", "other"),
        ("---", "other"),
    ],
)
def test_what_counts_as_a_claim(sentence: str, kind: str) -> None:
    assert kind_of(sentence) == kind


def test_claims_are_split_in_both_languages() -> None:
    claims, refusals = split_claims(
        "Hello! The fee is 5 EUR. 年假有七天\u3002還有其他問題嗎\uff1fI do not know the rest."
    )
    assert claims == ["The fee is 5 EUR.", "年假有七天\u3002"]
    assert refusals == 1


def test_clauses_keep_dates_together() -> None:
    assert clauses("It opened on May 3, 2024 and closed in June") == ["It opened on May 3, 2024", "closed in June"]
    assert len(clauses("國內出差六百元\uff0c國外一千元")) == 2
    assert clauses("每月\uff11\uff0c\uff12\uff10\uff10元\uff0c每年\uff11\uff14\uff0c\uff14\uff10\uff10元") == [
        "每月\uff11\uff0c\uff12\uff10\uff10元", "每年\uff11\uff14\uff0c\uff14\uff10\uff10元",
    ]  # fmt: skip
    assert len(clauses("到職滿3\uff0c14天")) == 2


def test_a_text_is_chinese_when_a_fifth_of_its_letters_are() -> None:
    assert is_cjk("請用 VPN 登入")
    assert not is_cjk("plain words")
