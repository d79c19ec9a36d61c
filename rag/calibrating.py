"""Asks a knowledge base labelled questions and writes the thresholds file that routes.yaml names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import msgspec

from rag.calibration import Calibrated, Observed, calibrate
from rag.finetune.cursor import write_file
from rag.kb import KnowledgeBase
from rag.routing import Signals, signals
from rag.search import NGRAMS
from rag.text import language
from slo.codec import NOT_JSON
from slo.errors import DataError

Json = dict[str, object]


def signals_for(kb: KnowledgeBase, question: str, k: int = 3, mode: str = "hybrid") -> Signals:
    """What routing sees of a question."""
    result = kb.search(question, k, mode)
    return signals(
        [hit.similarity for hit in result.hits],
        confidence=result.confidence,
        trusted=result.similarity_by != NGRAMS,
        lang=language(question),
    )


def read_questions(path: Path) -> list[tuple[str, bool]]:
    """(question, answerable) of JSON lines {"question", "route": "kb" | "model"} or {"question", "answerable"}.

    Raises:
        DataError: with file and line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    found: list[tuple[str, bool]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = msgspec.json.decode(line)
        except NOT_JSON as error:
            raise DataError(f"{place}: not JSON ({error}); write one object a line") from error
        question = row.get("question") if isinstance(row, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{place}: no `question`")
        label = row.get("answerable", {"kb": True, "model": False}.get(str(row.get("route"))))
        if not isinstance(label, bool):
            raise DataError(f'{place}: who should answer? write "route": "kb" or "model", or "answerable": true')
        found.append((question, label))
    if not found:
        raise DataError(f"{path}: no questions")
    return found


def calibrate_kb(
    kb: KnowledgeBase,
    questions: Iterable[tuple[str, bool]],
    embedder: str,
    *,
    k: int = 3,
    seed: int = 1,
    tell: Callable[[int], None] = lambda done: None,
) -> Json:
    """The content of a thresholds file. embedder: name of the one attached, "" for none."""
    by_language: dict[str, list[Observed]] = {}
    for number, (question, answerable) in enumerate(questions, 1):
        seen = signals_for(kb, question, k)
        by_language.setdefault(seen.lang, []).append(Observed(seen, answerable, question))
        tell(number)
    languages = {lang: _shown(calibrate(rows, seed)) for lang, rows in sorted(by_language.items())}
    return {
        "version": 1,
        "embedder": embedder,
        "kb_version": kb.meta.kb_version,
        "content_id": kb.content_id,
        "k": k,
        "languages": languages,
    }


def write_thresholds(path: Path, thresholds: Json) -> None:
    """Raises DataError: it cannot be written."""
    write_file(path, msgspec.json.format(msgspec.json.encode(thresholds), indent=1) + b"\n")


def _shown(found: Calibrated) -> Json:
    interval = {"low": found.low, "high": found.high} if found.low is not None else None
    return {
        "line": asdict(found.line),
        "method": found.method,
        "threshold_interval": interval,
        "balanced_accuracy": found.balanced_accuracy if not found.note else None,
        "answered": found.answered.shown(),
        "kept_out": found.kept_out.shown(),
        "other_methods": dict(found.others),
        **({"note": found.note} if found.note else {}),
    }
