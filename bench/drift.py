"""`python -m bench.drift`: how soon a shift of a tenth of the questions is found, and how often nothing is called one.

Healthy traffic has two times: the reference comes from the first, calibration and test from the second, so that its own
slow change is in the spread. A run is one window of questions, `--share` of them from the shift. Signal: past what
5 % of ordinary windows pass. Alarm: past what 0.01 % pass, or two in a row past what 1 % pass. A week is 70 windows
without a shift.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.drift_data import Scene, chinese, english
from guard.checks.drifting.alarm import Alarm
from guard.checks.drifting.novelty import Novelty, fit, plain
from rag.embedding import Embedder, load_embedder

Matrix = npt.NDArray[np.float32]
REFERENCE_COUNT = 12_000
WINDOW = 200
WEEK = 70
CALIBRATION_COUNT = 1_500
SHIFT_COUNT = 2_000


@dataclass(frozen=True, slots=True)
class Row:
    """One scene read by one set of embedders. Ratios over `run_count` windows; `weeks` with at least one alarm."""

    scene: str
    reader: str
    false_signal_ratio: float
    found_ratio: float
    plain_false_ratio: float
    plain_found_ratio: float
    plain_own_ratio: float
    false_alarm_ratio: float
    alarm_ratio: float
    alarm_two_ratio: float
    delay: float
    week_alarm_ratio: float
    run_count: int


class Reader:
    """Embeds each text once."""

    def __init__(self, names: list[str]) -> None:
        self.embedders: list[Embedder] = []
        for name in names:
            found = load_embedder(name)
            if found is None:
                raise SystemExit(f"embedder {name} is not installed here")
            self.embedders.append(found)
        self._known: list[dict[str, Matrix]] = [{} for _ in self.embedders]

    def __call__(self, texts: list[str]) -> list[Matrix]:
        """Per embedder, vectors of shape (count, dim)."""
        found = []
        for embedder, known in zip(self.embedders, self._known, strict=True):
            new = [t for t in dict.fromkeys(texts) if t not in known]
            for at in range(0, len(new), 256):
                known.update(zip(new[at : at + 256], embedder.embed(new[at : at + 256]), strict=True))
            found.append(np.stack([known[t] for t in texts]))
        return found


def measure(scene: Scene, reader: Reader, label: str, *, seeds: int, runs: int, share: float) -> Row:
    """All figures of one scene: `seeds` models, `runs` windows of each kind for each."""
    count = round(share * WINDOW)
    sums: dict[str, list[float]] = {}

    def note(name: str, values: npt.NDArray[np.bool_] | list[float]) -> None:
        sums.setdefault(name, []).extend(float(v) for v in values)

    for seed in range(seeds):
        chance = np.random.default_rng(seed)
        first = [scene.reference[i] for i in chance.permutation(len(scene.reference))[:REFERENCE_COUNT]]
        second = [scene.later[i] for i in chance.permutation(len(scene.later))]
        half = min(CALIBRATION_COUNT, len(second) // 2)
        learnt, fresh = [*first, *second[:half]], second[half:]
        shifted = [scene.shifted[i] for i in chance.permutation(len(scene.shifted))[:SHIFT_COUNT]]
        model = fit(
            learnt, reader([plain(q) for q in learnt]), tuple(e.fingerprint for e in reader.embedders),
            window=WINDOW, seed=seed, reference_count=len(first),
        )  # fmt: skip
        ours, theirs = _scored(model, reader, fresh), _scored(model, reader, shifted)
        calibrating = _scored(model, reader, second[:half])
        mean, deviation = calibrating[2].mean(), calibrating[2].std() * np.sqrt(1 / WINDOW + 1 / half)

        def effects(strange: int, ours: _Scored = ours, theirs: _Scored = theirs, chance: np.random.Generator = chance,
                    model: Novelty = model, mean: float = mean, deviation: float = deviation) -> Matrix:  # fmt: skip
            found = []
            for _ in range(runs):
                a = chance.choice(len(ours[0]), WINDOW - strange, replace=False)
                b = chance.choice(len(theirs[0]), strange, replace=False)
                logits, vectors, nearest = (np.concatenate([x[a], y[b]]) for x, y in zip(ours, theirs, strict=True))
                window = model.judge(logits, vectors)
                found.append((window.effect, (nearest.mean() - mean) / deviation))
            return np.array(found)

        still, moved = effects(0), effects(count)
        low, twice, high = model.limits
        note("false_signal", still[:, 0] > low)
        note("found", moved[:, 0] > low)
        note("plain_false", still[:, 1] > 1.645)
        note("plain_found", moved[:, 1] > 1.645)
        note("plain_own", moved[:, 1] > np.quantile(still[:, 1], 0.95))
        note("false_alarm", still[:, 0] > high)
        note("alarm", moved[:, 0] > high)
        note(
            "alarm_two",
            (moved[:-1, 0] > high) | (moved[1:, 0] > high) | (moved[:, 0] > twice)[1:] & (moved[:-1, 0] > twice),
        )
        note("delay", _delays(model, ours, theirs, count, chance))
        note("weeks", [_week(still[chance.choice(len(still), WEEK), 0], model) for _ in range(20)])
    mean_of = {name: round(float(np.mean(values)), 3) for name, values in sums.items()}
    return Row(
        scene.name, label, mean_of["false_signal"], mean_of["found"], mean_of["plain_false"], mean_of["plain_found"],
        mean_of["plain_own"], mean_of["false_alarm"], mean_of["alarm"], mean_of["alarm_two"],
        float(np.median(sums["delay"])), mean_of["weeks"], seeds * runs,
    )  # fmt: skip


_Scored = tuple[Matrix, Matrix, Matrix]


def _scored(model: Novelty, reader: Reader, questions: list[str]) -> _Scored:
    """(logits, vectors in the first space, distance to the nearest of the reference)."""
    from guard.checks.drifting.novelty import codes

    vectors = reader([plain(q) for q in questions])
    features = model.features(vectors, [codes(q) for q in questions])
    return model.logits(features), vectors[0], features[:, 0]


def _delays(model: Novelty, ours: _Scored, theirs: _Scored, count: int, chance: np.random.Generator) -> list[float]:
    """Questions from the shift to the first signal: a full healthy window, then looks every fifth of a window."""
    found = []
    step = WINDOW // 5
    for _ in range(40):
        healthy = chance.choice(len(ours[0]), WINDOW, replace=False)
        stream = [(ours, int(i)) for i in healthy]
        signal = 2.0 * WINDOW
        for look in range(10):
            strange = round(count / 5)
            added = [(ours, int(i)) for i in chance.choice(len(ours[0]), step - strange)]
            added += [(theirs, int(i)) for i in chance.choice(len(theirs[0]), strange)]
            stream = (stream + added)[-WINDOW:]
            logits, vectors = (np.stack([pool[part][i] for pool, i in stream]) for part in (0, 1))
            if model.judge(logits, vectors).effect > model.limits[0]:
                signal = float((look + 1) * step)
                break
        found.append(signal)
    return found


def _week(effects: Matrix, model: Novelty) -> float:
    alarm = Alarm(model.limits)
    return float("alarm" in {alarm.take(float(e)) for e in effects})


def table_of(rows: list[Row], share: float) -> str:
    """Markdown."""
    head = (
        "| traffic, shift | read by | false signals | found within 200 | mean max-cosine: false / found | "
        "false alarms | alarm within 200 / 400 | median delay | weeks with an alarm |\n" + "|---" * 9 + "|"
    )
    lines = [
        f"| {r.scene} | {r.reader} | {r.false_signal_ratio:.1%} | {r.found_ratio:.1%} | "
        f"{r.plain_false_ratio:.1%} / {r.plain_found_ratio:.1%} ({r.plain_own_ratio:.1%} at its own 5 %) | "
        f"{r.false_alarm_ratio:.2%} | {r.alarm_ratio:.1%} / {r.alarm_two_ratio:.1%} | {r.delay:.0f} | "
        f"{r.week_alarm_ratio:.0%} |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the evaluation sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--readers", default="all-MiniLM-L6-v2+hashed-ngram,static+hashed-ngram", help="for English")
    parser.add_argument("--scene", default="", help="only scenes whose name has this")
    parser.add_argument("--write", action="store_true", help="replace the section of docs/accuracy.md")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    if not (args.data / "intents").is_dir():
        print(f"bench.drift: skipped, no evaluation sets in {args.data} (--data DIR)", file=sys.stderr)
        return 2
    rows = []
    work = [(name, english(args.data)) for name in args.readers.split(",") if name]
    work.append(("hashed-ngram-1024", chinese(args.data, 0)))
    for names, scenes in work:
        reader = Reader(names.split("+"))
        for scene in scenes:
            if re.search(args.scene, scene.name):
                rows.append(measure(scene, reader, names, seeds=args.seeds, runs=args.runs, share=args.share))
                print(table_of(rows[-1:], args.share).splitlines()[-1], file=sys.stderr)
    text = table_of(rows, args.share)
    if args.write:
        from bench.report_section import write_section

        write_section("drift", text)
    print(json.dumps({"rows": [asdict(r) for r in rows]}) if args.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
