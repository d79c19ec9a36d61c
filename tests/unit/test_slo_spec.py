"""slo.yaml: what is accepted, what it becomes, and how every mistake is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slo.errors import ConfigError
from slo.metric_names import INDICATORS
from slo.spec import FORMS, PRESETS, load_slo_file, parse_duration_s, parse_slo, preset_text, slo_json_schema
from slo.thresholds import limit_for
from slo.types import CanaryRule, FastPath, OnBreach, Slo, Window

CONTRACT = """\
service: faq-bot
preset: support-faq
objectives:
  - name: hallucination
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {baseline: p95, factor: 1.5}        # p95 of the baseline's hourly rates, x 1.5
    for: 10m
    min_events: 400
    action: rollback
  - name: similarity
    indicator: sft_quality_similarity_score
    window: 1h
    threshold: {current: mean, factor: 0.9}
    action: rollback
  - {name: p95, indicator: sft_perf_latency_p95_ms, window: 15m, threshold: {limit: 4300, factor: 0.7}, for: 15m, action: shed}
  - {name: p99, indicator: sft_perf_latency_p99_ms, window: 1h, threshold: {sla: 2000, margin: 200}, action: rollback}
  - name: cost
    indicator: sft_cost_inference_per_request_usd
    window: 24h
    threshold: {budget_usd: 3000, requests: 60000, factor: 1.2}
    action: track
  - name: availability
    indicator: sft_availability_success_rate
    window: 30d
    threshold: {tier: general}
    action: rollback
    burn_rate: true
