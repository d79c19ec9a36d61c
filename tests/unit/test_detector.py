"""A detector model: what its labels mean, windows over long contexts, its process, and what it may change."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.checks.detector_labels import read_labels
from guard.checks.detector_link import DetectorLink
from guard.checks.detector_spec import DetectorSpec
from guard.checks.file_watch import FileWatch
from guard.checks.opinion import Opinion, Question, finding_of
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError
from slo.types import CheckResult
from tests.unit.exporters_helpers import ManualClock

GOLDEN = """{"version": "t", "contexts": {"c": "anchor the office opens at nine ."},
 "pairs": [{"language": "en", "context": "c", "answer": "the office opens at nine .", "supported": true},
           {"language": "en", "context": "c", "answer": "the zebra opens late .", "supported": false}]}"""


@pytest.mark.parametrize(
    ("kind", "names", "labels"),
    [
        ("nli", ["entailment", "neutral", "contradiction"], ((0,), (1,), (2,))),
        ("nli", ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], ((2,), (1,), (0,))),
        ("nli", ["hallucinated", "consistent"], ((1,), (0,), ())),
        ("nli", ["not_entailment", "entailment"], ((1,), (0,), ())),
        ("tokens", ["LABEL_0", "LABEL_1"], ((0,), (1,), ())),
        ("tokens", ["supported", "hallucinated"], ((0,), (1,), ())),
    ],
    ids=["nli", "nli-turned", "binary", "not-entailment", "tokens-nameless", "tokens"],
)
def test_labels_are_read_by_their_names(kind: str, names: list[str], labels: tuple[tuple[int, ...], ...]) -> None:
    found = read_labels(kind, dict(enumerate(names)))
    assert (found.supported, found.unsupported, found.contradicted) == labels


def test_labels_that_say_nothing_are_refused_with_the_setting_that_answers() -> None:
    names = {0: "LABEL_0", 1: "LABEL_1"}
    with pytest.raises(ConfigError, match=r"labels: \{LABEL_0: supported\|unsupported\|contradicted"):
        read_labels("nli", names)
    assert read_labels("nli", names, {"LABEL_0": "unsupported", "LABEL_1": "supported"}).supported == (1,)
    with pytest.raises(ConfigError, match="its labels are LABEL_0, LABEL_1"):
        read_labels("nli", names, {"LABEL_7": "supported"})
    with pytest.raises(ConfigError, match="do not tell supported from unsupported"):
        read_labels("nli", {0: "neutral", 1: "contradiction"})


def test_an_opinion_names_its_worst_claims() -> None:
    found = finding_of("detector", Opinion((0.1, 0.9, 0.6)), ("a", "b", "c"), 0.5, "m")
    assert (found.result, found.reason) == (CheckResult.FAIL, "2 of 3 claims not supported")
    assert found.score == pytest.approx(0.1)
    assert found.evidence == ("b [90% unsupported]", "c [60% unsupported]")
    assert finding_of("detector", Opinion(problem="broke"), (), 0.5, "m").result is CheckResult.UNAVAILABLE
    assert finding_of("judge", Opinion(skipped="not sampled"), (), 0.5, "m").result is CheckResult.SKIPPED


def test_a_changed_file_is_told_until_its_bytes_are_back(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    file.write_bytes(b"one")
    watch = FileWatch([file])
    assert watch.changed() == ""
    file.write_bytes(b"two")
    assert "weights.json was changed on disk" in watch.changed()
    file.write_bytes(b"one")
    assert watch.changed() == ""
    file.unlink()
    assert "cannot be read any more" in watch.changed()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason="detector models need the `embeddings` extra")
    from tests.tiny_models import nli_model, token_model

    directory = tmp_path_factory.mktemp("models")
    token_model(directory / "tokens")
    nli_model(directory / "nli")
    nli_model(directory / "nameless", {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    (directory / "golden.json").write_text(GOLDEN)
    return directory


@pytest.mark.embeddings
def test_evidence_is_found_in_any_window_of_a_long_context(models: Path) -> None:
    from guard.checks.detector_model import HfDetector

    nli = HfDetector(DetectorSpec(str(models / "nli"), overlap_tokens=8))
    good, bad = "the office opens at nine .", "the zebra opens late ."
    filler = "filler " * 300  # ten windows on each side
    assert nli.score("", [good, bad], [filler + "anchor", filler])[0] < 0.01
    assert nli.score("", [good, bad], [filler, filler])[0] > 0.9
    assert nli.score("", [good, bad], [filler + "anchor"])[1] > 0.9
    assert nli.score("", [], ["anchor"]) == []


@pytest.mark.embeddings
def test_a_token_classifier_speaks_of_the_claim_and_not_of_the_context(models: Path) -> None:
    from guard.checks.detector_model import HfDetector

    tokens = HfDetector(DetectorSpec(str(models / "tokens"), overlap_tokens=8))
    assert tokens.kind == "tokens"
    clean, flagged, long = tokens.score(
        "zebra", ["the office opens .", "the zebra opens .", "the office " * 100], ["zebra " * 200]
    )
    assert clean < 0.1
    assert flagged > 0.9
    assert long < 0.1


@pytest.mark.embeddings
def test_what_cannot_be_a_detector_is_refused_in_one_line(models: Path, tmp_path: Path) -> None:
    from guard.checks.detector_model import HfDetector

    with pytest.raises(ConfigError, match="of kind `tokens`"):
        HfDetector(DetectorSpec(str(models / "tokens"), kind="nli"))
    with pytest.raises(ConfigError, match="LABEL_0"):
        HfDetector(DetectorSpec(str(models / "nameless")))
    with pytest.raises(DataError, match="cannot be loaded"):
        HfDetector(DetectorSpec(str(tmp_path)))
    with pytest.raises(ConfigError, match="at most a quarter of a window"):
        HfDetector(DetectorSpec(str(models / "nli"), overlap_tokens=32))


def wait(link: DetectorLink, condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s  # only ends a test that hangs
    while not condition():
        assert time.monotonic() < end_s, link.line
        select.select(link.filenos(), [], [], 0.1)
        link.look()


def asked(link: DetectorLink, question: Question) -> Opinion:
    said = link.ask(7, question)
    found: list[tuple[int, Opinion]] = []

    def collected() -> bool:
        found.extend(link.collect())
        return bool(found)

    if said is None:
        wait(link, collected)
        ((ticket, said),) = found
        assert ticket == 7
    return said


QUESTION = Question("en", "", "", ("the office opens at nine .", "the zebra opens late ."), ("anchor the office",))


@pytest.fixture
def link(models: Path) -> Iterator[DetectorLink]:
    made = DetectorLink(
        DetectorSpec(str(models / "nli"), overlap_tokens=8, golden=str(models / "golden.json")), SystemClock()
    )
    yield made
    made.close()


@pytest.mark.embeddings
def test_the_process_loads_answers_and_notices_a_swapped_model(link: DetectorLink, models: Path) -> None:
    assert asked(link, QUESTION).problem == "detector loading"
    wait(link, lambda: link.collect() == [] and "nli:nli@" in link.line)
    good, bad = asked(link, QUESTION).probabilities
    assert good < 0.1 < 0.9 < bad
    weights = models / "nli" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes((models / "tokens" / "model.safetensors").read_bytes())
    link.look()  # one heartbeat
    assert "model.safetensors was changed on disk" in link.problem
    assert asked(link, QUESTION).problem == link.problem
    weights.write_bytes(before)
    link.look()
    assert link.problem == ""


@pytest.mark.embeddings
def test_a_model_that_fails_the_golden_pairs_may_not_speak(models: Path) -> None:
    """The tiny model knows eleven words: the shipped pairs are Greek to it."""
    made = DetectorLink(DetectorSpec(str(models / "nli"), overlap_tokens=8), SystemClock())
    try:
        wait(made, lambda: made.collect() == [] and bool(made.problem))
        assert "golden answers judged wrongly (en)" in made.problem
        assert "golden answers judged wrongly (zh)" in made.problem
        assert asked(made, QUESTION).problem == made.problem
    finally:
        made.close()


SILENT = """
import socket, sys
from guard.checks.detector_link import Begin, Loaded, decode_to_detector, detector_frame
from guard.checks.frames import Splitter
link, splitter = socket.socket(fileno=int(sys.argv[1])), Splitter()
while data := link.recv(65536):
    for body in splitter.feed(data):
        if isinstance(decode_to_detector(body), Begin):
            link.sendall(detector_frame(Loaded("silent")))
