"""lora dataset: rows to train on, from a knowledge base."""

from __future__ import annotations

import argparse
import math
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, emit, login, needs_extra
from guard.commands.lora_paraphrase import add_options, card_entries, paraphrases_of, write_file_of
from slo.clock import SystemClock
from slo.errors import ConfigError, DataError


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    dataset = add_command(lora, "dataset", run_dataset, "training, validation and test rows from a knowledge base",
                          "sft-guard lora dataset --kb kb --out data --seed 1")  # fmt: skip
    dataset.add_argument("--kb", type=Path, required=True, metavar="DIR", help="directory of the knowledge base")
    dataset.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write")
    dataset.add_argument("--seed", type=int, default=0, help="seed of phrasings and split")
    about = "YAML with styles, answers and refusals by language (default: English and Traditional Chinese)"
    dataset.add_argument("--phrasings", type=Path, metavar="FILE", help=about)
    dataset.add_argument("--topics", type=Path, metavar="FILE", help="YAML doc_id: topic, where the title is none")
    dataset.add_argument("--refusals", type=float, default=0.25, metavar="SHARE", help="default %(default)s")
    about = "rows of earlier sets, mixed into training against forgetting"
    dataset.add_argument("--replay", type=Path, action="append", default=[], metavar="FILE", help=about)
    dataset.add_argument("--replay-share", type=float, default=0.20, metavar="SHARE", help="default %(default)s")
    about = "shares of train, validation and test; default by size"
    dataset.add_argument("--split", metavar="70/15/15", help=about)
    add_options(dataset)
    dataset.set_defaults(run=needs_extra("lora", run_dataset))


def run_dataset(args: argparse.Namespace) -> int:
    """Make the set; exit 1 when a document got no rows."""
    from lora.dataset import SPLITS, Plan, make_dataset
    from lora.dataset_files import read_rows, write_dataset
    from lora.phrasings import SHIPPED, load_phrasings
    from rag.kb import KnowledgeBase

    for option, value in (("--refusals", args.refusals), ("--replay-share", args.replay_share)):
        if not 0 <= value < 1:
            raise ConfigError(option, value, "write a share from 0 to below 1, such as 0.25")
    plan = Plan(args.seed, args.refusals, args.replay_share, _ratios(args.split), _topics(args.topics))
    kb = KnowledgeBase.open(args.kb)
    words = load_phrasings(args.phrasings)
    old = [row for path in args.replay for row in read_rows(path)]
    templated = make_dataset(kb.documents, words, plan)
    every = [row for name in SPLITS for row in templated.split(name)]
    paraphrases = paraphrases_of(args, kb.documents, words, plan, every)
    dataset = make_dataset(kb.documents, words, plan, old, paraphrases.kept if paraphrases else None)
    if not dataset.train:
        raise DataError(f"{args.kb}: no document has a topic; give titles to the documents, or --topics FILE")
    card = write_dataset(
        args.out, dataset, plan,
        source={"kb_version": kb.meta.kb_version, "content_id": kb.content_id, "documents": len(kb.documents)},
        phrasings_sha256=sha256((args.phrasings or SHIPPED).read_bytes()).hexdigest(),
        wall_s=SystemClock().wall_s(), who=login(), more=card_entries(args, paraphrases, dataset),
    )  # fmt: skip
    if paraphrases is not None:
        write_file_of(args.out, paraphrases)
    emit(args, {"out": str(args.out), **card}, "\n".join(_lines(args.out, card)))
    return 1 if dataset.no_topic else 0


def _lines(out: Path, card: dict[str, Any]) -> list[str]:
    sizes = ", ".join(f"{name} {split['rows']}" for name, split in card["splits"].items())
    kinds = ", ".join(f"{kind} {count}" for kind, count in card["splits"]["train"]["kind"].items())
    lines = [f"wrote {out}: {sizes} rows (train: {kinds})", f"overlap of the splits: {sum(card['overlap'].values())}"]
    if card["near_copies_left_out"]:
        lines.append(f"left out as near copies: {len(card['near_copies_left_out'])} questions, named in data_card.json")
    if card["documents_without_topic"]:
        shown = ", ".join(card["documents_without_topic"][:5])
        lines.append(f"no topic, so no rows: {len(card['documents_without_topic'])} documents ({shown}); see --topics")
    if "paraphrases" in card:
        found = card["paraphrases"]
        lines.append(f"paraphrases: {found['kept']} kept, {found['rejected']} left out, see paraphrases.json")
    about = "" if "tokens" in card else "about "
    for name, tokens in (card.get("tokens") or card["tokens_estimated"]).items():
        if tokens["max"] > 192:
            lines.append(f"{name}: the longest row has {about}{tokens['max']} tokens, above the usual 192 of training")
    return lines


def _ratios(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        train, validation, test = (float(part) for part in text.split("/"))
    except ValueError as error:
        raise ConfigError("--split", text, "write three shares such as 70/15/15") from error
    total = train + validation + test
    if not math.isfinite(total):
        raise ConfigError("--split", text, "write three finite shares such as 70/15/15")
    if min(train, validation, test) < 0 or train <= 0:
        raise ConfigError("--split", text, "no share may be below 0, and train needs one")
    return train / total, validation / total, test / total


def _topics(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    from slo.strict_yaml import load_yaml_file

    document, _ = load_yaml_file(path)
    for doc_id, topic in document.items():
        if not isinstance(topic, str) or not topic.strip():
            raise ConfigError(f"{path.name}: {doc_id}", topic, "write the topic as text, such as: remote access")
    return {str(doc_id): topic.strip() for doc_id, topic in document.items()}
