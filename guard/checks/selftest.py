"""Golden pairs that a detector must tell apart before it may speak: `golden_pairs.json`, English and Chinese, our own.

They run at the start, every hour, and whenever a model was loaded anew. They are easy on purpose: a detector that gets
these wrong is broken or blind, and one that gets them right is not thereby good (docs/accuracy.md says how good).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from guard.checks.calibration import Calibration
from guard.checks.grounding import check_grounding
from guard.checks.in_doubt import Cosines
from slo.errors import DataError
from slo.types import CheckResult

PATH = Path(__file__).with_name("golden_pairs.json")
WRONG_RATIO = 0.10
"""Share of the pairs of a language that may be judged wrongly; above it the detector no longer separates them."""


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """language: en | zh. supported: what a person says."""

    language: str
    context: str
    answer: str
    supported: bool


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    language: str
    context: str
    answer: str
    supported: bool


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    contexts: dict[str, str]
    pairs: tuple[_Row, ...]


@lru_cache(maxsize=4)
def load_golden(path: Path = PATH) -> tuple[GoldenPair, ...]:
    """Read a file of golden pairs: {"version", "contexts": {name: text}, "pairs": [{"language", "context": name,
    "answer", "supported"}]}.

    Raises:
        DataError: missing, damaged, or a language without both kinds of pairs.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
        pairs = tuple(GoldenPair(r.language, found.contexts[r.context], r.answer, r.supported) for r in found.pairs)
    except OSError as error:
        raise DataError(f"{path}: golden pairs cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a file of golden pairs ({error})") from error
    except KeyError as error:
        raise DataError(f"{path}: a pair names the context {error}, which is not under `contexts`") from error
    for language in {p.language for p in pairs} or {"any language"}:
        if len({p.supported for p in pairs if p.language == language}) < 2:
            raise DataError(f"{path}: {language} needs supported and unsupported pairs; one kind alone tells nothing")
    return pairs


GOLDEN = load_golden()


def blind_languages(
    says_supported: Callable[[GoldenPair], bool | None], pairs: Sequence[GoldenPair] = GOLDEN
) -> dict[str, str]:
    """Language -> why the detector may not speak about it; languages that it tells apart are absent.

    says_supported: the detector; None counts as wrong. What it raises is the caller's business.
    """
    problems = {}
    for language in sorted({p.language for p in pairs}):
        mine = [p for p in pairs if p.language == language]
        wrong = [p.answer for p in mine if says_supported(p) is not p.supported]
        if len(wrong) > WRONG_RATIO * len(mine):
            problems[language] = (
                f"self-test: {len(wrong)} of {len(mine)} golden answers judged wrongly ({language}), "
                f"first: {wrong[0]!r}"
            )
    return problems


def selftest(calibration: Calibration, transformer: Cosines | None = None) -> str:
    """Why the grounding check may not be believed, "" when it tells the pairs of every language apart."""

    def says(pair: GoldenPair) -> bool:
        found = check_grounding("", pair.answer, (pair.context,), calibration, transformer=transformer)
        return found.result is CheckResult.PASS

    return "; ".join(blind_languages(says).values())
