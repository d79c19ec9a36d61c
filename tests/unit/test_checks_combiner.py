"""The combiner: its model by hand, a damaged file, and training on a few hundred made-up answers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest

from guard.checks.calibration import Calibration, encode_calibration, load_calibration
from guard.checks.combiner import Tree, check_tree, log_odds
from guard.checks.support import FEATURES
from guard.cli import main
from slo.errors import DataError

STUMP = Tree((0, -1, 1, -1, -1), (0.5, -1.0, 0.25, 2.0, 3.0), (1, 0, 3, 0, 0), (2, 0, 4, 0, 0))


@pytest.mark.parametrize(("features", "expected"), [
    ((0.5, 0.9), 0.1 + 0.5 - 1.0),  # at the threshold: left
    ((0.6, 0.2), 0.1 + 0.6 + 2.0),
    ((0.6, 0.3), 0.1 + 0.6 + 3.0),
], ids=["left", "right-left", "right-right"])  # fmt: skip
def test_log_odds_by_hand(features: tuple[float, float], expected: float) -> None:
    assert log_odds(features, 0.1, (1.0, 0.0), (STUMP,)) == pytest.approx(expected)


@pytest.mark.parametrize("tree", [
    Tree((), (), (), ()),
    Tree((0,), (0.5,), (0,), (0,)),
    Tree((0, -1, -1), (0.5, 1.0, 1.0), (1, 0, 0), (3, 0, 0)),
    Tree((9, -1, -1), (0.5, 1.0, 1.0), (1, 0, 0), (2, 0, 0)),
    Tree((0, -1, -1), (float("nan"), 1.0, 1.0), (1, 0, 0), (2, 0, 0)),
    Tree((0, -1, -1), (0.5, 1.0), (1, 0, 0), (2, 0, 0)),
], ids=["empty", "loop", "outside", "no-feature", "nan", "lengths"])  # fmt: skip
def test_a_tree_that_cannot_be_walked_is_refused(tree: Tree) -> None:
    with pytest.raises(DataError, match="train it anew"):
        check_tree(tree, 2, "x.json, tree 0")


def _write(path: Path, calibration: Calibration) -> Path:
    path.write_bytes(encode_calibration(calibration))
    return path


def test_a_file_whose_numbers_were_changed_is_refused(tmp_path: Path) -> None:
    raw = encode_calibration(load_calibration())
    number = f'"intercept":{load_calibration().languages["en"].intercept}'.encode()
    path = tmp_path / "c.json"
    path.write_bytes(raw)
    assert load_calibration(path) == load_calibration()
    changed = tmp_path / "changed.json"
    changed.write_bytes(raw.replace(number, number + b"1", 1))
    with pytest.raises(DataError, match="changed since it was made"):
        load_calibration(changed)


@pytest.mark.parametrize(("change", "says"), [
    ({"thresholds": {"balanced": 1.5}}, "thresholds must lie between 0 and 1"),
    ({"thresholds": {"fpr_05": 0.5}}, "`balanced` among them"),
    ({"band": (0.9, 0.1)}, "`band` two between 0 and 1"),
    ({"weights": (1.0,)}, "made for other features"),
], ids=["over-one", "no-balanced", "band", "weights"])  # fmt: skip
def test_a_signed_file_with_senseless_numbers_is_refused(change: dict[str, object], says: str, tmp_path: Path) -> None:
    shipped = load_calibration()
    english = msgspec.structs.replace(shipped.languages["en"], **change)  # type: ignore[arg-type]
    made = msgspec.structs.replace(shipped, languages={**shipped.languages, "en": english})
    with pytest.raises(DataError, match=says):
        load_calibration(_write(tmp_path / "c.json", made))


def test_train_fits_english_and_keeps_the_shipped_chinese(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="needs the `train` extra")
    data, out = tmp_path / "labelled.jsonl", tmp_path / "c.json"
    rows = []
    for i in range(60):
        context = f"Form {i} of the travel office is signed by the controller of building {i + 7} within {i + 2} days."
        rows.append({"question": "?", "contexts": [context], "answer": context, "hallucinated": False})
        rows.append({"question": "?", "contexts": [context], "hallucinated": True,
                     "answer": f"Cafeterias serve vegetarian soup number {i} to visitors on Friday."})  # fmt: skip
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main(["combiner", "train", "--data", str(data), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["languages"], said["shipped_numbers_kept"]) == ({"en": {"labelled": 120}}, ["zh"])
    made, shipped = load_calibration(out), load_calibration()
    assert made.languages["zh"] == shipped.languages["zh"]
    worst, best = [1.0] * len(FEATURES), [0.0] * len(FEATURES)
    english = made.languages["en"]
    good = log_odds(best, english.intercept, english.weights, english.trees)
    assert log_odds(worst, english.intercept, english.weights, english.trees) > good
    assert main(["combiner", "show", str(out)]) == 0
    assert "labelled 120" in capsys.readouterr().out


@pytest.mark.parametrize(("line", "says"), [
    ('{"question":"?","contexts":["a"],"answer":"b"}', "line 1: `hallucinated` must be true or false"),
    ('{"question":"?","contexts":null,"answer":"b","hallucinated":true}', "line 1: `contexts` is null"),
    ("[1]", "line 1"),
    ("{", "line 1: not JSON"),
    ('{"question":"?","contexts":["a"],"answer":"b","hallucinated":true}', "language en: fewer than 40"),
    ("", "no labelled answers"),
], ids=["no-label", "no-contexts", "list", "broken", "too-few", "empty"])  # fmt: skip
def test_rows_that_cannot_be_learned_from_are_one_clear_error(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="needs the `train` extra")
    data = tmp_path / "l.jsonl"
    data.write_text(line + "\n", encoding="utf-8")
    assert main(["combiner", "train", "--data", str(data), "--out", str(tmp_path / "o.json")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o.json").exists()


def _grown(chance: random.Random, leaves: int, feature_count: int) -> Tree:
    """A tree that grows at random places; thresholds are round numbers, so that features meet them."""
    feature, threshold, left, right = [-1], [chance.uniform(-1, 1)], [0], [0]
    while sum(at < 0 for at in feature) < leaves:
        node = chance.choice([i for i, at in enumerate(feature) if at < 0])
        feature[node], threshold[node] = chance.randrange(feature_count), chance.randint(0, 4) / 4
        left[node], right[node] = len(feature), len(feature) + 1
        for _ in range(2):
            feature.append(-1)
            threshold.append(chance.uniform(-1, 1))
            left.append(0)
            right.append(0)
    return Tree(tuple(feature), tuple(threshold), tuple(left), tuple(right))


def _walked(tree: Tree, features: tuple[float, ...]) -> float:
    node = 0
    while tree.feature[node] >= 0:
        goes_left = features[tree.feature[node]] <= tree.threshold[node]
        node = tree.left[node] if goes_left else tree.right[node]
    return tree.threshold[node]


def test_all_trees_at_once_are_each_tree_walked_alone() -> None:
    chance = random.Random(1)
    for _ in range(60):
        trees = tuple(_grown(chance, chance.randint(1, 12), 5) for _ in range(chance.randint(1, 9)))
        for tree in trees:
            check_tree(tree, 5, "tree")
        for _ in range(20):
            features = tuple(chance.randint(-1, 5) / 4 + chance.choice((0.0, 0.01)) for _ in range(5))
            alone = 0.5 + sum(0.25 * x for x in features)
            for tree in trees:
                alone += _walked(tree, features)
            assert log_odds(features, 0.5, (0.25,) * 5, trees) == alone
