"""Where answers come from: a real small model with and without its adapter, an endpoint, a file; and what rules add."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

from bench.lora_rules import measure
from lora.answering import LocalModel, asked_of, read_answers
from lora.evaluate import repeats
from lora.guards import Guards, prompt_of
from rag.model_client import ModelConfig, ModelError, Piece
from slo.errors import DataError, RefusedError
from tests.lora_models import load, quiet, tiny_adapter, tiny_base, tiny_dataset


def ignored(done: int) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter that has learnt a little."""
    directory = tmp_path_factory.mktemp("small")
    quiet()
    tiny_base(directory / "base")
    tiny_adapter(directory / "base", tiny_dataset(4).train, directory / "adapter", epochs=6)
    return directory


def test_an_adapter_can_be_taken_off_and_several_questions_are_answered_as_one(place: Path) -> None:
    model = LocalModel(str(place / "base"), place / "adapter", threads=1)
    questions = [row.question for row in tiny_dataset(4).test][:5]
    guards = Guards(max_new_tokens=24)
    done: list[int] = []
    together = model.answers(questions, guards, done.append, batch=4)
    assert done == [4, 5]
    assert together == model.answers(questions, guards, ignored, batch=1)
    base = model.answers(questions, guards, ignored, adapted=False)
    assert base == LocalModel(str(place / "base"), threads=1).answers(questions, guards, ignored)
    assert base != together


def test_guards_stop_a_loop_and_leave_the_words_of_the_question_free(place: Path) -> None:
    model = LocalModel(str(place / "base"), place / "adapter", threads=1)
    question = "leave leave leave leave leave leave"
    guarded = model.answers([question], Guards(max_new_tokens=60, no_repeat_ngram_size=2), ignored)[0]
    assert not repeats(guarded)
    # A ban on triples that counted the prompt would change what is said of words that stand in the question.
    said = model.answers([question], Guards(12, 1.0, 0), ignored)[0]
    assert model.answers([f"{question} {said}"], Guards(12, 1.0, 3), ignored) == model.answers(
        [f"{question} {said}"], Guards(12, 1.0, 0), ignored
    )


def test_the_prompt_is_the_tokenizers_own_or_chatml(place: Path) -> None:
    _, tokenizer = load(place / "base")
    chat = [{"role": "user", "content": "leave?"}]
    # The template of the small model puts no line between two turns; ChatML does.
    assert prompt_of(tokenizer, chat) == "<|im_start|>user\nleave?<|im_end|><|im_start|>assistant\n"
    tokenizer.chat_template = None
    assert prompt_of(tokenizer, chat) == "<|im_start|>user\nleave?<|im_end|>\n<|im_start|>assistant\n"


def test_what_is_no_adapter_or_no_model_is_one_line(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name a causal model or its path"):
        LocalModel(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"auto_map": {"a": "b"}}')
    with pytest.raises(RefusedError) as caught:
        LocalModel(str(place / "base"), tmp_path)
    assert caught.value.reason == "artifact_rejected"


class Flaky:
    """A model that is throttled once for each question."""

    def __init__(self, config: ModelConfig) -> None:
        self.asked: list[str] = []

    async def complete(self, messages: list[dict[str, str]], options: dict[str, object]) -> Piece:
        question = messages[-1]["content"]
        self.asked.append(question)
        if question == "broken":
            raise ModelError(502, "upstream_status", "model answered 500: no")
        if self.asked.count(question) == 1:
            raise ModelError(429, "throttled", "model is rate limited")
        assert options == {"temperature": 0.0, "max_tokens": 7}
        return Piece(f" {question}! ")

    async def close(self) -> None:
        """Nothing is open."""


def test_an_endpoint_is_asked_again_when_it_is_busy_and_believed_when_it_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lora.answering.WAIT_S", 0.0)
    config = ModelConfig("http://127.0.0.1:9/v1", "m")
    said = asked_of(config, ["a", "b"], Guards(7), ignored, make_model=Flaky)  # type: ignore[arg-type]
    assert said == ["a!", "b!"]
    with pytest.raises(ModelError, match="500"):
        asked_of(config, ["a", "broken"], Guards(7), ignored, make_model=Flaky)  # type: ignore[arg-type]


def test_given_answers_are_matched_by_question(tmp_path: Path) -> None:
    rows = [{"question": "b  c", "answer": "2", "base": "x"}, {"question": "a", "answer": "1"}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert read_answers(tmp_path / "a.jsonl", ["a", "b c"]) == (["1", "2"], None)
    assert read_answers(tmp_path / "a.jsonl", ["b c"]) == (["2"], ["x"])
    (tmp_path / "a.jsonl").write_text('{"question": "a"}')
    with pytest.raises(DataError, match=r"a\.jsonl:1: write"):
        read_answers(tmp_path / "a.jsonl", ["a"])


def test_rules_from_one_half_of_the_questions_mend_the_other_half(tmp_path: Path) -> None:
    found = measure(epochs=7, documents=8, work=tmp_path)
    raw, after = found["raw"], found["rules"]
    assert found["topics"] >= 2
    assert after["similarity"] > raw["similarity"] + 0.1
    assert after["poor"] < raw["poor"] - 0.1
    assert after["confusion"] < raw["confusion"]
