"""lora rules: what the model gets wrong about a known topic is replaced; rules proposed from confusions."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from guard.commands.common import Groups, add_command, add_group, emit, needs_extra, progress, to_json
from slo.errors import DataError


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    rules = add_group(lora, "rules", "rules behind the model")
    about = 'answers after the rules: JSON lines {"question", "answer"} in, the same with text, how and detail out'
    apply = add_command(rules, "apply", run_apply, about,
                        "sft-guard lora rules apply --rules rules.yaml --kb kb < answers.jsonl")  # fmt: skip
    apply.add_argument("--rules", type=Path, required=True, metavar="FILE", help="rules.yaml")
    apply.add_argument("file", type=Path, nargs="?", help="JSON lines; standard input without it")
    suggest = add_command(rules, "suggest", run_suggest, "propose rules from what was mixed up, as YAML to mend",
                          "sft-guard lora rules suggest run/evaluation.json --kb kb")  # fmt: skip
    suggest.add_argument("evaluation", type=Path, help='JSON with "rows": [{"question", "wanted", "given"}]')
    for parser in (apply, suggest):
        parser.add_argument("--kb", type=Path, required=True, metavar="DIR", help="directory of the knowledge base")
        parser.set_defaults(run=needs_extra("lora", parser.get_default("run")))


def _documents(directory: Path) -> dict[str, str]:
    from rag.kb import KnowledgeBase

    return {document.doc_id: document.text for document in KnowledgeBase.open(directory).documents}


def run_apply(args: argparse.Namespace) -> int:
    """One line out for each line in; the last line of `--json` is the count."""
    from lora.postprocess import load_rules
    from rag.answer_rules import How

    processor = load_rules(args.rules, _documents(args.kb))
    counts: Counter[str] = Counter()
    for place, row in _rows(args.file):
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            raise DataError(f'{place}: write {{"question": "...", "answer": "..."}}')
        found = processor.process(question, answer)
        counts[found.how.value] += 1
        sys.stdout.write(to_json({**row, **asdict(found)}) + "\n")
    result = {how.value: counts[how.value] for how in How}
    if args.json:
        emit(args, result, "")
    else:
        sys.stdout.flush()
        progress(", ".join(f"{how} {count}" for how, count in result.items()))
    return 0


def _rows(path: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    from lora.json_lines import read_lines, rows_of

    return read_lines(path) if path else rows_of(sys.stdin.buffer.read(), "standard input")


def run_suggest(args: argparse.Namespace) -> int:
    """Print YAML; exit 1 when there is nothing to propose."""
    from lora.runlog import read_object
    from lora.suggest import Judged, as_yaml, form_of, suggest

    documents = _documents(args.kb)
    rows = read_object(args.evaluation).get("rows")
    try:
        judged = msgspec.convert(rows, list[dict[str, Any]])
        asked = [
            Judged(str(r["question"]), str(r["wanted"]), str(r.get("given") or ""), str(r.get("reference") or ""))
            for r in judged
        ]
    except (msgspec.ValidationError, KeyError) as error:
        cure = 'write "rows": [{"question": "...", "wanted": DOC_ID, "given": DOC_ID or ""}]'
        raise DataError(f"{args.evaluation}: no rows that can be used ({error}); {cure}") from error
    found, form = suggest(asked, documents), form_of(asked, documents)
    emit(args, {"topics": [asdict(s) for s in found], "form": form}, as_yaml(found, form))
    return 0 if found else 1
