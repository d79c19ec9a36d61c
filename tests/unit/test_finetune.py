"""Rows for fine-tuning: from documents, from traffic, checked, counted; and what the model learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.checks.pii import KINDS, redact
from guard.checks.spec import CheckSpec
from guard.cli import main
from guard.finetune_grading import grader
from rag.endpoint import EndpointEmbedder
from rag.finetune import counting
from rag.finetune.api import make_client
from rag.finetune.counting import TokenCounter, counter_for, epochs_for, estimate, training_usd_per_million
from rag.finetune.cursor import Cursor, read_cursor, write_cursor
from rag.finetune.evaluate import TRAINED, UNSEEN, Case, cases_of, evaluate, summary
from rag.finetune.export import read_thumbs
from rag.finetune.jobs import JobState, read_state
from rag.finetune.registering import register
from rag.finetune.rows import Example, examples_of
from rag.finetune.templates import load_templates
from rag.finetune.topics import first_and_rest, states_limits, topic_of
from rag.finetune.traffic import TrafficFilter, examples_of_traffic, group_questions, split_groups
from rag.finetune.validation import check_file
from rag.kb import KnowledgeBase
from rag.rows import check_row, read_jsonl
from rag.types import Document
from registry.client import LocalRegistry
from registry.store import RegistryStore
from slo.codec import encode_exchange
from slo.errors import ConfigError, DataError, RefusedError
from slo.types import CacheStatus, CheckResult, Exchange, Finding, Outcome

RULES = Path(__file__).parent.parent / "data" / "rag_rules_zh.jsonl"
TEMPLATES = load_templates()
DAY = "2026-11-25"


def rules() -> list[Document]:
    found = [check_row(row) for row in read_jsonl(RULES)]
    return [row for row in found if isinstance(row, Document)]


def test_fifteen_rules_give_twenty_nine_rows() -> None:
    made = examples_of(rules(), TEMPLATES, DAY)
    assert (len(made.examples), made.without) == (29, ())
    per_document = [sum(e.group == d.doc_id for e in made.examples) for d in rules()]
    # One question about its subject each; only rule 8 states no amount, deadline or prohibition to ask for.
    assert per_document == [2] * 7 + [1] + [2] * 7


def test_a_row_holds_tone_question_three_points_and_the_data_date() -> None:
    row = examples_of(rules(), TEMPLATES, DAY).examples[0].row()
    messages: Any = row["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    answer = messages[2]["content"].splitlines()
    assert [line[:2] for line in answer[1:4]] == ["1.", "2.", "3."]
    assert DAY in answer[-1]
    assert rules()[0].text[:10] in messages[2]["content"]


@pytest.mark.parametrize(
    ("text", "topic", "limits"),
    [
        ("The VPN client must be version 6.2 or later.", "the VPN client", True),
        ("Visitors may not enter the server room.", "visitors", True),
        ("Employees must request leave in the portal.", "how to request leave", False),
        ("If you lose a badge, tell the desk.", "", False),
        ("VPN \u9023\u7dda\u9808\u4f7f\u7528\u516c\u53f8\u88dd\u7f6e\u3002", "VPN \u9023\u7dda", False),
        ("\u516c\u53f8\u63d0\u4f9b\u6bcf\u4eba\u516b\u5343\u5143\u7684\u9032\u4fee\u88dc\u52a9\u3002",
         "\u9032\u4fee\u88dc\u52a9", True),
        ("OK", "", False),
    ],
)  # fmt: skip
def test_what_a_document_is_about(text: str, topic: str, limits: bool) -> None:
    assert topic_of(Document("d", text, "")) == topic
    assert states_limits(text) is limits


def test_a_document_without_a_subject_gives_no_row_and_is_named() -> None:
    silent, twin = Document("a", "OK", "h1"), Document("c", "x", "h3", title="Leave")
    made = examples_of([silent, Document("b", "Leave is 14 days.", "h2", title="Leave"), twin], TEMPLATES, DAY)
    assert [doc_id for doc_id, _ in made.without] == ["a", "c"]  # c would ask what b asks


@given(st.text(max_size=80))
def test_the_parts_of_a_text_are_all_of_it(text: str) -> None:
    first, rest = first_and_rest(text)
    kept = [ch for ch in first + rest if ch.isalnum()]
    assert kept == [ch for ch in text if ch.isalnum()]


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef"), max_size=12))
def test_a_cursor_never_exports_twice_and_never_forgets(first: list[str], second: list[str]) -> None:
    def documents(names: list[str]) -> list[Document]:
        return [Document(name, name, f"hash-{name}") for name in dict.fromkeys(names)]

    cursor = Cursor().with_exported(documents(first), DAY)
    fresh = cursor.new(documents(second))
    assert {d.doc_id for d in fresh} == set(second) - set(first)
    assert cursor.with_exported(fresh, DAY).new(documents(first + second)) == ()


def test_a_damaged_cursor_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    write_cursor(tmp_path / "c.json", Cursor(exported=("a",)))
    assert read_cursor(tmp_path / "c.json").exported == ("a",)
    (tmp_path / "c.json").write_text('{"exported": 3}')
    with pytest.raises(DataError, match="ft export --reset"):
        read_cursor(tmp_path / "c.json")


# -- traffic --------------------------------------------------------------------------------------------------------

PASSED = (Finding("grounding", CheckResult.PASS, 0.9),)


def said(question: str, answer: str = "Fourteen days.", **changes: Any) -> tuple[Exchange, dict[str, Any]]:
    exchange = Exchange("e1", 100.0, "chat", "r1", "stable", Outcome.OK, 200, findings=PASSED)
    return replace(exchange, **changes), {"question": question, "answer": answer}


def learnt(*rows: Any, thumbs: dict[str, str] | None = None, **wanted: Any) -> Any:
    return examples_of_traffic(rows, TrafficFilter(**wanted), redact, thumbs or {}, {"en": "Be brief."})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (said("How much leave?", outcome=Outcome.INCOMPLETE), "not answered well"),
        (said("How much leave?", cache=CacheStatus.HIT), "from the cache"),
        (said("How much leave?", findings=(Finding("grounding", CheckResult.FAIL),)), "a check failed"),
        (said("How much leave?", findings=(*PASSED, Finding("pii", CheckResult.FAIL))), "a check failed"),
        (said("How much leave?", findings=()), "not checked"),
        (said("How much leave?", wall_s=5.0), "another time"),
        (said("How much leave?", release="r2"), "another release"),
        (said("How much leave?", exchange_id="down"), "thumb down"),
        (said("How much leave? Write to amy@corp.example"), "personal data"),
        (said("How much leave?", "Ask [email]."), "personal data"),
        (said(" "), "no text kept"),
        ((said("How much leave?")[0], None), "no text kept"),
        ((said("q")[0], {"question": "q", "answer": "I am sorry.", "answer_source": "REFUSAL"}), "nothing to learn"),
    ],
)
def test_what_is_not_learnt(row: Any, reason: str) -> None:
    found = learnt(row, thumbs={"down": "down"}, releases=frozenset({"r1"}), from_s=10.0)
    assert (found.examples, found.left_out) == ((), {reason: 1})


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_kind_was_taken_out_before_it_was_stored_the_row_is_not_learnt(kind: str) -> None:
    assert learnt(said("How much leave?", f"Ask [{kind}].")).left_out == {"personal data": 1}


def test_of_two_answers_to_one_question_the_liked_one_is_learnt_else_the_latest() -> None:
    old = said("How much leave?", "Old.", exchange_id="a")
    new = said("how much LEAVE", "New.", exchange_id="b", wall_s=200.0)
    assert [e.answer for e in learnt(old, new).examples] == ["New."]
    assert [e.answer for e in learnt(new, old).examples] == ["New."]
    assert [e.answer for e in learnt(old, new, thumbs={"a": "up"}).examples] == ["Old."]
    assert [e.answer for e in learnt(old, new, thumbs={"a": "up"}, thumbs_up=True).examples] == ["Old."]


def test_masked_rows_hold_no_personal_data() -> None:
    (example,) = learnt(said("Is amy@corp.example on leave?", "Call 0912-345-678."), mask=True).examples
    assert (example.question, example.answer) == ("Is [email] on leave?", "Call [phone].")


def test_paraphrases_are_one_group_and_others_are_not() -> None:
    questions = [
        "How many days of annual leave do I get?",
        "How many annual leave days do we get",
        "Where is the printer?",
        "\u75c5\u5047\u53ef\u4ee5\u8acb\u5e7e\u5929\uff1f",
        "\u8acb\u554f\u75c5\u5047\u53ef\u8acb\u5e7e\u5929",
    ]
    groups = group_questions(questions)
    assert groups[0] == groups[1]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9)), max_size=60),
    st.floats(0.0, 0.5),
)
def test_a_group_is_never_on_both_sides_and_nothing_is_lost(rows: list[tuple[str, int]], ratio: float) -> None:
    examples = [Example("", f"{group} {number}", "a", group) for group, number in rows]
    train, validation = split_groups(examples, ratio)
    assert {e.group for e in train}.isdisjoint(e.group for e in validation)
    assert sorted(map(str, [*train, *validation])) == sorted(map(str, examples))
    later = [*examples, Example("", "another", "a", "z")]
    assert split_groups(later, ratio)[1][: len(validation)] == validation  # what comes later moves nothing


# -- file rules, tokens, cost ---------------------------------------------------------------------------------------


def row(*messages: Any) -> dict[str, Any]:
    return {"messages": [m if isinstance(m, dict) else {"role": m[0], "content": m[1]} for m in messages]}


GOOD = row(("system", "s"), ("user", "q"), ("assistant", "a"))
WORDS = TokenCounter(lambda text: len(text.split()), False, "words")


def checked(*rows: Any, longest: int = 100) -> Any:
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows]
    return check_file(b"\n".join(lines) + b"\n", "f", WORDS.row, longest)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        ([], "a list; write an object"),
        ({"messages": []}, "no list of messages"),
        ({**GOOD, "id": 1}, "unknown key 'id'"),
        (row(("bot", "x")), "role 'bot'"),
        (row(("user", "q"), ("system", "s"), ("assistant", "a")), "messages[1]: the system message comes first"),
        (row(("user", "q")), "not the assistant's"),
        (row(("user", " "), ("assistant", "a")), "messages[0]: `content` is empty"),
        (row(("user", "q"), {"role": "assistant", "content": "a", "weight": 2}), "weight is 0 or 1"),
        (
            row(("user", "q"), {"role": "assistant", "content": "a", "weight": 0}),
            "every assistant message has weight 0",
        ),
    ],
)
def test_bad_lines_are_named_with_their_place(bad: Any, complaint: str) -> None:
    found = checked(*[GOOD] * 10, bad)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("f:11: ")
    assert complaint in found.problems[0]


def test_ten_examples_are_enough_and_nine_are_not() -> None:
    assert checked(*[GOOD] * 10).problems == ()
    assert checked(*[GOOD] * 9).problems == ("f: 9 examples, the API wants at least 10; export more",)


def test_tokens_count_the_framing_and_long_examples_are_told() -> None:
    found = checked(*[GOOD] * 10, longest=10)
    assert found.token_count == 10 * (3 * (1 + 4) + 3)  # a word and four tokens a message, three for the reply
    assert sum("the API cuts at 10" in text for text in found.warnings) == 10


def test_counts_are_exact_with_the_tokenizer_and_say_so_without(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bpe_openai", reason="needs the `ft` extra")
    exact = counter_for("gpt-4o-mini-2024-07-18")
    assert (exact.exact, exact.name, exact.count("hello world")) == (True, "o200k_base", 2)
    monkeypatch.setattr(counting.importlib.util, "find_spec", lambda name: None)
    rough = counter_for("gpt-4o-mini-2024-07-18")
    assert not rough.exact
    assert "estimate" in rough.name
    for text in (rules()[0].text, "Employees request leave three days ahead in the portal, or by phone."):
        assert rough.count(text) == pytest.approx(exact.count(text), rel=0.25)
    assert estimate("") == 0


@pytest.mark.parametrize(("examples", "epochs"), [(10, 10), (29, 3), (34, 3), (1000, 3), (10_000, 2), (100_000, 1)])
def test_epochs_of_the_api(examples: int, epochs: int) -> None:
    assert epochs_for(examples) == epochs


def test_training_prices() -> None:
    assert training_usd_per_million("gpt-4o-mini-2024-07-18") == 3.0
    assert training_usd_per_million("gpt-9") is None
    assert training_usd_per_million("gpt-9", 2.5) == 2.5
    with pytest.raises(ConfigError, match="USD per 1M"):
        training_usd_per_million("gpt-9", 3000.0)


# -- templates, evaluation, registry --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('"What is the rule on {topic}?"', '"What is it?"'), "a question holds {topic}"),
        (("{first}", "{rule}"), "unknown {rule}"),
        (("{first}", ""), "never says the rule"),
        (("needs: limits", "needs: numbers"), "needs"),
    ],
)
def test_mistakes_in_templates_are_named(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    shipped = Path(counting.__file__).with_name("templates.yaml").read_text("utf-8")
    (tmp_path / "t.yaml").write_text(shipped.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_templates(tmp_path / "t.yaml")
    assert complaint in str(error.value)


def parrot(cases: list[Case]) -> Callable[[Case], str]:
    """A model as the practice saw it: trained phrasings word for word, others in form and invented."""
    known = {case.question: case.reference for case in cases if case.kind == TRAINED}
    invented = "According to company policy:\n1. Rule: everybody gets 99 days.\n2. Details: ask the moon.\n3. Source: x"
    return lambda case: known.get(case.question, invented)


def test_trained_phrasings_are_exact_and_unseen_ones_keep_the_form_and_invent() -> None:
    cases = cases_of(rules(), TEMPLATES, DAY)
    grade, by = grader(CheckSpec(embedder="none"))
    told: list[int] = []
    graded = evaluate(cases, parrot(cases), grade, told.append)
    kinds = {kind: summary([g for g in graded if g.case.kind == kind]) for kind in (TRAINED, UNSEEN)}
    assert told[-1] == len(cases) == 29 + 30
    assert "words" in by
    trained, unseen = kinds[TRAINED], kinds[UNSEEN]
    assert (trained["exact_ratio"], trained["form_ratio"], trained["accuracy_ratio"]) == (1.0, 1.0, 1.0)
    assert (unseen["exact_ratio"], unseen["form_ratio"], unseen["accuracy_ratio"]) == (0.0, 1.0, 0.0)
    assert trained["hallucinated_ratio"] == 0.0
    assert float(str(unseen["hallucinated_ratio"])) > 0.9


def test_figures_of_nothing_are_unknown() -> None:
    assert summary([])["similarity_mean"] is None
    assert summary([])["hallucinated_ratio"] is None


DONE = JobState("run", "http://x", "gpt-4o-mini", "a" * 64, job_id="ftjob-1", status="succeeded",
                fine_tuned_model="ft:gpt-4o-mini:org::1", trained_tokens=900, created_at=1_790_000_000)  # fmt: skip


@pytest.mark.anyio
async def test_a_finished_model_is_registered_once_with_what_it_was_made_of(tmp_path: Path) -> None:
    registry = LocalRegistry(RegistryStore(f"sqlite:///{tmp_path / 'r.sqlite'}"))
    try:
        made = await register(registry, "faq-ft", DONE, owner="ann", evaluation={"trained": {"count": 29}})
        assert await register(registry, "faq-ft", DONE, owner="ann") == made
        assert (made.version, made.artifact_url) == ("ft+1790000000", "openai://models/ft:gpt-4o-mini:org::1")
        assert made.meta["artifact_type"] == "OpenAIFineTunedModel"
        assert (made.meta["provider"], made.meta["base_model"]) == ("openai", "gpt-4o-mini")
        assert len(await registry.versions("faq-ft")) == 1
        with pytest.raises(RefusedError, match="there is no model yet"):
            await register(registry, "faq-ft", replace(DONE, status="running", fine_tuned_model=""), owner="ann")
    finally:
        await registry.close()


# -- the command line -----------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, Any]:
    code = main([*map(str, argv), "--json"])
    lines = capsys.readouterr().out.splitlines()
    return code, json.loads(lines[-1]) if lines else None


def test_export_grows_with_the_knowledge_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kb = KnowledgeBase.init(tmp_path / "kb")
    kb.add(read_jsonl(RULES))
    out = tmp_path / "ft.jsonl"
    export = ("ft", "export", "--kb", tmp_path / "kb", "--date", DAY, "--out")
    code, first = run(capsys, *export, out)
    assert (code, first["rows"], first["documents"], first["problems"]) == (0, 29, 15, [])
    code, second = run(capsys, *export, out)
    assert (code, second["rows"], second["note"]) == (0, 0, "nothing new: KB 15, exported 15")
    kb.add([{"doc_id": "new", "text": "The canteen must close at 14:00."}])
    assert run(capsys, *export, tmp_path / "2.jsonl")[1]["rows"] == 2
    assert main([*map(str, export), str(out), "--force-all"]) == 2  # an export that is there is not overwritten
    assert "say --overwrite" in capsys.readouterr().err
    assert run(capsys, *export, out, "--force-all", "--overwrite")[1]["rows"] == 31
    assert run(capsys, *export, tmp_path / "3.jsonl", "--since", 15)[1]["documents"] == 1
    assert run(capsys, *export, out, "--reset") == (
        0,
        {"reset": True, "cursor": str(tmp_path / "kb" / "ft_cursor.json")},
    )
    assert run(capsys, *export, tmp_path / "4.jsonl")[1]["documents"] == 16


def test_export_from_a_log_leaves_personal_data_and_bad_answers_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        said(f"How do I book room {n}?", f"Open the portal and choose room {n}.", exchange_id=f"e{n}")
        for n in range(40)
    ]
    rows.append(said("Is amy@corp.example in?", "Yes, she is.", exchange_id="pii"))
    rows.append(said("Who is away?", "Nobody is.", exchange_id="bad"))
    (tmp_path / "log.jsonl").write_bytes(b"".join(encode_exchange(*row) + b"\n" for row in rows))
    (tmp_path / "thumbs.jsonl").write_text('{"exchange_id": "bad", "thumb": "down"}\n')
    out = tmp_path / "t.jsonl"
    log = ("ft", "export", "--log", tmp_path / "log.jsonl", "--out", out, "--thumbs", tmp_path / "thumbs.jsonl")
    code, found = run(capsys, *log)
    assert code == 0
    assert found["left_out"] == {"personal data": 1, "thumb down": 1}
    assert found["rows"] == found["examples"] + found["validation_examples"] == 40
    assert b"amy@" not in out.read_bytes()
    assert main(["ft", "export", "--log", str(tmp_path / "log.jsonl"), "--checks", "spelling"]) == 2
    assert "write names of" in capsys.readouterr().err


@pytest.mark.parametrize("read", [read_cursor, read_state, read_thumbs], ids=["cursor", "state", "thumbs"])
def test_bytes_that_are_not_utf_8_are_one_line_and_no_traceback(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "x.json").write_bytes(b'{"exchange_id": "\xff", "run_id": "\xff", "updated": "\xff"}')
    with pytest.raises(DataError, match=r"x\.json"):
        read(tmp_path / "x.json")


@pytest.mark.parametrize("key", ["sk-SECRET\nx", "sk-SECRET\u2026"], ids=["line break", "ellipsis"])
def test_a_key_that_no_header_carries_is_refused_without_being_shown(key: str) -> None:
    for make in (
        lambda: make_client("http://127.0.0.1:9/v1", key),
        lambda: EndpointEmbedder("http://127.0.0.1:9/v1", "m", api_key=key),
    ):
        with pytest.raises(ConfigError, match="not shown") as caught:
            make()
        assert "SECRET" not in str(caught.value)
    assert make_client("http://127.0.0.1:9/v1", "sk-SECRET\n").api_key == "sk-SECRET"