"""  # noqa: E501 - as users write it


def objective(text: str = CONTRACT, name: str = "hallucination") -> Slo:
    return next(o for o in parse_slo(text).objectives if o.name == name)


def test_the_contract_example_means_what_it_says() -> None:
    file = parse_slo(CONTRACT)
    assert (file.service, file.preset, len(file.text_hash)) == ("faq-bot", "support-faq", 12)
    rule = objective()
    assert (rule.window, rule.for_s, rule.min_events, rule.action) == (Window(3600.0), 600.0, 400, OnBreach.ROLLBACK)
    assert dict(rule.threshold.params) == {"baseline": "p95", "factor": 1.5}
    assert limit_for(objective(name="p95")).value == pytest.approx(3.01)
    assert limit_for(objective(name="p99")).value == pytest.approx(1.8)
    assert limit_for(objective(name="cost")).value == pytest.approx(0.06)
    assert limit_for(objective(name="availability")).value == 0.99
    assert objective(name="availability").burn_rate


def test_objectives_of_the_preset_are_added_and_own_ones_win_in_place() -> None:
    names = [o.name for o in parse_slo(CONTRACT).objectives]
    assert len(names) == len(set(names))
    assert "zero-hit" in names
    assert objective().threshold.form == "baseline"
    own = CONTRACT + "  - {name: mine, indicator: sft_cache_hit_rate, window: 24h, threshold: {absolute: 0.6}}\n"
    assert [o.name for o in parse_slo(own).objectives] == [*names, "mine"]


def test_a_preset_alone_is_a_file() -> None:
    file = parse_slo("service: bot\npreset: finance\n")
    assert limit_for(next(o for o in file.objectives if o.name == "hallucination")).value == 0.01


@pytest.mark.parametrize(
    ("preset", "hallucination", "p95_s", "success"),
    [("support-faq", 0.05, 0.5, 0.99), ("finance", 0.01, 0.3, 0.999), ("internal-kb", 0.10, 1.0, 0.95)],
)
def test_presets_are_complete_files_with_the_numbers_of_the_practice(
    preset: str, hallucination: float, p95_s: float, success: float
) -> None:
    text = preset_text(preset)
    limits = {o.name: limit_for(o).value for o in parse_slo(text).objectives}
    assert (limits["hallucination"], limits["p95"], limits["availability"]) == (hallucination, p95_s, success)
    assert "service: faq-bot" in text
    assert text.count("#") > 10
    assert set(PRESETS) == {"support-faq", "finance", "internal-kb"}


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="write one of support-faq"):
        preset_text("shop")


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("1h", 3600), ("30d", 2_592_000), ("90s", 90), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "1x", "-1m", "30m1h", "1 h 1", "9" * 400 + "s", "1e3s", "\u0661h\n\n"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 10m"):
        parse_duration_s(text)


def test_rollback_rules_on_ratios_have_the_fast_path_unless_told_otherwise() -> None:
    assert objective().fast == FastPath()
    assert objective(name="similarity").fast is None
    assert objective(name="p99").fast is None
    for word in ("off", "false", "'off'"):
        assert (
            objective(CONTRACT.replace("    action: rollback", f"    fast: {word}\n    action: rollback", 1)).fast
            is None
        )
    told = CONTRACT.replace("for: 15m,", "for: 15m, fast: {over: 40%, window: 2m, min_events: 50},")
    assert objective(told, "p95").fast == FastPath(0.4, Window(120.0), 50)


@pytest.mark.parametrize(("written", "inside"), [("5%", 0.05), ("0.05", 0.05), ("'0.1 %'", 0.001), ("99.9%", 0.999)])
def test_shares_may_be_percentages(written: str, inside: float) -> None:
    text = CONTRACT.replace("{baseline: p95, factor: 1.5}", f"{{absolute: {written}}}")
    assert objective(text).threshold.params["absolute"] == inside


RULE, SCORE = "{baseline: p95, factor: 1.5}", "{current: mean, factor: 0.9}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window: 1h\n", "window: 1x\n", "objectives[0].window: got '1x'; write a duration such as 90s, 10m"),
        ("window: 1h\n", "window: 3600\n", "objectives[0].window: got 3600; write a duration with its unit"),
        ("window: 1h\n", "window: 31d\n", "objectives[0].window: got"),
        ("hallucination_rate", "halucination_rate", "did you mean `sft_quality_hallucination_rate`?"),
        ("indicator: sft_quality_hallucination_rate", "indicator: x", "write one of sft_quality_hallucination_rate"),
        ("    for: 10m", "    fore: 10m", "objectives[0].fore: got '10m'; unknown key; did you mean `for`?"),
        ("action: rollback\n", "action: rolback\n", "objectives[0].action: got 'rolback'; did you mean `rollback`?"),
        ("action: rollback\n", "action: explode\n", "write one of track, page, shed, rollback"),
        (
            RULE,
            "{basline: p95}",
            "objectives[0].threshold: got {'basline': 'p95'}; write exactly one of the eight forms",
        ),
        (RULE, "{baseline: p95, absolute: 1%}", "write exactly one of the eight forms"),
        (RULE, "5%", "write exactly one of the eight forms"),
        (RULE, "{baseline: p96}", "threshold.baseline: got 'p96'; write one of mean, p05"),
        (RULE, "{baseline: p95, factor: -1}", "threshold.factor: got -1"),
        (RULE, "{absolute: 5}", "a share is between 0 and 1; write 5% or 0.05"),
        (RULE, "{absolute: five}", "write a number, or a percentage such as 5%"),
        (RULE, "{absolute: .nan}", "threshold.absolute"),
        (RULE, "{tier: general}", "tiers (internal, general, critical) are success rates"),
        (RULE, "{budget_usd: 3, requests: 3}", "a budget limits sft_cost_inference_per_request_usd"),
        ("tier: general", "sla: 0.99, margin: 0.1", "use tier, current or absolute"),
        ("tier: general", "tier: generall", "threshold.tier: got 'generall'"),
        ("limit: 4300", "limit: 0.3", "latency limits are in milliseconds; 300 for 0.3 s"),
        ("margin: 200", "margin: 2000", "must be smaller than sla (2000)"),
        ("requests: 60000", "requests: 0", "threshold.requests: got 0"),
        ("name: p95,", "name: p99,", "two objectives are called `p99`"),
        ("name: p95,", "name: P 95,", "objectives[2].name: got 'P 95'"),
        ("preset: support-faq", "preset: suport-faq", "preset: got 'suport-faq'; did you mean `support-faq`?"),
        ("service: faq-bot\n", "", "service: got None; this key is required"),
        ("min_events: 400", "min_events: 0", "objectives[0].min_events: got 0"),
        ("min_events: 400", "fast: 3", "objectives[0].fast: got 3; write off, or a mapping"),
        ("min_events: 400", "fast: {over: 200%}", "objectives[0].fast.over: got"),
        ("min_events: 400", "burn_rate: perhaps", "objectives[0].burn_rate"),
        ("action: track\n", "action: track\n    fast: {}\n", "a mean has no bad events to count"),
        ("action: track\n", "action: track\n    burn_rate: true\n", "only ratio indicators have an error budget"),
        ("service: faq-bot\n", "service: faq-bot\nservice: other\n", "stands twice"),
        ("preset: support-faq", "preset: &a support-faq\nx: *a", "alias"),
        (SCORE, "{baseline: p95}", "objectives[1].threshold.factor: got 1.5; smaller is worse here"),
        (SCORE, "{previous: mean}", "objectives[1].threshold.factor: got 1.2; smaller is worse here"),
        (SCORE, "{current: mean, factor: 1.01}", "write at most 1, such as 0.9"),
        (RULE, "{current: mean}", "objectives[0].threshold.factor: got 0.9; larger is worse here"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_place_value_and_cure(old: str, new: str, message: str) -> None:
    assert old in CONTRACT
    with pytest.raises(ConfigError) as caught:
        parse_slo(CONTRACT.replace(old, new, 1))
    text = str(caught.value)
    assert text.startswith("slo.yaml:")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SCORE, "{baseline: p05, factor: 1}"),
        (RULE, "{current: mean, factor: 0.9}"),  # written down, it is meant
        (RULE, "{current: mean, factor: 1.2}"),
        ("{tier: general}", "{baseline: p05}"),  # a share is bounded by what its baseline can tell
    ],
)
def test_a_factor_that_can_be_meant_is_taken(old: str, new: str) -> None:
    assert old in CONTRACT
    assert parse_slo(CONTRACT.replace(old, new, 1)).objectives


@pytest.mark.parametrize("key", ["a[b", "[x]", "str", "", "a\\nb", "\\u2028"])
def test_an_unknown_key_of_any_form_is_one_line(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_slo(f'{CONTRACT}\n"{key}": 1\n')
    text = str(caught.value)
    assert "unknown key" in text
    assert len(text.splitlines()) == 1


def test_all_mistakes_are_told_at_once() -> None:
    text = CONTRACT.replace(RULE, "{absolute: 5}").replace("margin: 200", "margin: 2000")
    with pytest.raises(ConfigError) as caught:
        parse_slo(text, "other.yaml")
    assert [str(e).partition(": got")[0] for e in (caught.value, *caught.value.more)] == [
        "other.yaml: objectives[0].threshold.absolute",
        "other.yaml: objectives[3].threshold.margin",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "service: bot\n",
        "service: bot\nobjectives: []\n",
        "a: [",
        "\x00",
        "{[a]: b}",
        "? {a: 1}\n: y",
        "!!python/name:os x",
    ],
)
def test_what_is_no_slo_file_at_all(text: str) -> None:
    with pytest.raises(ConfigError, match=r"slo\.yaml") as caught:
        parse_slo(text)
    assert "\n" not in str(caught.value)


PIECES = (
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "? ",
    "&a ",
    "*a",
    "!!x ",
    "~",
    "null",
    "1e999",
    "'",
    '"',
    "|",
    "<<: ",
    "-1",
    "5%",
    "\0",
)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from(PIECES)), min_size=1, max_size=4))
@settings(max_examples=60)
def test_a_damaged_file_is_accepted_or_told_in_one_line(damages: list[tuple[float, int, str]]) -> None:
    text = CONTRACT
    for place, length, piece in damages:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + length :]
    try:
        assert parse_slo(text).objectives
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both ends are right


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONTRACT + "# \u5ba2\u670d\uff1a\u5e38\u898b\u554f\u984c\n", encoding="utf-8")
    assert load_slo_file(path).service == "faq-bot"
    path.write_text("service: bot\n" + "#" * (1024 * 1024), encoding="utf-8")
    with pytest.raises(ConfigError, match="at most 1048576"):
        load_slo_file(path)
    with pytest.raises(ConfigError, match="missing"):
        load_slo_file(tmp_path / "missing.yaml")


def test_the_schema_names_every_indicator_form_and_key() -> None:
    schema = slo_json_schema()
    text = json.dumps(schema)
    for word in (*INDICATORS, *FORMS, "for", "fast", "keep_firing_for", "burn_rate", "routes", *PRESETS):
        assert f'"{word}"' in text, word
    assert '"for_"' not in text
    assert schema["title"] == "slo.yaml"
    assert schema["additionalProperties"] is False
    described = schema["$defs"]["Objective"]["properties"]
    assert all("description" in value or "$ref" in value for value in described.values()), described


CANARY_FILE = """
service: faq-bot
canary: {file}
objectives:
  - name: quality
    indicator: sft_quality_hallucination_rate
    window: 1h
    threshold: {{absolute: 5%}}
    action: rollback
{own}
  - {{name: like, indicator: sft_quality_similarity_score, window: 1h, threshold: {{absolute: 0.8}}, action: rollback}}
  - name: money
    indicator: sft_cost_inference_per_request_usd
    window: 24h
    threshold: {{absolute: 0.1}}
    action: page
  - {{name: seen, indicator: sft_availability_success_rate, window: 1h, threshold: {{absolute: 99%}}}}
