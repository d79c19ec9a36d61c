"""`python -m bench.crossencoder.report`: the cross-encoder beside the combiner, on sets that neither was trained on.

Takes the scores that `bench/crossencoder/train.py` wrote. A set that was left out is scored by numbers fitted on the
other English sets, combiner and cross-encoder alike; within the sets, both are cross-fitted by thirds of the sources.
Mixed means the mean of the two log odds of a claim; nothing about the mixing was fitted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from bench.checks import ROOT, load_rows
from bench.checks_report import NAMES
from bench.crossencoder.pairs import CLAIM, SETS
from bench.report_section import table, write_section
from guard.checks.calibration import Language
from guard.checks.grounding import sigmoid
from guard.checks.training import fit, score_of
from guard.checks.training_rows import Row, read_features

ENGLISH = ("ragtruth", "begin", "factscore")
WAYS = ("combiner", "cross-encoder", "mixed", "mixed in the band")
CLIP = 6.0
COMMANDS = """python -m bench.crossencoder.pairs --out DIR
python bench/crossencoder/train.py --data DIR/pairs.npz --weights DIR/minilm.npz --epochs 3 --keep --out DIR
python -m bench.crossencoder.report --pairs DIR/pairs.npz --scores DIR --write"""

Logits = dict[tuple[int, int], float]
"""(row, claim) -> log odds of being unsupported."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What of `pairs.npz` says which claim a score belongs to."""

    set_name: list[str]
    origin: np.ndarray
    row: np.ndarray
    claim: np.ndarray
    bad: np.ndarray
    fold: np.ndarray


def read_pairs(path: Path) -> Pairs:
    """Without the tokens. A claim whose own label is not known stands there as -1 - its index."""
    raw = np.load(path)
    index = raw["claim_index"].astype(int)
    names = [SETS[i] for i in raw["set"]]
    return Pairs(names, raw["origin"], raw["row"], np.where(index < 0, -1 - index, index), raw["bad"], raw["fold"])


def read_scores(path: Path, pairs: Pairs) -> tuple[Logits, Logits]:
    """(of answers, of the project's near-miss pairs)."""
    raw = np.load(path)
    answers: Logits = {}
    near: Logits = {}
    for pair, logit in zip(raw["pair"], raw["logit"], strict=True):
        if pairs.origin[pair] == CLAIM:
            into = near if pairs.set_name[pair] == "near-miss" else answers
            into[int(pairs.row[pair]), int(pairs.claim[pair])] = float(logit)
    return answers, near


def way(name: str, row: int, said: Logits, language: Language) -> Callable[[int, float], float] | None:
    """What `score_of` takes: how a claim's two log odds become one probability."""
    if name == "combiner":
        return None

    def adjust(i: int, p: float) -> float:
        other = said[row, i]
        if name == "cross-encoder":
            return sigmoid(other)
        if name == "mixed in the band" and not language.band[0] < p < language.band[1]:
            return p
        return mixed(p, other)

    return adjust


def mixed(probability: float, logit: float) -> float:
    """Mean of two log odds, each clipped to +-6.

    >>> round(mixed(0.5, 2.0), 3)
    0.731
    """
    p = min(max(probability, 1e-6), 1 - 1e-6)
    own = float(np.log(p / (1 - p)))
    return sigmoid((max(-CLIP, min(CLIP, own)) + max(-CLIP, min(CLIP, logit))) / 2)


def transferred(rows: list[Row], pairs: Pairs, scores: Path, flavour: str = "") -> dict[str, dict[str, float]]:
    """AUROC per set and way, all numbers from the other sets."""
    found: dict[str, dict[str, float]] = {}
    for name in ENGLISH:
        path = scores / f"scores-out-{name}{flavour}.npz"
        mine = [(i, r) for i, r in enumerate(rows) if r.name == name]
        if not path.exists() or not mine:
            continue
        said, _ = read_scores(path, pairs)
        language = fit([r for r in rows if r.name != name], "en")
        labels = [r.unsupported for _, r in mine]
        found[name] = {
            w: float(roc_auc_score(labels, [score_of(r, language, way(w, i, said, language)) for i, r in mine]))
            for w in WAYS
        }
    return found


