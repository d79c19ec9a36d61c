"""What `lora dataset` asks of others: paraphrases of an OpenAI-compatible model, tokens of a tokenizer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.commands.common import progress, to_json
from guard.settings import environment_value
from slo.errors import ConfigError, DataError, RefusedError

if TYPE_CHECKING:
    from lora.dataset import DataSet, Plan, Row
    from lora.paraphrase import Paraphrases
    from lora.phrasings import Phrasings
    from rag.types import Document

PER_RULE_MAX = 20
FILE = "paraphrases.json"
RULES_MAX = 500
TIMEOUT_S = 60.0
EXAMPLES = 3
USUAL_LENGTH = 192


def add_options(dataset: argparse.ArgumentParser) -> None:
    """The options of this module."""
    about = "model whose chat template and tokens the card counts: by name or path"
    dataset.add_argument("--tokenizer", metavar="NAME", help=about)
    asked = dataset.add_argument_group("more questions by a model (optional)")
    asked.add_argument("--paraphrase-url", metavar="URL", help="OpenAI-compatible, such as http://127.0.0.1:8000/v1")
    asked.add_argument("--paraphrase-model", default="", metavar="NAME", help="name of the model there")
    asked.add_argument("--paraphrase-key-env", metavar="NAME", help="environment variable with its API key")
    about = f"for each rule, {PER_RULE_MAX} at most; default %(default)s"
    asked.add_argument("--paraphrases", type=int, default=5, metavar="N", help=about)
    about = "take those of an earlier paraphrases.json and ask nobody: the same rows again"
    asked.add_argument("--paraphrased", type=Path, metavar="FILE", help=about)


def paraphrases_of(
    args: argparse.Namespace,
    documents: Sequence[Document],
    words: Mapping[str, Phrasings],
    plan: Plan,
    templated: Sequence[Row],
) -> Paraphrases | None:
    """What was asked for, checked; None without the options. templated: the rows that are there without.

    Raises:
        ConfigError, DataError: of options and file. UpstreamError: the model did not answer in three tries.
    """
    from lora.dataset import topics_asked
    from lora.dataset_files import CARD

    if args.paraphrased and args.paraphrase_url:
        raise ConfigError("--paraphrased", str(args.paraphrased), "leave out --paraphrase-url, or this")
    topics = topics_asked(documents, words, plan)
    if args.paraphrased:
        return _read(args.paraphrased, topics)
    if not args.paraphrase_url:
        return None
    if not args.paraphrase_model:
        raise ConfigError("--paraphrase-model", "nothing", "name the model that shall write questions")
    if not 1 <= args.paraphrases <= PER_RULE_MAX:
        raise ConfigError("--paraphrases", args.paraphrases, f"write a number from 1 to {PER_RULE_MAX}")
    if len(topics) > RULES_MAX:
        raise ConfigError("--paraphrase-url", f"{len(topics)} rules", f"{RULES_MAX} requests at most are sent; "
                          "a set of this size has variety enough, or name a smaller knowledge base")  # fmt: skip
    if (args.out / CARD).exists():
        raise RefusedError("exists", f"{args.out} holds a data set; name a new directory before a model is asked")
    key = environment_value(args.paraphrase_key_env) if args.paraphrase_key_env else ""
    if key is None:
        raise ConfigError("--paraphrase-key-env", args.paraphrase_key_env, "set that environment variable")
    return _asked(args, topics, templated, key)


def _asked(
    args: argparse.Namespace, topics: Mapping[str, tuple[str, str]], templated: Sequence[Row], key: str
) -> Paraphrases:
    from lora.answering import asked_of
    from lora.guards import Guards
    from lora.paraphrase import kept_of, request_of
    from rag.model_client import ModelConfig
    from rag.text import near_hash

    examples: dict[str, list[str]] = {}
    for row in templated:
        examples.setdefault(row.rule, []).append(row.question)
    # More are asked for than wanted: some will be left out.
    want = args.paraphrases + 3
    requests = [
        request_of(topic, sorted(examples.get(doc_id, []))[:EXAMPLES], want, lang)
        for doc_id, (topic, lang) in topics.items()
    ]
    limit = 60 * want
    config = ModelConfig(args.paraphrase_url, args.paraphrase_model, key, 0.7, limit, TIMEOUT_S, TIMEOUT_S)

    def tell(done: int) -> None:
        if done % 20 == 0 or done == len(requests):
            progress(f"paraphrases: {done} of {len(requests)} rules")

    replies = asked_of(config, requests, Guards(max_new_tokens=limit, temperature=0.7), tell)
    known = {near_hash(row.question) for row in templated}
    return kept_of(dict(zip(topics, replies, strict=True)), topics, known, _numbers, args.paraphrases)


def _numbers(text: str) -> list[tuple[float, str]]:
    """Quantities with a unit, in words as well; bare digits are compared by the caller."""
    from guard.checks.lexicon import normalise
    from guard.checks.numbers import quantities

    return [(q.value, q.dimension) for q in quantities(normalise(text))[0] if q.dimension]


def _read(path: Path, topics: Mapping[str, tuple[str, str]]) -> Paraphrases:
    from lora.paraphrase import Paraphrases
    from lora.runlog import read_object

    kept = read_object(path).get("kept")
    if not isinstance(kept, dict) or not all(
        isinstance(several, list) and all(isinstance(q, str) and q.strip() for q in several)
        for several in kept.values()
    ):
        raise DataError(f"{path}: no `kept` of questions by doc_id; name a file that lora dataset wrote")
    return Paraphrases({doc_id: tuple(kept[doc_id]) for doc_id in topics if doc_id in kept})


def card_entries(args: argparse.Namespace, paraphrases: Paraphrases | None, dataset: DataSet) -> dict[str, Any]:
    """What the data card says of both."""
    found: dict[str, Any] = {}
    if paraphrases is not None:
        found["paraphrases"] = {
            "model": args.paraphrase_model or f"of {FILE}",
            "kept": sum(len(several) for several in paraphrases.kept.values()),
            "rejected": len(paraphrases.rejected),
        }
    if args.tokenizer:
        found |= _tokens(args.tokenizer, dataset)
    return found


def write_file_of(out: Path, paraphrases: Paraphrases) -> None:
    """paraphrases.json: kept and left out, with reasons."""
    from rag.finetune.cursor import write_file

    rejected = [{"rule": rule, "question": question, "why": why} for rule, question, why in paraphrases.rejected]
    write_file(out / FILE, (to_json({"kept": paraphrases.kept, "rejected": rejected}) + "\n").encode())


def _tokens(name: str, dataset: DataSet) -> dict[str, Any]:
    """Tokens of each split as they will be trained: with the chat template."""
    from lora.dataset import SPLITS
    from lora.training.encode import encode_chat
    from lora.training.model import load_tokenizer

    tokenizer = load_tokenizer(name)
    counts = {}
    for split in SPLITS:
        rows = [encode_chat(tokenizer, row.question, row.answer, 1 << 30) for row in dataset.split(split)]
        lengths = [len(row.ids) for row in rows]
        counts[split] = {
            "sum": sum(lengths), "max": max(lengths, default=0), "learnt": sum(row.answer_tokens for row in rows),
            f"above_{USUAL_LENGTH}": sum(length > USUAL_LENGTH for length in lengths),
        }  # fmt: skip
    template = sha256(str(tokenizer.chat_template).encode()).hexdigest()
    return {"tokenizer": {"name": name, "chat_template_sha256": template}, "tokens": counts}
