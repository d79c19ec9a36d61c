"""`sft-guard grade`: the quality checks on given answers, offline, one JSON object per line in and out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from guard.checks.spec import CheckSpec
from guard.checks.suite import CheckSuite, redacted
from guard.checks.worker import load_semantic
from guard.ports import ExchangeText
from slo.codec import finding_to_dict
from slo.errors import DataError
from slo.types import CheckResult

LINE_BYTES = 8 * 2**20


def grade(rows: Iterable[Mapping[str, Any] | str | bytes], spec: CheckSpec) -> Iterator[dict[str, Any]]:
    """Grade rows {"id", "question", "contexts", "answer"}; "reference" is optional.

    Yields per good row {"id", "hallucinated": bool, "score": 0..1 (higher = less supported), "findings": [...]}. A row
    whose contexts are null is unchecked: `hallucinated` and `score` are null. A row that cannot be read yields
    {"error": "line N: ...", "line": N, "id": ... when known}, so nothing is lost silently. Blank lines are skipped.

    Raises:
        ConfigError, DataError: the spec names rules or a calibration that cannot be used.
    """
    suite = CheckSuite(replace(spec, drift=False))  # drift needs traffic, not rows
    if spec.embedder != "none":
        suite.embedder_line, suite.semantic = load_semantic(spec)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str | bytes) and not row.strip():
            continue
        try:
            row_id, text = read_row(row, number)
        except DataError as error:
            yield {"error": str(error), "line": number}
            continue
        findings = redacted(suite.check(text, release="", arm=""))
        grounding = next(f for f in findings if f.check == "grounding")
        known = grounding.result in (CheckResult.PASS, CheckResult.FAIL)
        yield {
            "id": row_id,
            "hallucinated": grounding.result is CheckResult.FAIL if known else None,
            "score": round(1.0 - grounding.score, 6) if known and grounding.score is not None else None,
            "findings": [finding_to_dict(f) for f in findings],
        }


def read_row(row: Mapping[str, Any] | str | bytes, number: int) -> tuple[Any, ExchangeText]:
    """Id and words of one row.

    Raises:
        DataError: with the line number, what is wrong and what to write.
    """
    place = f"line {number}"
    if isinstance(row, str | bytes):
        if len(row) > LINE_BYTES:
            raise DataError(f"{place}: {len(row)} characters, at most {LINE_BYTES}; split the row")
        try:
            row = msgspec.json.decode(row.removeprefix(b"\xef\xbb\xbf") if isinstance(row, bytes) else row)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise DataError(f"{place}: not JSON ({error}); write one object per line") from error
    if not isinstance(row, Mapping):
        raise DataError(f'{place}: a {type(row).__name__}; write an object {{"id", "question", "contexts", "answer"}}')
    if missing := [name for name in ("id", "question", "contexts", "answer") if name not in row]:
        raise DataError(f"{place}: `{missing[0]}` is missing; write id, question, contexts and answer")
    for name in ("question", "answer"):
        if not isinstance(row[name], str):
            raise DataError(f"{place}: `{name}` is a {type(row[name]).__name__}; write a string")
    contexts, reference = row["contexts"], row.get("reference", "")
    if contexts is not None and not (isinstance(contexts, list | tuple) and all(isinstance(c, str) for c in contexts)):
        raise DataError(f"{place}: `contexts` must be a list of strings, [] for nothing found or null for unknown")
    if not isinstance(reference, str):
        raise DataError(f"{place}: `reference` is a {type(reference).__name__}; write a string")
    return row["id"], ExchangeText(
        row["question"], row["answer"], None if contexts is None else tuple(contexts), None, reference
    )
