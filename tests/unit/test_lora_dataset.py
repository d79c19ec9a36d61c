"""The data set: no leak between splits, refusals, replay, and a card that says what was done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora.dataset import SPLITS, DataSet, Plan, Row, make_dataset, overlap, ratios_for
from lora.dataset_files import CARD, check_files, read_rows, write_dataset
from lora.phrasings import load_phrasings
from rag.text import near_hash
from rag.types import Document
from slo.errors import ConfigError, DataError, RefusedError

WORDS = load_phrasings()
TITLES = (
    "Remote access",
    "Passwords",
    "Annual leave",
    "Business travel",
    "Parking",
    "Meeting rooms",
    "Laptops",
    "Visitors",
)
DOCUMENTS = [
    Document(f"en-{n}", f"{title}: rule number {n}, valid {n + 3} days.", "", title, "en")
    for n, title in enumerate(TITLES)
]
ZH = [Document("zh-1", "\u7279\u5225\u4f11\u5047\u4f9d\u5e74\u8cc7\u8a08\u7b97\u3002", "", "", "zh-TW")]


def made(seed: int = 1, **plan: object) -> DataSet:
    return make_dataset([*DOCUMENTS, *ZH], WORDS, Plan(seed, **plan))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_no_question_and_no_phrasing_group_stands_in_two_splits(seed: int, count: int) -> None:
    dataset = make_dataset(DOCUMENTS[:count], WORDS, Plan(seed))
    assert set(overlap(dataset).values()) == {0}
    groups = [{row.group for row in dataset.split(name)} for name in SPLITS]
    assert sum(len(several) for several in groups) == len(set().union(*groups))


def test_every_rule_is_trained_validated_and_tested_in_all_styles_of_the_practice() -> None:
    dataset = made(ratios=(0.6, 0.2, 0.2))
    for name in SPLITS:
        assert {row.rule for row in dataset.split(name) if row.kind == "answerable"} == {
            d.doc_id for d in [*DOCUMENTS, *ZH]
        }
    assert {row.style for row in dataset.train} == {"short", "full", "formal", "mixed"}
    assert all(len([r for r in dataset.train if r.rule == d.doc_id]) >= 8 for d in DOCUMENTS)


def test_a_quarter_is_refused_and_a_topic_that_a_rule_covers_is_not() -> None:
    dataset = made()
    rows = [row for name in SPLITS for row in dataset.split(name)]
    refused = [row for row in rows if row.kind == "refusal"]
    assert len(refused) / len(rows) == pytest.approx(0.25, abs=0.02)
    assert {row.answer for row in refused} == {WORDS["en"].refusal, WORDS["zh-TW"].refusal}
    weather = Document("w", "The weather tomorrow decides on outdoor lunch.", "", "Outdoor lunch", "en")
    with_weather = make_dataset([*DOCUMENTS, weather], WORDS, Plan(1))
    assert with_weather.covered == ("the weather tomorrow",)
    assert not any(
        "weather" in row.question for name in SPLITS for row in with_weather.split(name) if row.kind == "refusal"
    )


def test_a_near_copy_is_taken_out_of_the_smaller_split() -> None:
    twin = replace(DOCUMENTS[0], doc_id="en-twin", text="Another rule.", title="Remote  access!")
    dataset = make_dataset([*DOCUMENTS, twin], WORDS, Plan(3))
    assert dataset.near_copies
    assert set(overlap(dataset).values()) == {0}


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    assert made(1) == made(1)
    assert made(1).test != made(2).test


def test_replay_is_a_fifth_of_training_and_never_what_is_tested() -> None:
    fresh = made()
    old = [Row(f"old question {n}?", "old", "old-1", f"o/{n}", "full", "en", "answerable") for n in range(200)]
    old += [replace(row, answer="leak") for row in fresh.test]
    dataset = make_dataset([*DOCUMENTS, *ZH], WORDS, Plan(1), old)
    replayed = [row for row in dataset.train if row.kind == "replay"]
    assert len(replayed) == dataset.replayed
    assert len(replayed) / len(dataset.train) == pytest.approx(0.20, abs=0.01)
    asked = {near_hash(row.question) for row in dataset.test}
    assert not any(near_hash(row.question) in asked for row in dataset.train)


@pytest.mark.parametrize(("count", "train"), [(99, 0.70), (100, 0.80), (1000, 0.85), (10_000, 0.90)])
def test_ratios_by_size(count: int, train: float) -> None:
    assert ratios_for(count)[0] == train
    assert sum(ratios_for(count)) == pytest.approx(1.0)


def test_a_document_without_topic_or_language_is_named_and_can_be_given_one() -> None:
    unknown = Document("x", "if so.", "", "", "en")
    assert make_dataset([*DOCUMENTS, unknown], WORDS, Plan(1)).no_topic == ("x",)
    assert make_dataset([*DOCUMENTS, unknown], WORDS, Plan(1, topics={"x": "exceptions"})).no_topic == ()
    assert make_dataset(DOCUMENTS, {"zh-TW": WORDS["zh-TW"]}, Plan(1)).train == ()


def write(out: Path, dataset: DataSet) -> dict[str, object]:
    return write_dataset(out, dataset, Plan(1), source={"kb_version": 1}, phrasings_sha256="p", wall_s=5.0, who="ada")


def test_files_come_back_as_they_were_and_the_card_notices_a_change(tmp_path: Path) -> None:
    dataset = made()
    card = write(tmp_path / "data", dataset)
    for name in SPLITS:
        assert tuple(read_rows(tmp_path / "data" / f"{name}.jsonl")) == dataset.split(name)
    assert check_files(tmp_path / "data") == json.loads((tmp_path / "data" / CARD).read_text())
    assert write(tmp_path / "data", dataset)["data_sha256"] == card["data_sha256"]
    with pytest.raises(RefusedError, match="holds another data set"):
        write(tmp_path / "data", made(2))
    with (tmp_path / "data" / "test.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"test.jsonl: not what data_card.json says"):
        check_files(tmp_path / "data")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"messages": [{"role": "user", "content": "q"}]}', r"rows.jsonl:2: no message of the role 'assistant'"),
        (b"[]", "rows.jsonl:2: not a chat row"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "rows.jsonl:2: not a chat row"),
    ],
    ids=["role", "list", "utf8"],
)
def test_a_row_that_cannot_be_read_says_where(tmp_path: Path, line: bytes, words: str) -> None:
    good = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
    (tmp_path / "rows.jsonl").write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=words):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("{topic}?", "{subject}?"), "nothing else in braces"),
        (("formal:", "stiff:"), "stiff"),
        (("policy: {text}", "policy:"), "{text}"),
    ],
    ids=["field", "style", "text"],
)
def test_a_phrasings_file_with_a_mistake_says_where(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    from lora.phrasings import SHIPPED

    (tmp_path / "p.yaml").write_text(
        SHIPPED.read_text(encoding="utf-8").replace(change[0], change[1], 1), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=words):
        load_phrasings(tmp_path / "p.yaml")