def within(rows: list[Row], pairs: Pairs, scores: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """(AUROC, F1) per set and way, cross-fitted by thirds; the cut of a third comes from the other two."""
    names = zip(pairs.row, pairs.fold, pairs.set_name, strict=True)
    third = {int(r): int(f) for r, f, name in names if r >= 0 and name in ENGLISH}
    known = [scores / f"scores-fold-{k}.npz" for k in range(3)]
    if not all(path.exists() for path in known):
        return {}
    score: dict[str, dict[int, float]] = {w: {} for w in WAYS}
    for k, path in enumerate(known):
        said, _ = read_scores(path, pairs)
        language = fit([r for i, r in enumerate(rows) if third.get(i) != k], "en")
        for i, row in enumerate(rows):
            if third.get(i) == k:
                for w in WAYS:
                    score[w][i] = score_of(row, language, way(w, i, said, language))
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name in ENGLISH:
        mine = [i for i in third if rows[i].name == name]
        labels = np.array([rows[i].unsupported for i in mine])
        found[name] = {}
        for w in WAYS:
            s = np.array([score[w][i] for i in mine])
            flagged = np.zeros(len(mine), dtype=bool)
            for k in range(3):
                here = np.array([third[i] == k for i in mine])
                cuts = np.quantile(s[~here], np.linspace(0.02, 0.98, 97))
                cut = max(cuts, key=lambda t: f1_score(labels[~here], s[~here] >= t))
                flagged[here] = s[here] >= cut
            found[name][w] = float(roc_auc_score(labels, s)), float(f1_score(labels, flagged))
    return found


def near_text(pairs: Pairs, path: Path) -> str:
    """How well a model that saw all sets orders the project's own English near misses."""
    _, said = read_scores(path, pairs)
    twins = sorted({row for row, _ in said})
    ordered = sum(said[t, 1] > said[t, 0] for t in twins)
    both = sum(said[t, 1] > 0 > said[t, 0] for t in twins)
    return (
        f"Of the {len(twins)} English near-miss pairs (never trained on) the model of all sets puts {ordered} in the "
        f"right order and {both} on the two sides of one half."
    )


def text(rows: list[Row], pairs: Pairs, scores: Path) -> str:
    """The section of docs/accuracy.md."""
    moved = transferred(rows, pairs, scores)
    lines = [[NAMES[n], *(f"{found[w]:.3f}" for w in WAYS)] for n, found in moved.items()]
    parts = [
        f"```sh\n{COMMANDS}\n```",
        "AUROC on a set that took no part in training, neither of the combiner nor of the cross-encoder:",
        table(["set", *WAYS], lines),
    ]
    inside = within(rows, pairs, scores)
    if inside:
        cells = [[NAMES[n], *(f"{f[w][0]:.3f} / {100 * f[w][1]:.1f}" for w in WAYS)] for n, f in inside.items()]
        parts += [
            "AUROC / F1 on sources that took no part, other sources of the same set did:",
            table(["set", *WAYS], cells),
        ]
    for flavour, what in (("-real", "without pairs made by rule or from questions"), ("-noqa", "without questions")):
        if other := transferred(rows, pairs, scores, flavour):
            said = ", ".join(f"{NAMES[n]} {f['cross-encoder']:.3f} (mixed {f['mixed']:.3f})" for n, f in other.items())
            parts.append(f"The cross-encoder trained {what}, on a set left out: {said}.")
    if (scores / "scores-final.npz").exists():
        parts.append(near_text(pairs, scores / "scores-final.npz"))
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Print the section, or write it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.crossencoder.report", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "grounding", help="folder of sets"
    )
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.npz")
    parser.add_argument("--scores", type=Path, required=True, help="folder with scores-*.npz")
    parser.add_argument("--write", action="store_true", help="into docs/accuracy.md")
    args = parser.parse_args(argv)
    rows = [r for r in load_rows(args.data) if r.lang == "en"]
    if not rows:
        print(f"SKIPPED: no development sets in {args.data}; pass --data DIR", file=sys.stderr)
        return 2
    pairs = read_pairs(args.pairs)
    read_features(rows)
    counts = np.bincount(
        pairs.row[(pairs.origin == CLAIM) & (np.array(pairs.set_name) != "near-miss")], minlength=len(rows)
    )
    if [len(r.claims) for r in rows] != counts.tolist():
        print(
            "claims are read otherwise than when the pairs were made; make them anew and train again", file=sys.stderr
        )
        return 2
    said = text(rows, pairs, args.scores)
    print(said)
    if args.write:
        write_section("cross-encoder", said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
