"""Training of adapters: plan, order of the rows, labels, layouts, stopping. On the small model."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("peft", reason="needs the lora extra: pip install 'sft-guard[lora]'")

import torch
from safetensors import SafetensorError

from lora.guards import stop_ids
from lora.training.batches import by_length, epoch_steps, padded_tokens
from lora.training.checkpoint import path_of, prune, read_newest, steps_in
from lora.training.encode import IGNORED, Encoded, cut_words, encode_chat
from lora.training.layout import loss_sum, packed, padded, widened
from lora.training.loop import Training
from lora.training.model import device_of, load_base, load_tokenizer, with_adapter
from lora.training.plan import TrainPlan
from lora.training.stopping import Progress
from slo.errors import ConfigError, DataError, RefusedError
from tests.lora_models import TEMPLATE, quiet, tiny_base

QUESTION, ANSWER = "Remote access by VPN?", "According to company policy: A mailbox holds 60 GB."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return load_tokenizer(str(base))


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.beginnings: list[tuple[int, int, str]] = []

    def began(self, first_step: int, total: int, note: str) -> None:
        self.beginnings.append((first_step, total, note))

    def logged(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


class TestPlan:
    def test_the_practice_s_run_has_the_practice_s_steps_and_warm_up(self) -> None:
        plan = TrainPlan().resolved(393)
        assert (plan.rank, plan.alpha, plan.warmup_steps, plan.step_count(393)) == (16, 32, 30, 200)

    @pytest.mark.parametrize(("rows", "rank"), [(99, 8), (100, 16), (9_999, 16), (10_000, 32)])
    def test_rank_by_size(self, rows: int, rank: int) -> None:
        assert TrainPlan().resolved(rows).rank == rank

    @pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
    @given(warmup=st.integers(0, 40), total=st.integers(1, 200))
    def test_the_rate_climbs_to_its_full_height_then_never_again(self, schedule: str, warmup: int, total: int) -> None:
        plan = TrainPlan(learning_rate=2.0, warmup_steps=warmup, schedule=schedule)
        rates = [plan.rate_at(step, total) for step in range(total)]
        assert all(0 < rate <= 2.0 for rate in rates)
        climb, rest = rates[:warmup], rates[warmup:]
        assert climb == sorted(climb)
        assert rest == sorted(rest, reverse=True)
        if total > warmup:
            assert max(rates) == 2.0

    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ({"learning_rate": 0.0}, "--rate: got 0.0"), ({"schedule": "polynomial"}, "there are cosine, linear"),
            ({"batch": 0}, "--batch: got 0"), ({"dropout": 1.0}, "below 1"), ({"targets": ()}, "--targets"),
            ({"epochs": float("nan")}, "--epochs: got nan"), ({"max_length": 4}, "--max-"), ({"rank": 0}, "--rank"),
            ({"warmup_steps": -1}, "--warmup: got -1"), ({"layout": "heap"}, "padded"), ({"patience": -1}, "--p"),
            ({"seed": 2**64}, "--seed: got"),
        ],
        ids=str,
    )  # fmt: skip
    def test_a_setting_that_cannot_be_is_one_line(self, setting: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError) as caught:
            TrainPlan(**setting)
        assert words in str(caught.value)


class TestOrder:
    @given(
        lengths=st.lists(st.integers(1, 192), min_size=1, max_size=80), batch=st.integers(1, 5),
        accumulate=st.integers(1, 3), seed=st.integers(0, 99), epoch=st.integers(0, 3),
    )  # fmt: skip
    def test_every_row_is_trained_once_an_epoch_and_the_order_is_a_function_of_seed_and_epoch(
        self, lengths: list[int], batch: int, accumulate: int, seed: int, epoch: int
    ) -> None:
        steps = epoch_steps(lengths, batch=batch, accumulate=accumulate, seed=seed, epoch=epoch)
        assert sorted(row for step in steps for rows in step for row in rows) == list(range(len(lengths)))
        assert len(steps) == TrainPlan(batch=batch, accumulate=accumulate).steps_per_epoch(len(lengths))
        assert all(len(rows) <= batch for step in steps for rows in step)
        assert steps == epoch_steps(lengths, batch=batch, accumulate=accumulate, seed=seed, epoch=epoch)
        for step in steps:
            drawn = [lengths[row] for rows in step for row in rows]
            assert drawn == sorted(drawn)

    def test_grouping_by_length_inside_a_step_saves_pads(self) -> None:
        chance = random.Random(1)
        lengths = [chance.randint(30, 192) for _ in range(393)]
        grouped = [rows for step in epoch_steps(lengths, batch=4, accumulate=2, seed=0, epoch=0) for rows in step]
        as_drawn = [tuple(range(n, min(n + 4, 393))) for n in range(0, 393, 4)]
        assert padded_tokens(grouped, lengths) < 0.9 * padded_tokens(as_drawn, lengths) < 0.9 * 393 * 192
        assert padded_tokens(by_length(lengths, 4), lengths) < padded_tokens(grouped, lengths)


class TestLabels:
    def test_only_the_answer_and_its_end_are_learnt_as_the_template_s_marks_say(self, tokenizer: Any) -> None:
        row = encode_chat(tokenizer, QUESTION, ANSWER, 192)
        chat = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        marked = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        mine = [token for token, mask in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mask]
        learnt = [label for label in row.labels if label != IGNORED]
        assert learnt == mine
        assert tokenizer.decode(learnt) == ANSWER + "<|im_end|>"

    def test_without_marks_the_same_tokens_are_found(self, tokenizer: Any) -> None:
        marked = encode_chat(tokenizer, QUESTION, ANSWER, 192)
        plain = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        tokenizer.chat_template = plain
        try:
            assert encode_chat(tokenizer, QUESTION, ANSWER, 192) == marked
        finally:
            tokenizer.chat_template = TEMPLATE

    def test_a_mark_that_ends_before_the_end_token_still_teaches_to_stop(self, tokenizer: Any) -> None:
        tokenizer.chat_template = TEMPLATE.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
        try:
            row = encode_chat(tokenizer, QUESTION, ANSWER, 192)
        finally:
            tokenizer.chat_template = TEMPLATE
        assert row.labels[-1] == tokenizer.eos_token_id

    def test_a_turn_that_ends_with_another_token_than_a_text_is_learnt_and_stops(self, tokenizer: Any) -> None:
        """As Gemma, Phi and others: the tokenizer names the end of a text, the template writes the end of a turn."""
        eos, end = tokenizer.eos_token, tokenizer.convert_tokens_to_ids("<|im_start|>")
        tokenizer.eos_token = "<|endoftext|>"
        marked = TEMPLATE.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_start|>")
        plain = marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        try:
            for template in (marked, plain):
                tokenizer.chat_template = template.replace("<|im_end|>", "")
                row = encode_chat(tokenizer, QUESTION, ANSWER, 192)
                assert row.labels[-1] == end
                assert set(stop_ids(tokenizer)) >= {end, tokenizer.eos_token_id}
        finally:
            tokenizer.chat_template, tokenizer.eos_token = TEMPLATE, eos

    def test_what_the_model_itself_stops_at_counts(self, base: Path, tokenizer: Any) -> None:
        model = load_base(str(base), torch.device("cpu"))
        model.generation_config.eos_token_id = [2, 77]
        assert 77 in stop_ids(tokenizer, model)

    def test_a_cut_row_is_told_with_the_length_it_needs(self, tokenizer: Any) -> None:
        whole = encode_chat(tokenizer, QUESTION, ANSWER, 192)
        cut = encode_chat(tokenizer, QUESTION, ANSWER, 20)
        assert (len(cut.ids), cut.cut) == (20, len(whole.ids) - 20)
        assert cut_words([whole], 192) == ""
        assert f"1 of 2 rows are cut at 20 tokens and lose their end: --max-length {len(whole.ids)}" in cut_words(
            [cut, whole], 20
        )

    def test_a_tokenizer_without_a_template_is_refused(self, tokenizer: Any) -> None:
        tokenizer.chat_template = None
        try:
            with pytest.raises(DataError, match="no chat template"):
                encode_chat(tokenizer, QUESTION, ANSWER, 192)
        finally:
            tokenizer.chat_template = TEMPLATE


class TestLayouts:
    def test_padded_packed_and_one_by_one_have_one_loss_and_one_gradient(self, base: Path, tokenizer: Any) -> None:
        plan = TrainPlan(dropout=0.0, seed=3).resolved(8)
        model = with_adapter(load_base(str(base), torch.device("cpu")), plan)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        chats = ((QUESTION, ANSWER), ("a", "b c"), ("Passwords?", ANSWER * 2))
        rows = [encode_chat(tokenizer, question, answer, 192) for question, answer in chats]

        def loss_and_gradient(batches: list[Any]) -> tuple[float, Any]:
            model.zero_grad()
            losses = [loss_sum(model, batch) for batch in batches]
            sum(losses).backward()
            return sum(losses).item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

        loss, gradient = loss_and_gradient([padded([row], 0) for row in rows])
        for batch in (
            padded(rows, 0),
            padded(rows, 0, to=64),
            packed(rows, 0),
            packed(rows, 0, to=1),
            widened(packed(rows, 0), 512),
        ):
            other_loss, other = loss_and_gradient([batch])
            assert other_loss == pytest.approx(loss, rel=1e-5)
            torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)
        hugging_face = model(
            input_ids=torch.tensor([rows[0].ids]), labels=torch.tensor([rows[0].labels])
        ).loss.item() * rows[0].answer_tokens  # fmt: skip
        assert loss_sum(model, padded([rows[0]], 0)).item() == pytest.approx(hugging_face, rel=1e-5)

    @given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
    def test_no_label_is_lost_and_none_crosses_from_row_to_row(self, sizes: list[tuple[int, int]]) -> None:
        rows = [Encoded(tuple(range(n + m)), (IGNORED,) * n + tuple(range(n, n + m))) for n, m in sizes]
        want = sorted(label for row in rows for label in row.labels[1:] if label != IGNORED)
        for batch in (padded(rows, 0), packed(rows, 0, to=4)):
            labels = batch.labels[batch.labels != IGNORED]
            assert sorted(labels.tolist()) == want
            assert batch.tokens == sum(len(row.ids) for row in rows)
        line = packed(rows, 0, to=4)
        assert line.segments is not None
        ids = line.ids[0]
        for at, label in zip(line.keep.tolist(), line.labels[0].tolist(), strict=True):
            if label != IGNORED:
                assert ids[at + 1] == label
                assert line.segments[0, at] == line.segments[0, at + 1]


class TestStopping:
    def test_hairs_of_improvement_do_not_keep_a_run_going_but_the_best_is_kept(self) -> None:
        progress = Progress()
        for step, loss in enumerate((1.0, 0.999, 0.998, 0.997), 1):
            progress = progress.after(loss, step, 0.01)
        assert (progress.best, progress.best_step, progress.stops(3)) == (0.997, 4, True)

    @given(losses=st.lists(st.floats(0.01, 10), min_size=1, max_size=40))
    def test_the_best_is_the_least_and_progress_by_size_resets_the_count(self, losses: list[float]) -> None:
        progress = Progress()
        for step, loss in enumerate(losses, 1):
            progress = progress.after(loss, step, 0.01)
        assert progress.best == min(losses)
        assert progress.best_step == losses.index(min(losses)) + 1
        assert progress.after(progress.best * 0.9, 99, 0.01).stale == 0

    def test_a_loss_that_is_no_number_is_no_improvement(self) -> None:
        progress = Progress().after(1.0, 1, 0.01).after(float("nan"), 2, 0.01)
        assert (progress.best, progress.stale) == (1.0, 1)


def short_run(base: Path, tokenizer: Any, out: Path | None, told: Told, **plan: Any) -> Training:
    rows = [encode_chat(tokenizer, f"{n}?", ANSWER[: 29 + n], 192) for n in range(12)]
    made = TrainPlan(**{"epochs": 2, "learning_rate": 3e-3, "batch": 2, **plan}).resolved(12)
    model = with_adapter(load_base(str(base), torch.device("cpu")), made)
    return Training(model, rows, rows[:4], made, pad_id=0, report=told, out=out, data_sha256="d")


class TestLoop:
    def test_accumulation_is_the_same_step_as_one_large_batch(self, base: Path, tokenizer: Any) -> None:
        logs = []
        for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
            told = Told()
            short_run(base, tokenizer, None, told, batch=batch, accumulate=accumulate, dropout=0.0).run()
            logs.append([row.get("loss", row.get("eval_loss")) for row in told.rows])
        assert logs[1] == pytest.approx(logs[0], rel=1e-4)
        assert logs[2] == pytest.approx(logs[0], rel=1e-4)

    def test_a_run_that_went_astray_ends_and_says_so(self, base: Path, tokenizer: Any) -> None:
        told = Told()
        training = short_run(base, tokenizer, None, told, learning_rate=1e9, max_grad_norm=1e9, warmup_steps=0)
        assert training.run().ended == "diverged"

    def test_a_run_goes_on_only_with_the_settings_it_began_with(
        self, base: Path, tokenizer: Any, tmp_path: Path
    ) -> None:
        short_run(base, tokenizer, tmp_path, Told()).run()
        with pytest.raises(RefusedError, match=r"begun otherwise: epochs 2 -> 3"):
            short_run(base, tokenizer, tmp_path, Told(), epochs=3).run()

    def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
        self, base: Path, tokenizer: Any, tmp_path: Path
    ) -> None:
        short_run(base, tokenizer, tmp_path, Told()).run()
        newest, before = steps_in(tmp_path)
        state = path_of(tmp_path, newest) / "state.pt"
        state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
        told = Told()
        short_run(base, tokenizer, tmp_path, told).run()
        assert told.beginnings[0][0] == before
        assert "cannot be read" in told.beginnings[0][2]
        (path_of(tmp_path, before) / "adapter_model.safetensors").write_bytes(b"")
        (path_of(tmp_path, newest) / "state.pt").write_bytes(b"")
        with pytest.raises(DataError, match="no checkpoint can be read"):
            read_newest(tmp_path)

    def test_a_run_does_not_go_on_over_another_base_of_the_same_shape(
        self, base: Path, tokenizer: Any, tmp_path: Path
    ) -> None:
        def run(of: str) -> None:
            training = short_run(base, tokenizer, tmp_path, Told(), epochs=1)
            training._base = of
            training.run()

        run("one")
        run("one")
        with pytest.raises(RefusedError, match=r"begun otherwise: the base model"):
            run("two")

    def test_a_run_that_had_stopped_early_is_not_trained_further_by_resuming(
        self, base: Path, tokenizer: Any, tmp_path: Path
    ) -> None:
        plan = {"epochs": 9, "learning_rate": 1e-9, "patience": 2, "dropout": 0.0}
        first = short_run(base, tokenizer, tmp_path, Told(), **plan).run()
        again = short_run(base, tokenizer, tmp_path, Told(), **plan).run()
        assert (again.ended, again.steps, again.eval_loss) == ("early", first.steps, first.eval_loss)

    def test_no_checkpoint_is_saved_whose_losses_were_not_looked_at(
        self, base: Path, tokenizer: Any, tmp_path: Path
    ) -> None:
        told = Told()
        plan = {"learning_rate": 1e9, "max_grad_norm": 1e9, "warmup_steps": 0, "save_every": 1, "accumulate": 1}
        training = short_run(base, tokenizer, tmp_path, told, **plan)
        training._flush = 100  # as on a GPU, where a look is dear
        assert training.run().ended == "diverged"
        lost = next(row["step"] for row in told.rows if not math.isfinite(row["loss"]))
        assert max(steps_in(tmp_path), default=0) < lost
        assert [row["step"] for row in told.rows] == sorted({row["step"] for row in told.rows})

    def test_packing_by_hand_is_refused_where_rows_would_see_each_other(self, base: Path, tokenizer: Any) -> None:
        made = TrainPlan(layout="packed").resolved(1)
        model = load_base(str(base), torch.device("cpu"))
        model.set_attn_implementation("eager")
        row = encode_chat(tokenizer, QUESTION, ANSWER, 192)
        with pytest.raises(ConfigError, match="see each other"):
            Training(with_adapter(model, made), [row], [row], made, pad_id=0, report=Told())

    def test_a_directory_that_is_no_checkpoint_is_let_be(self, tmp_path: Path) -> None:
        for name in ("step-00000010", "step-old", "step-00000010 (copy)"):
            (tmp_path / "checkpoints" / name).mkdir(parents=True)
            (tmp_path / "checkpoints" / name / "state.pt").touch()
        assert steps_in(tmp_path) == [10]

    def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(
        self, base: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(model: Any, directory: Path) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("lora.training.checkpoint.save_adapter", full)
        with pytest.raises(DataError, match=r"cannot be written .*No space left"):
            short_run(base, tokenizer, tmp_path, Told(), epochs=1).run()
        assert not list((tmp_path / "checkpoints").iterdir())

    def test_what_a_killed_run_left_half_written_is_swept_and_the_best_is_kept(self, tmp_path: Path) -> None:
        for step in (10, 20, 30, 40):
            path_of(tmp_path, step).mkdir(parents=True)
            (path_of(tmp_path, step) / "state.pt").touch()
        half = path_of(tmp_path, 50).with_name(".step-00000050.77")
        half.mkdir()
        prune(tmp_path, keep=10)
        assert steps_in(tmp_path) == [40, 30, 10]
        assert not half.exists()

    def test_early_stopping_ends_a_run_that_makes_no_progress(self, base: Path, tokenizer: Any) -> None:
        told = Told()
        plan = {"epochs": 9, "learning_rate": 1e-9, "patience": 2, "dropout": 0.0}
        result = short_run(base, tokenizer, None, told, **plan).run()
        assert (result.ended, result.epochs) == ("early", 3.0)


@pytest.mark.parametrize(
    ("name", "words"),
    [("tpu", "there are auto, cpu and cuda"), ("cuda", "torch finds no GPU here")],
)
def test_a_device_that_is_not_there(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=words):
        device_of(name)


def test_what_cannot_be_trained_is_one_line(base: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(RefusedError, match="--4bit needs a GPU"):
        load_base(str(base), cpu, four_bit=True)
    with pytest.raises(DataError, match="no model to load"):
        load_base(str(tmp_path), cpu, offline=True)
    for name, cut in (("model.safetensors", 1000), ("config.json", 40)):
        damaged = tmp_path / name.partition(".")[0]
        shutil.copytree(base, damaged)
        (damaged / name).write_bytes((damaged / name).read_bytes()[:cut])
        with pytest.raises(DataError, match="no model to load"):
            load_base(str(damaged), cpu)
    with pytest.raises(ConfigError, match=r"got 'c_attn'; this model has .*q_proj"):
        with_adapter(load_base(str(base), cpu), TrainPlan(targets=("c_attn",)).resolved(9))


@settings(max_examples=20)
@given(rank=st.integers(1, 4), dora=st.booleans())
def test_rank_and_dora_reach_peft(base: Path, rank: int, dora: bool) -> None:
    plan = TrainPlan(rank=rank, alpha=7, dora=dora, targets=("q_proj", "down_proj")).resolved(9)
    config = with_adapter(load_base(str(base), torch.device("cpu")), plan).peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_dora, set(config.target_modules)) == (
        rank, 7, dora, {"q_proj", "down_proj"},
    )  # fmt: skip
    assert json.dumps(plan.as_dict())
