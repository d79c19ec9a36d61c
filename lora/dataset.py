"""Training, validation and test rows from a knowledge base: phrasings, refusals, replay, and no leak between them.

Every rule is asked in many phrasings; whole phrasing groups go to one split, so that validation and test ask for known
rules in words that were not trained. What is left over as a near copy (two rules of one topic, say) is found by
comparison and taken out of the smaller split. Chance is a seed: the same input gives the same bytes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lora.phrasings import Phrasings
from rag.embedding import HashedNgramEmbedder
from rag.finetune.topics import topic_of
from rag.text import language, near_hash, normalise_space, search_tokens
from rag.types import Document

SPLITS = ("train", "validation", "test")
RATIOS_BY_SIZE = ((100, (0.70, 0.15, 0.15)), (1_000, (0.80, 0.10, 0.10)), (10_000, (0.85, 0.10, 0.05)))
RATIOS_LARGE = (0.90, 0.05, 0.05)
"""Rows below the number -> shares of train, validation and test."""

REFUSAL_RATIO = 0.25
REPLAY_RATIO = 0.20
NEAR_COSINE = 0.95
"""Character n-grams of two questions from which they count as the same; calibrated by eye on the shipped phrasings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question with its answer. rule: doc_id, "" for a refusal. group: phrasings that may not be torn apart.

    kind: answerable | refusal | replay.
    """

    question: str
    answer: str
    rule: str
    group: str
    style: str
    lang: str
    kind: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """The three splits, and what was left out: without a topic, refused topics that a rule covers, near copies."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    no_topic: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()
    near_copies: tuple[str, ...] = ()
    replayed: int = 0

    def split(self, name: str) -> tuple[Row, ...]:
        """Rows of one split by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a set is made. topics: doc_id to topic, before title and text. ratios: None for the table by size."""

    seed: int = 0
    refusal_ratio: float = REFUSAL_RATIO
    replay_ratio: float = REPLAY_RATIO
    ratios: tuple[float, float, float] | None = None
    topics: Mapping[str, str] = field(default_factory=dict)


def ratios_for(count: int) -> tuple[float, float, float]:
    """Shares of train, validation, test for a number of rows.

    >>> ratios_for(299)
    (0.8, 0.1, 0.1)
    """
    return next((ratios for below, ratios in RATIOS_BY_SIZE if count < below), RATIOS_LARGE)


PARAPHRASE = "paraphrase"
"""Style of a question that a model worded."""


def make_dataset(
    documents: Sequence[Document],
    words: Mapping[str, Phrasings],
    plan: Plan,
    old: Sequence[Row] = (),
    paraphrases: Mapping[str, Sequence[str]] | None = None,
) -> DataSet:
    """The data set of a knowledge base. old: training rows of earlier sets, for the replay buffer.

    paraphrases: doc_id to further questions; each is a phrasing group of its own. A document whose language has no
    phrasings, or without a topic, gets no rows and is named in `no_topic`.
    """
    chance = random.Random(plan.seed)
    answerable, no_topic = _answerable(documents, words, plan, paraphrases or {})
    want = round(len(answerable) * plan.refusal_ratio / max(1e-9, 1 - plan.refusal_ratio))
    refusals, covered = _refusals(documents, words, want, {row.lang for row in answerable}, chance)
    ratios = plan.ratios or ratios_for(len(answerable) + len(refusals))
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for rows in (answerable, refusals):
        for row, split in zip(rows, _allotted(rows, ratios, plan.seed), strict=True):
            splits[split].append(row)
    near = _without_copies(splits)
    replayed = _replay(splits, old, plan, chance)
    for rows in splits.values():
        chance.shuffle(rows)
    return DataSet(
        tuple(splits["train"]), tuple(splits["validation"]), tuple(splits["test"]), tuple(no_topic), covered, near,
        replayed,
    )  # fmt: skip


def topics_asked(
    documents: Sequence[Document], words: Mapping[str, Phrasings], plan: Plan
) -> dict[str, tuple[str, str]]:
    """Topic and language of every document that is asked for, by doc_id."""
    found = {}
    for document in documents:
        lang = document.lang if document.lang in words else language(document.text)
        topic = plan.topics.get(document.doc_id) or topic_of(document)
        if topic and lang in words:
            found[document.doc_id] = topic, lang
    return found


