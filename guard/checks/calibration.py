"""The calibrated numbers of the grounding check, read from `calibration.json` beside this file.

The file says on how many labelled pairs of which sets, and when, it was made; `python -m bench.checks --calibrate`
makes it anew. It holds weights and thresholds only, nothing of the sets themselves.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from slo.codec import NOT_JSON
from slo.errors import DataError

PATH = Path(__file__).with_name("calibration.json")


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of one language.

    intercept, weights: logistic model of one claim, in the order of `support.FEATURES`.
    length_shift: how much the logit of a long answer is lowered.
    thresholds: score from which an answer fails, by name. sample_count: labelled answers per set.
    cosine: (intercept, logit, cosine) of the second model that also sees the embedding; empty without one.
    """

    intercept: float
    weights: tuple[float, ...]
    length_shift: float
    thresholds: dict[str, float]
    sample_count: dict[str, int]
    cosine: tuple[float, ...] = ()


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. languages: "en" serves every script with spaces, "zh" the ones without."""

    made_on: str
    features: tuple[str, ...]
    embedder: str
    languages: dict[str, Language]


@lru_cache(maxsize=4)
def load_calibration(path: Path = PATH) -> Calibration:
    """Read and check the file.

    Raises:
        DataError: missing, damaged, or made for other features.
    """
    from guard.checks.support import FEATURES

    cure = "make it anew with `python -m bench.checks --calibrate`"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, *NOT_JSON) as error:
        raise DataError(f"{path.name}: cannot be used ({error}); {cure}") from error
    if found.features != FEATURES or any(len(lang.weights) != len(FEATURES) for lang in found.languages.values()):
        raise DataError(f"{path.name}: made for other features; {cure}")
    if not {"en", "zh"} <= found.languages.keys():
        raise DataError(f"{path.name}: languages are {', '.join(found.languages)}, need en and zh; {cure}")
    return found
