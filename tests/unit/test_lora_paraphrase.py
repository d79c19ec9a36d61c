"""Questions by a model: the same question in other words is kept, another question is not; tokens of a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from guard.cli import main
from guard.commands.lora_paraphrase import _numbers
from lora.dataset import PARAPHRASE, SPLITS, Plan, make_dataset, overlap
from lora.dataset_files import read_rows
from lora.paraphrase import kept_of, questions_in, why_not
from lora.phrasings import load_phrasings
from rag.kb import KnowledgeBase
from rag.text import near_hash
from rag.types import Document
from tests import openai_fake
from tests.lora_models import quiet, tiny_base

ZH_TOPIC = "\u4e03\u5929\u7279\u4f11"  # seven days of leave


@pytest.mark.parametrize(
    ("question", "topic", "lang", "why"),
    [
        ("How does leave after 7 days work?", "leave after 7 days", "en", ""),
        ("How does leave after 8 days work?", "leave after 7 days", "en", "other numbers"),
        ("How does leave after two weeks work?", "leave after 7 days", "en", "other numbers"),
        ("Leave, how long?", "leave", "en", ""),
        ("Leave of 3 days, how long?", "leave", "en", "other numbers"),
        ("Is form IT-15 needed?", "form IT-14", "en", "other numbers"),
        ("leave?", "leave", "en", "already there"),
        ("leave " * 60, "leave", "en", "too long"),
        ("\u7279\u4f11?", "leave", "en", "another language"),
        ("How much leave?", ZH_TOPIC, "zh-TW", "another language"),
        ("\u8acb\u554f\u4e03\u5929\u7279\u4f11\u600e\u9ebc\u8acb\uff1f", ZH_TOPIC, "zh-TW", ""),
        ("\u8acb\u554f\u516b\u5929\u7279\u4f11\u600e\u9ebc\u8acb\uff1f", ZH_TOPIC, "zh-TW", "other numbers"),
    ],
    ids=range(12),
)
def test_what_is_kept(question: str, topic: str, lang: str, why: str) -> None:
    assert why_not(question, topic, lang, {near_hash("Leave?")}, _numbers) == why


def test_bullets_quotes_and_twins_in_a_reply() -> None:
    reply = "1. How much leave?\n- \u201cLeave, how long?\u201d\n\n2) how much leave\nLeave and me?\nLeave, and then?"
    assert questions_in(reply)[:2] == ["How much leave?", "Leave, how long?"]
    found = kept_of({"a": reply}, {"a": ("leave", "en")}, set(), _numbers, 3)
    assert found.kept == {"a": ("How much leave?", "Leave, how long?", "Leave and me?")}
    assert [why for _, _, why in found.rejected] == ["already there", "more than asked for"]


def test_paraphrases_are_split_like_phrasings_and_never_leak() -> None:
    documents = [Document(f"d{n}", f"Rule {n}.", "", title, "en") for n, title in enumerate(("Leave", "Parking"))]
    more = {
        "d0": tuple(f"Tell me, {word}, about leave" for word in ["please", "friend", "now", "then", "maybe", "once"])
    }
    dataset = make_dataset(documents, load_phrasings(), Plan(1), (), more)
    worded = [row for name in SPLITS for row in dataset.split(name) if row.style == PARAPHRASE]
    assert {row.rule for row in worded} == {"d0"}
    assert len(worded) + len(dataset.near_copies) >= 6
    assert set(overlap(dataset).values()) == {0}


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    base = KnowledgeBase.init(tmp_path / "kb")
    rows = [{"doc_id": "leave", "text": "Staff have 20 days of leave.", "lang": "en", "title": "Leave"},
            {"doc_id": "parking", "text": "Parking costs nothing.", "lang": "en", "title": "Parking"}]  # fmt: skip
    base.add(rows)
    return tmp_path / "kb"


def command(kb: Path, out: Path, *more: str) -> list[str]:
    return ["lora", "dataset", "--kb", str(kb), "--out", str(out), "--seed", "1", "--json", *more]


def test_an_endpoint_is_asked_once_a_rule_and_its_file_gives_the_same_rows_again(
    kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def reply(model: str, messages: list[dict[str, Any]]) -> str:
        asked.append(messages[-1]["content"])
        topic = "leave" if "Leave" in asked[-1] else "parking"
        return f"1. Explain {topic} to a newcomer\n2. {topic} for 9 days?\n3. Whom do I ask for {topic}, and how?"

    monkeypatch.setenv("WRITER_KEY", openai_fake.KEY)
    with openai_fake.openai_fake(chat=reply) as api:
        options = ["--paraphrase-url", api.url, "--paraphrase-model", "m", "--paraphrase-key-env", "WRITER_KEY"]
        assert main(command(kb, tmp_path / "a", *options)) == 0
        card = json.loads(capsys.readouterr().out)
        assert main(command(kb, tmp_path / "a", *options)) == 2
        assert "before a model is asked" in capsys.readouterr().err
    assert len(asked) == 2
    assert card["paraphrases"] == {"model": "m", "kept": 4, "rejected": 2}
    kept = tmp_path / "a" / "paraphrases.json"
    assert {row["why"] for row in json.loads(kept.read_text())["rejected"]} == {"other numbers"}
    assert main(command(kb, tmp_path / "b", "--paraphrased", str(kept))) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["data_sha256"] == card["data_sha256"]
    questions = {row.question for name in SPLITS for row in read_rows(tmp_path / "a" / f"{name}.jsonl")}
    assert "Explain leave to a newcomer" in questions
    assert not any("9 days" in question for question in questions)


def test_the_card_counts_the_tokens_of_the_tokenizer_with_its_template(
    kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet()
    base = tiny_base(tmp_path / "base")
    assert main(command(kb, tmp_path / "data", "--tokenizer", str(base))) == 0
    card = json.loads(capsys.readouterr().out)
    tokens = card["tokens"]["train"]
    assert tokens["learnt"] < tokens["sum"]
    assert tokens["max"] * card["splits"]["train"]["rows"] >= tokens["sum"]
    assert tokens["above_192"] == 0
    assert len(card["tokenizer"]["chat_template_sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--paraphrase-url", "http://127.0.0.1:9/v1"], "--paraphrase-model: got 'nothing'"),
        (["--paraphrase-url", "http://127.0.0.1:9/v1", "--paraphrase-model", "m", "--paraphrases", "99"], "1 to 20"),
        (["--paraphrase-url", "http://127.0.0.1:9/v1", "--paraphrase-model", "m", "--paraphrase-key-env", "NO_SUCH"],
         "set that environment variable"),
        (["--paraphrased", "{tmp}/none.json"], "cannot be read"),
        (["--paraphrased", "{tmp}/odd.json"], "no `kept` of questions"),
        (["--tokenizer", "{tmp}"], "no tokenizer to load"),
    ],
    ids=range(6),
)  # fmt: skip
def test_mistakes_are_one_line(
    kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    (tmp_path / "odd.json").write_text(json.dumps({"kept": {"leave": "text"}}))
    assert main(command(kb, tmp_path / "out", *(option.replace("{tmp}", str(tmp_path)) for option in options))) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