"""


def canary_rules(file: str = "{}", own: str = "") -> dict[str, CanaryRule | None]:
    text = CANARY_FILE.format(file=file, own=f"    canary: {own}" if own else "")
    return {slo.name: slo.canary for slo in parse_slo(text).objectives}


def test_what_is_compared_by_itself_and_how_alpha_is_shared() -> None:
    rule = CanaryRule(factor=2.0, margin=None, alpha=0.005)
    assert canary_rules() == {"quality": rule, "like": rule, "money": None, "seen": None}


def test_canary_of_the_file_and_of_one_objective() -> None:
    rules = canary_rules("{factor: 3, margin: 4%, alpha: 0.02}", "{margin: 1%}")
    assert rules["quality"] == CanaryRule(3.0, 0.01, 0.01)
    assert rules["like"] == CanaryRule(3.0, None, 0.01)  # a margin of the file is a share, not a score
    assert canary_rules("{margin: 4%}")["quality"] == CanaryRule(2.0, 0.04, 0.005)


def test_canary_off() -> None:
    assert set(canary_rules("off").values()) == {None}
    rules = canary_rules("{}", "off")
    assert rules["quality"] is None
    assert rules["like"] == CanaryRule(2.0, None, 0.01)


def test_a_tracked_objective_is_compared_when_it_says_so() -> None:
    text = "service: s\nobjectives:\n  - {name: a, indicator: sft_quality_zero_hit_rate, window: 1h, canary: {}, "
    assert parse_slo(text + "threshold: {absolute: 5%}}").objectives[0].canary == CanaryRule(2.0, None, 0.01)


def test_a_preset_is_compared_as_its_reader_says() -> None:
    ours = parse_slo("service: s\npreset: finance\ncanary: {factor: 1.5}\n").objectives
    assert {slo.canary.factor for slo in ours if slo.canary} == {1.5}
    assert sum(slo.canary.alpha for slo in ours if slo.canary) == pytest.approx(0.01)
    assert [slo.name for slo in ours if slo.canary is None] == ["cost", "thumbs-up", "cache-hits"]


@pytest.mark.parametrize(
    ("file", "own", "words"),
    [
        ("{factor: 0.5}", "", "canary.factor"),
        ("{alpha: 50%}", "", "canary.alpha"),
        ("on", "", "write off, or a mapping"),
        ("{harm: 2}", "", "canary.harm"),
        ("{}", "{alpha: 1%}", "objectives[0].canary.alpha"),
        ("{}", "{margin: 0}", "objectives[0].canary.margin"),
    ],
)
def test_a_wrong_canary_is_refused_with_its_place(file: str, own: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        canary_rules(file, own)
    assert words in str(caught.value)


def test_what_cannot_be_compared_is_refused() -> None:
    money = CANARY_FILE.format(file="{}", own="").replace("action: page", "action: page\n    canary: {}")
    with pytest.raises(ConfigError, match="only these are compared: sft_quality_hallucination_rate"):
        parse_slo(money)
    scores = CANARY_FILE.format(file="{}", own="").replace(
        "{absolute: 0.8}, action: rollback", "{absolute: 0.8}, action: rollback, canary: {factor: 2}"
    )
    with pytest.raises(ConfigError, match=r"objectives\[1\].canary.factor.*use margin"):
        parse_slo(scores)