def _answerable(
    documents: Sequence[Document],
    words: Mapping[str, Phrasings],
    plan: Plan,
    paraphrases: Mapping[str, Sequence[str]],
) -> tuple[list[Row], list[str]]:
    rows, topics = [], topics_asked(documents, words, plan)
    for document in documents:
        if document.doc_id not in topics:
            continue
        topic, lang = topics[document.doc_id]
        answer = words[lang].answer.replace("{text}", normalise_space(document.text))
        for style, templates in words[lang].styles.items():
            for number, template in enumerate(templates):
                question = template.replace("{topic}", topic)
                group = f"{document.doc_id}/{style}/{number}"
                rows.append(Row(question, answer, document.doc_id, group, style, lang, "answerable"))
        for number, question in enumerate(paraphrases.get(document.doc_id, ())):
            group = f"{document.doc_id}/{PARAPHRASE}/{number}"
            rows.append(Row(question, answer, document.doc_id, group, PARAPHRASE, lang, "answerable"))
    return rows, [document.doc_id for document in documents if document.doc_id not in topics]


def _refusals(
    documents: Sequence[Document], words: Mapping[str, Phrasings], want: int, langs: set[str], chance: random.Random
) -> tuple[list[Row], tuple[str, ...]]:
    """Questions about topics that no rule covers, as many as wanted or as there are; languages by turns."""
    known = [set(search_tokens(f"{document.title} {document.text}")) for document in documents]
    covered, by_lang = [], list[list[Row]]()
    for lang in sorted(langs):
        rows = []
        for topic in words[lang].refused:
            terms = set(search_tokens(topic))
            if terms and any(terms <= tokens for tokens in known):
                covered.append(topic)
                continue
            for style, templates in words[lang].styles.items():
                for template in templates:
                    question = template.replace("{topic}", topic)
                    # The topic is the group: refusing must be learnt, not sixteen topics by heart.
                    rows.append(Row(question, words[lang].refusal, "", f"refused/{topic}", style, lang, "refusal"))
        chance.shuffle(rows)
        by_lang.append(rows)
    merged = [row for several in _by_turns(by_lang) for row in several]
    return merged[:want], tuple(covered)


def _by_turns(lists: Sequence[list[Row]]) -> list[list[Row]]:
    longest = max((len(rows) for rows in lists), default=0)
    return [[rows[n] for rows in lists if n < len(rows)] for n in range(longest)]


def _allotted(rows: Sequence[Row], ratios: tuple[float, float, float], seed: int) -> list[str]:
    """Split of each row: whole groups, each rule spread over all splits as evenly as the shares allow."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.rule, [])
        if row.group not in groups[row.rule]:
            groups[row.rule].append(row.group)
    split_of: dict[str, str] = {}
    owed = [0.0, 0.0, 0.0]
    for rule in sorted(groups):
        names = sorted(groups[rule])
        random.Random(f"{seed}/{rule}").shuffle(names)
        for group in names:
            owed = [debt + ratio for debt, ratio in zip(owed, ratios, strict=True)]
            taken = max(range(3), key=lambda n: (owed[n], -n))
            owed[taken] -= 1.0
            split_of[group] = SPLITS[taken]
    return [split_of[row.group] for row in rows]


def _without_copies(splits: dict[str, list[Row]]) -> tuple[str, ...]:
    """Take questions out of test and validation that are copies, or nearly, of one in a larger split."""
    embedder = HashedNgramEmbedder(1024)
    left_out: list[str] = []
    above: list[Row] = list(splits["train"])
    for name in ("validation", "test"):
        kept = []
        if above and splits[name]:
            larger = embedder.embed([row.question for row in above])
            hashes = {near_hash(row.question) for row in above}
            cosines = embedder.embed([row.question for row in splits[name]]) @ larger.T
            for row, nearest in zip(splits[name], np.max(cosines, axis=1), strict=True):
                if near_hash(row.question) in hashes or float(nearest) >= NEAR_COSINE:
                    left_out.append(row.question)
                else:
                    kept.append(row)
        else:
            kept = splits[name]
        splits[name] = kept
        above += kept
    return tuple(left_out)


def _replay(splits: dict[str, list[Row]], old: Sequence[Row], plan: Plan, chance: random.Random) -> int:
    """Mix rows of earlier sets into training: 20 % of it, none that validation or test ask."""
    if not old or plan.replay_ratio <= 0:
        return 0
    asked = {near_hash(row.question) for rows in splits.values() for row in rows}
    usable = [row for row in old if near_hash(row.question) not in asked]
    want = round(len(splits["train"]) * plan.replay_ratio / (1 - plan.replay_ratio))
    taken = chance.sample(usable, min(want, len(usable)))
    splits["train"] += [replace(row, kind="replay") for row in taken]
    return len(taken)


def overlap(dataset: DataSet) -> dict[str, int]:
    """Questions that stand in two splits, width, case and punctuation aside: zero for every set made here."""
    hashes = {name: [near_hash(row.question) for row in dataset.split(name)] for name in SPLITS}
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    return {f"{a}/{b}": sum(h in set(hashes[a]) for h in hashes[b]) for a, b in pairs}


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many rows of each kind, style and language."""
    return {
        what: dict(sorted(Counter(getattr(row, what) for row in rows).items())) for what in ("kind", "style", "lang")
    }
