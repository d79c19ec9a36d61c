"""`sft_train_*`: the textfile that a collector reads, and OTLP gauges at a real receiver."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from exporters.training import NAMES, TrainingOtel, TrainingTextfile
from slo.errors import ConfigError, DataError

VALUES = {"sft_train_loss": 1.5, "sft_train_step": 12.0, "sft_train_eval_loss": math.nan}


def test_the_textfile_is_whole_and_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "train.prom"
    TrainingTextfile(path, service="lora", run='odd"run').write({**VALUES, "other": 1.0})
    lines = path.read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'sft_train_loss{service="lora",run="odd\\"run"} 1.5', 'sft_train_step{service="lora",run="odd\\"run"} 12',
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end in \.prom"):
        TrainingTextfile(tmp_path / "train.txt", service="lora", run="r")
    with pytest.raises(DataError, match="cannot be written"):
        TrainingTextfile(tmp_path / "none" / "train.prom", service="lora", run="r").write(VALUES)


def test_gauges_reach_a_receiver_with_the_last_values() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the otel extra: pip install 'sft-guard[otel]'")
    from tests.otlp_receiver import OtlpReceiver

    with OtlpReceiver("http") as receiver:
        otel = TrainingOtel(receiver.endpoint, service="lora", run="first")
        otel.write({**VALUES, "sft_train_step": 11.0})
        otel.write(VALUES)
        otel.close()
        receiver.wait_for(lambda: "sft_train_step" in receiver.metrics)
    assert set(receiver.metrics) == {"sft_train_loss", "sft_train_step"}
    (point,) = receiver.metrics["sft_train_step"].gauge.data_points
    assert point.as_double == 12.0
    assert {a.key: a.value.string_value for a in point.attributes} == {"run": "first"}


def test_a_receiver_that_is_away_stops_nothing() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the otel extra: pip install 'sft-guard[otel]'")
    otel = TrainingOtel("http://127.0.0.1:9", service="lora", run="first")
    otel.write(VALUES)
    otel.close()


def test_every_name_has_the_label_run() -> None:
    assert len(NAMES) == 11