"""
DEAD = "import sys; sys.exit(3)"
BABBLING = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(bytes(range(64)) * 64)"


def made_of(tmp_path: Path, code: str, clock: ManualClock) -> DetectorLink:
    file = tmp_path / "process.py"
    file.write_text(code)
    return DetectorLink(DetectorSpec("m", command=(sys.executable, str(file)), timeout_s=5.0), clock)


def test_a_model_that_hangs_costs_its_time_and_is_started_again(tmp_path: Path) -> None:
    clock = ManualClock()
    link = made_of(tmp_path, SILENT, clock)
    try:
        wait(link, lambda: link.collect() == [] and link.line == "detector silent")
        assert link.ask(1, QUESTION) is None
        assert [link.ask(n, QUESTION) for n in range(2, 6)] == [None] * 4
        assert link.ask(6, QUESTION) == Opinion(skipped="detector busy: sampled")
        clock.advance(6.0)
        link.look()
        given_up = dict(link.collect())
        assert given_up[1].problem == "detector: no answer within 5 s"
        assert set(given_up) == {1, 2, 3, 4, 5}
        assert link.ask(8, QUESTION) == Opinion(problem="detector: no answer within 5 s")
        clock.advance(6.0)
        wait(link, lambda: link.collect() == [] and link.line == "detector silent")
    finally:
        link.close()


@pytest.mark.parametrize("code", [DEAD, BABBLING], ids=["dead", "babbling"])
def test_a_process_that_is_none_is_unavailable_and_tried_again_later(tmp_path: Path, code: str) -> None:
    clock = ManualClock()
    link = made_of(tmp_path, code, clock)
    try:
        wait(link, lambda: link.collect() == [] and bool(link.problem))
        assert link.problem.startswith("detector: its process")
        assert link.ask(1, QUESTION) == Opinion(problem=link.problem)
    finally:
        link.close()


def test_a_restart_of_the_process_does_not_make_a_swapped_model_a_trusted_one(tmp_path: Path) -> None:
    model, clock = tmp_path / "model.bin", ManualClock()
    model.write_bytes(b"measured")
    loads = f"""
import hashlib, pathlib, socket, sys
from guard.checks.detector_link import Loaded, detector_frame
link, path = socket.socket(fileno=int(sys.argv[1])), {str(model)!r}
link.sendall(detector_frame(Loaded("m", files={{path: hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}})))
while link.recv(65536):
    pass
"""
    link = made_of(tmp_path, loads, clock)
    try:
        wait(link, lambda: link.collect() == [] and link.line == "detector m")
        model.write_bytes(b"something else")
        assert link._process is not None
        link._process.kill()
        wait(link, lambda: link.collect() == [] and "its process ended" in link._failed, 20.0)
        clock.advance(60.0)
        link.look()
        wait(link, lambda: link.collect() == [] and "not those of the start" in link._failed, 20.0)
        assert link.ask(1, QUESTION) is not None  # says why, asks nobody
        model.write_bytes(b"measured")
        clock.advance(600.0)
        link.look()
        wait(link, lambda: link.collect() == [] and link.line == "detector m")
    finally:
        link.close()
