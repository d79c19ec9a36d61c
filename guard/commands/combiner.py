"""combiner: fit the model of the grounding check on labelled answers, and show where one came from."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from guard.commands.common import Groups, add_command, add_group, emit, program_version, progress
from slo.clock import SystemClock
from slo.errors import DataError

if TYPE_CHECKING:
    from guard.checks.calibration import Language
    from guard.checks.training_rows import Row


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    combiner = add_group(groups, "combiner", "the trained model of the grounding check")
    example = "sft-guard combiner train --data labelled.jsonl --out combiner.json"
    train = add_command(combiner, "train", run_train, "fit it on labelled answers (extra: train)", example)
    form = 'JSON lines {"question", "contexts", "answer", "hallucinated"}; "group": the source'
    train.add_argument("--data", nargs="+", type=Path, required=True, metavar="FILE", help=form)
    train.add_argument("--out", type=Path, required=True, help="where the calibration is written")
    weighed = "weigh the cosine of this embedder too, where the model is in doubt (for checks.transformer)"
    train.add_argument("--transformer", metavar="NAME", default="none", help=weighed)
    show = add_command(combiner, "show", run_show, "its provenance, sizes and thresholds", "sft-guard combiner show")
    show.add_argument("file", nargs="?", type=Path, help="default: the shipped one")


def run_train(args: argparse.Namespace) -> int:
    """Fit each language that has rows enough; the other keeps the shipped numbers, and the summary says so."""
    import msgspec

    from guard.checks.calibration import encode_calibration, load_calibration
    from guard.checks.training import fit
    from guard.checks.training_rows import read_features, read_labelled

    rows = [row for path in args.data for row in read_labelled(path)]
    if not rows:
        raise DataError(f"{args.data[0]}: no labelled answers; write one JSON object per line")
    progress(f"reading {len(rows)} labelled answers")
    read_features(rows)
    shipped = load_calibration()
    languages, kept = dict(shipped.languages), []
    for lang in sorted(languages):
        if any(r.lang == lang for r in rows):
            progress(f"fitting {lang}")
            languages[lang] = fit(rows, lang)
        else:
            kept.append(lang)
    languages, stamp, uncovered = _weigh_cosine(rows, languages, kept, args.transformer)
    made = msgspec.structs.replace(
        shipped,
        made_on=_today(),
        embedder=stamp,
        languages=languages,
        made_with=f"sft-guard combiner train, sft-guard {program_version()}",
    )
    args.out.write_bytes(encode_calibration(made))
    load_calibration(args.out)
    result = {
        "out": str(args.out),
        "rows": len(rows),
        "languages": {k: v.sample_count for k, v in languages.items() if k not in kept},
        "shipped_numbers_kept": kept,
        "thresholds": {k: v.thresholds for k, v in languages.items() if k not in kept},
        "transformer": stamp,
        "cosine": {k: list(v.cosine) for k, v in languages.items() if v.cosine},
    }
    fitted = ", ".join(f"{k} on {sum(languages[k].sample_count.values())} answers" for k in languages if k not in kept)
    note = f"; {', '.join(kept)}: no rows, the shipped numbers stay" if kept else ""
    note += f"; {', '.join(uncovered)}: not enough claims in doubt that {args.transformer} covers" if uncovered else ""
    emit(args, result, f"wrote {args.out}: {fitted}{note}")
    return 0


def _weigh_cosine(
    rows: list[Row], languages: dict[str, Language], kept: list[str], name: str
) -> tuple[dict[str, Language], str, list[str]]:
    """Languages with the weight of the cosine, the embedder's name with its fingerprint, and languages without one.

    Raises:
        DataError: no such embedder here.
    """
    import msgspec

    bare = {k: msgspec.structs.replace(v, cosine=()) for k, v in languages.items()}
    if name == "none":
        return bare, "", []
    from guard.checks.semantic import Semantic
    from guard.checks.training_cosine import embed_claims, fit_cosine, in_band
    from rag.embedding import embedder_status, load_embedder

    ok, line = embedder_status(name)
    embedder = load_embedder(name, threads=1) if ok else None
    if embedder is None:
        raise DataError(f"--transformer {name}: {line}")
    semantic = Semantic(embedder)
    uncovered = []
    for lang in sorted(set(languages) - set(kept)):
        mine = [r for r in rows if r.lang == lang and len(r.features) == 1 and in_band(r, bare[lang])]
        progress(f"{lang}: {len(mine)} claims in doubt")
        embed_claims(mine, semantic, _told(name, len(mine)))
        if cosine := fit_cosine(mine, lang, bare[lang]):
            bare[lang] = msgspec.structs.replace(bare[lang], cosine=cosine)
        else:
            uncovered.append(lang)
    return bare, semantic.name if any(v.cosine for v in bare.values()) else "", uncovered


def _told(name: str, count: int) -> Callable[[int], None]:
    return lambda done: progress(f"{done} of {count} read by {name}")


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(SystemClock().wall_s(), UTC).date().isoformat()


def run_show(args: argparse.Namespace) -> int:
    """Provenance of a file, after all its checks."""
    from guard.checks.calibration import PATH, load_calibration

    found = load_calibration(args.file or PATH)
    result = {
        "made_on": found.made_on,
        "made_with": found.made_with,
        "hash": found.numbers_hash,
        "embedder": found.embedder,
        "features": list(found.features),
        "languages": {
            k: {
                "sample_count": v.sample_count,
                "thresholds": v.thresholds,
                "tree_count": len(v.trees),
                "band": list(v.band),
            }
            for k, v in found.languages.items()
        },
    }
    lines = [f"made on {found.made_on} with {found.made_with}, hash {found.numbers_hash[:16]}"]
    for name, language in found.languages.items():
        sets = ", ".join(f"{n} {c}" for n, c in language.sample_count.items())
        cuts = ", ".join(f"{n} {c}" for n, c in language.thresholds.items())
        lines.append(f"{name}: {len(language.trees)} trees; answers: {sets}; thresholds: {cuts}")
    emit(args, result, "\n".join(lines))
    return 0
