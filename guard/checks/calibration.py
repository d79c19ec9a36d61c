"""The calibrated numbers of the grounding check, read from `calibration.json` beside this file.

The file says on how many labelled answers of which sets, and when, it was made, and carries a hash of its own numbers;
`sft-guard combiner train` makes one. It holds weights, trees and thresholds, nothing of the sets themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import msgspec

from guard.checks.combiner import Tree, check_tree
from slo.errors import DataError

PATH = Path(__file__).with_name("calibration.json")
THRESHOLDS = ("balanced", "fpr_01", "fpr_05", "fpr_10")
"""Best F1, and 1, 5 and 10 % of the supported answers flagged."""

MAX_BYTES = 8 * 2**20


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of one language.

    intercept, weights, trees: model of one claim (`combiner.log_odds`), in the order of `support.FEATURES`.
    length_shift: how much the logit of a long answer is lowered.
    thresholds: score from which an answer fails, by name. sample_count: labelled answers per set.
    cosine: (intercept, logit, cosine) of the second model that also sees the embedding; empty without one.
    band: claim probabilities between which a slower tier is asked.
    """

    intercept: float
    weights: tuple[float, ...]
    length_shift: float
    thresholds: dict[str, float]
    sample_count: dict[str, int]
    cosine: tuple[float, ...] = ()
    trees: tuple[Tree, ...] = ()
    band: tuple[float, float] = (0.15, 0.85)


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. languages: "en" serves every script with spaces, "zh" the ones without.

    embedder: with which `cosine` was made. made_with: command and version. numbers_hash: of everything else.
    """

    made_on: str
    features: tuple[str, ...]
    embedder: str
    languages: dict[str, Language]
    made_with: str = ""
    numbers_hash: str = ""


def hash_of(calibration: Calibration) -> str:
    """SHA-256 (hex) of the calibration without its hash."""
    bare = msgspec.structs.replace(calibration, numbers_hash="")
    return sha256(msgspec.json.encode(bare)).hexdigest()


def encode_calibration(calibration: Calibration) -> bytes:
    """The file, with its hash."""
    signed = msgspec.structs.replace(calibration, numbers_hash=hash_of(calibration))
    return msgspec.json.encode(signed) + b"\n"


@lru_cache(maxsize=4)
def load_calibration(path: Path = PATH) -> Calibration:
    """Read and check the file.

    Raises:
        DataError: missing, damaged, changed since it was made, or made for other features.
    """
    from guard.checks.support import FEATURES

    cure = "make it anew with `sft-guard combiner train`"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path.name}: over {MAX_BYTES} bytes; {cure}")
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DataError(f"{path.name}: cannot be used ({error}); {cure}") from error
    if found.features != FEATURES or any(len(lang.weights) != len(FEATURES) for lang in found.languages.values()):
        raise DataError(f"{path.name}: made for other features; {cure}")
    if not {"en", "zh"} <= found.languages.keys():
        raise DataError(f"{path.name}: languages are {', '.join(found.languages)}, need en and zh; {cure}")
    if found.numbers_hash != hash_of(found):
        raise DataError(f"{path.name}: changed since it was made (its hash does not fit); {cure}")
    for name, language in found.languages.items():
        _check(language, len(FEATURES), f"{path.name}: language {name}", cure)
    return found


def _check(language: Language, feature_count: int, place: str, cure: str) -> None:
    numbers = (language.intercept, language.length_shift, *language.weights, *language.cosine)
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{place}: a weight is no finite number; {cure}")
    if not _probabilities(language.thresholds) or "balanced" not in language.thresholds:
        raise DataError(f"{place}: thresholds must lie between 0 and 1, `balanced` among them; {cure}")
    if len(language.cosine) not in (0, 3) or not 0.0 <= language.band[0] <= language.band[1] <= 1.0:
        raise DataError(f"{place}: `cosine` has 3 numbers or none, `band` two between 0 and 1; {cure}")
    for i, tree in enumerate(language.trees):
        check_tree(tree, feature_count, f"{place}, tree {i}")


def _probabilities(thresholds: Mapping[str, float]) -> bool:
    return all(math.isfinite(t) and 0.0 <= t <= 1.0 for t in thresholds.values())
