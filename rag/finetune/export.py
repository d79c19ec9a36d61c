"""`ft export` and `ft check` as functions: plain arguments in, the object of `--json` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rag.finetune.counting import counter_for, epochs_for, training_usd_per_million
from rag.finetune.cursor import NAME, read_cursor, write_cursor, write_file
from rag.finetune.rows import Example, Templates, examples_of
from rag.finetune.traffic import Redact, TrafficFilter, examples_of_traffic, group_questions, split_groups
from rag.finetune.validation import check_file, leaks, tokens_max
from rag.kb import KnowledgeBase
from rag.types import Document
from slo.codec import NOT_JSON
from slo.errors import DataError, RefusedError
from slo.types import Exchange

Json = dict[str, Any]
NOTES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go and for which model they are counted. validation_ratio: share of the groups kept for validation."""

    out: Path
    model: str = "gpt-4o-mini-2024-07-18"
    validation_ratio: float = 0.0
    overwrite: bool = False
    epochs: int | None = None
    training_usd: float | None = None

    @property
    def validation_out(self) -> Path:
        """The validation file beside the training file."""
        return self.out.with_name(f"{self.out.stem}.validation{self.out.suffix or '.jsonl'}")


def export_kb(
    directory: Path | str,
    target: Target,
    templates: Templates,
    data_date: str,
    *,
    cursor_path: Path | None = None,
    force_all: bool = False,
    since: int | None = None,
) -> Json:
    """Rows of what is new in a knowledge base; the cursor moves after the file is safe.

    Args:
        force_all: everything, exported before or not. since: documents after the first N, exported before or not.

    Raises:
        RefusedError: `exists`, the file is there already. DataError: knowledge base or cursor cannot be used.
    """
    kb = KnowledgeBase.open(directory)
    path = cursor_path or Path(directory) / NAME
    cursor = read_cursor(path)
    documents = kb.documents
    chosen: Sequence[Document] = cursor.new(documents)
    if since is not None:
        if not 0 <= since <= len(documents):
            raise DataError(f"--since {since}: the knowledge base has {len(documents)} documents; write 0 to that")
        chosen = documents[since:]
    if force_all:
        chosen = documents
    counts: Json = {"kb": len(documents), "exported_before": cursor.count_of(documents), "documents": len(chosen)}
    if not chosen:
        note = f"nothing new: KB {len(documents)}, exported {counts['exported_before']}"
        return {"rows": 0, "note": note, **counts}
    found = examples_of(chosen, templates, data_date)
    result = _written(found.examples, target)
    write_cursor(path, cursor.with_exported(chosen, data_date))
    without = [f"{doc_id}: {why}" for doc_id, why in found.without]
    result["warnings"] = [*without[:NOTES_SHOWN], *result["warnings"]]
    return {**result, **counts, "without_rows": len(without), "cursor": str(path)}


def export_traffic(
    rows: Iterable[tuple[Exchange, Mapping[str, Any] | None]],
    target: Target,
    wanted: TrafficFilter,
    redact: Redact,
    thumbs: Mapping[str, str],
    templates: Templates,
) -> Json:
    """Rows of production traffic. See `rag.finetune.traffic`."""
    system_of = {lang: words.system for lang, words in templates.by_language.items()}
    found = examples_of_traffic(rows, wanted, redact, thumbs, system_of)
    counts: Json = {"exchanges": found.seen_count, "left_out": dict(sorted(found.left_out.items()))}
    if not found.examples:
        return {"rows": 0, "note": f"nothing to learn in {found.seen_count} exchanges", **counts}
    return {**_written(found.examples, target), **counts}


def reset_cursor(path: Path) -> Json:
    """Forget what was exported."""
    existed = path.exists()
    path.unlink(missing_ok=True)
    return {"reset": existed, "cursor": str(path)}


def check_files(train: Path, validation: Path | None, model: str, epochs: int | None, usd: float | None) -> Json:
    """What the API would say of the files, and what training costs.

    Raises:
        DataError: a file cannot be read.
    """
    counter = counter_for(model)
    reports = []
    for path in (train, *([validation] if validation else [])):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); make it with `sft-guard ft export`") from error
        reports.append(check_file(data, path.name, counter.row, tokens_max(model)))
    first, held = reports[0], reports[1] if len(reports) > 1 else None
    warnings = [*first.warnings]
    problems = [*first.problems]
    if held is not None:
        # A validation file may be short: the API asks ten examples of the training file only.
        problems += [text for text in held.problems if "wants at least" not in text]
        warnings += leaks(first, held)
    epoch_count = epochs or epochs_for(first.example_count)
    price = training_usd_per_million(model, usd)
    trained = first.token_count * epoch_count
    return {
        "examples": first.example_count,
        "validation_examples": held.example_count if held else 0,
        "tokens": first.token_count,
        "longest_tokens": first.longest_tokens,
        "tokens_by": counter.name,
        "tokens_exact": counter.exact,
        "epochs": epoch_count,
        "trained_tokens": trained,
        "estimated_usd": round(trained * price / 1e6, 6) if price is not None else None,
        "usd_per_million": price,
        "problems": problems,
        "warnings": warnings,
    }


def read_thumbs(path: Path) -> dict[str, str]:
    """exchange id -> up or down, of JSON lines {"exchange_id", "thumb"}; the last word on an answer counts.

    Raises:
        DataError: with file and line.
    """
    thumbs: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            thumb, exchange_id = row["thumb"], row["exchange_id"]
        except (*NOT_JSON, KeyError) as error:
            raise DataError(f'{path}:{number}: no thumb ({error}); write {{"exchange_id", "thumb": "up"}}') from error
        if thumb not in ("up", "down"):
            raise DataError(f"{path}:{number}: thumb {thumb!r}; write up or down")
        thumbs[str(exchange_id)] = thumb
    return thumbs


def _written(examples: Sequence[Example], target: Target) -> Json:
    train, validation = list(examples), list[Example]()
    if target.validation_ratio > 0:
        # Of documents too: two documents may ask nearly the same.
        train, validation = split_groups(_regrouped(examples), target.validation_ratio)
    files = [(target.out, train), *([(target.validation_out, validation)] if validation else [])]
    for path, _ in files:
        if path.exists() and not target.overwrite:
            raise RefusedError("exists", f"{path}: is there already; name another --out or say --overwrite")
    for path, rows in files:
        write_file(path, b"".join(msgspec.json.encode(example.row()) + b"\n" for example in rows))
    checked = check_files(
        target.out, target.validation_out if validation else None, target.model, target.epochs, target.training_usd
    )
    names = {"out": str(target.out), **({"validation_out": str(target.validation_out)} if validation else {})}
    return {"rows": len(examples), **names, **checked}


def _regrouped(examples: Sequence[Example]) -> list[Example]:
    """Examples whose group joins that of their document and that of their question."""
    by_question = group_questions([example.question for example in examples])
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for example, group in zip(examples, by_question, strict=True):
        parent[root(f"q:{group}")] = root(f"d:{example.group}")
    return [
        Example(example.system, example.question, example.answer, root(f"d:{example.group}")) for example in examples
    ]
