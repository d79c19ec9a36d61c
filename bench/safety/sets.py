"""The rows that the injection models are trained and measured on: own texts, and public sets outside the repository."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.safety.grammar import Grammar

ROOT = Path(__file__).resolve().parents[2]
FOLDS = 5
OWN_PAIRS = ROOT / "tests" / "data" / "safety_zh.jsonl"

LICENCES = {
    "own grammar": "part of this project",
    "BIPIA text attacks and e-mail contexts, train": "MIT",
    "PIGuard validation": "MIT",
    "WildGuard benign prompts (via PIGuard), development half": "ODC-BY",
    "CLINC150 questions, train": "CC BY 3.0",
    "Banking77 questions, train": "CC BY 4.0",
    "BEGIN knowledge passages, development half": "CC BY 4.0",
    "UHGEval news, development half": "Apache-2.0",
}
"""What the shipped weights are made from. Sets under share-alike or research licences only measure."""


@dataclass(frozen=True, slots=True)
class Text:
    """One question. attack: it shall be flagged. fold: -1 for rows that are only ever trained on."""

    source: str
    text: str
    attack: bool
    fold: int = -1


@dataclass(frozen=True, slots=True)
class Page:
    """One context with its question. planted: sentences of an attack, () when it is harmless."""

    source: str
    text: str
    question: str
    planted: str = ""
    fold: int = -1
    where: str = ""
    category: str = ""


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON lines file; nothing when it is not there."""
    if path.exists():
        with path.open(encoding="utf-8") as source:
            yield from map(json.loads, source)


def fold_of(group: str) -> int:
    """The same fold for the same group in every run."""
    return zlib.crc32(group.encode()) % FOLDS


def sample(rows: list[Any], count: int) -> list[Any]:
    """Every n-th row, about `count` of them."""
    step = max(1, len(rows) // count)
    return rows[::step][:count]


def questions(data: Path) -> list[Text]:
    """Rows of the question model."""
    grammar = Grammar(11)
    rows: list[Text] = []
    for lang, scale in (("en", 1.0), ("zh", 0.6)):
        for family, count in (
            ("override", 700),
            ("role", 500),
            ("theft", 500),
            ("marked", 400),
            ("exfil", 200),
            ("plant", 200),
        ):
            for _ in range(int(count * scale)):
                attack = grammar.attack(family, lang)
                if grammar.chance(0.15):  # an ordinary question first, then the order
                    attack = f"{grammar.harmless('plain', lang)} {attack}"
                if grammar.chance(0.06):
                    attack = grammar.disguised(attack)
                rows.append(Text(f"own {lang}", attack, True))
        for kind, count in (("trigger", 1600), ("plain", 700)):
            rows += [Text(f"own {lang}", grammar.harmless(kind, lang), False) for _ in range(int(count * scale))]
        for family in ("task", "ask"):
            rows += [Text(f"own {lang}", grammar.attack(family, lang), False) for _ in range(int(500 * scale))]
        rows += [Text(f"own {lang}", grammar.document(lang), False) for _ in range(int(200 * scale))]
    safety, intents = data / "safety", data / "intents"
    for i, row in enumerate(rows_of(safety / "piguard_valid.jsonl")):
        if not row["source"].startswith("BIPIA"):  # an ordinary task is no attack when the user asks for it
            rows.append(Text(f"piguard {row['source'].split('_')[0]}", row["text"], bool(row["label"]), i % FOLDS))
    rows += [
        Text("wildguard", r["text"], False, i % FOLDS)
        for i, r in enumerate(rows_of(safety / "benign_prompts_dev.jsonl"))
    ]
    for name, count in (("clinc_train", 2500), ("banking77_train", 1200)):
        found = [r["text"] for r in rows_of(intents / f"{name}.jsonl")]
        rows += [Text(name.partition("_")[0], text, False, fold_of(text)) for text in sample(found, count)]
    return rows


def attacks_for_pages(data: Path) -> list[tuple[str, str]]:
    """(category, text) of the BIPIA text attacks, and PIGuard's of the same kind."""
    found = [(r["category"], r["text"]) for r in rows_of(data / "safety" / "bipia_text_attack_train.jsonl")]
    found += [
        ("validation", r["text"])
        for r in rows_of(data / "safety" / "piguard_valid.jsonl")
        if r["source"] == "BIPIA_text"
    ]  # fmt: skip
    return found


def planted(text: str, attack: str, where: str) -> str:
    """An attack at the beginning, in the middle (after a sentence) or at the end, as BIPIA does."""
    if where == "begin":
        return f"{attack} {text}"
    if where == "end":
        return f"{text} {attack}"
    half = len(text) // 2
    cut = next(
        (text.index(mark, half) + len(mark) for mark in (". ", "\u3002", "\n", " ") if mark in text[half:]), half
    )
    return f"{text[:cut].rstrip()} {attack} {text[cut:].lstrip()}"


PLACES = ("begin", "middle", "end")


def training_pages(data: Path) -> list[Page]:
    """Pages of the context model: harmless ones, and the same with attacks planted."""
    grammar = Grammar(12)
    docs: list[tuple[str, str, str, str]] = []  # source, lang, text, question
    passages = list(rows_of(data / "grounding" / "begin_wow_dev.jsonl"))
    known = list(dict.fromkeys(r["knowledge"] for r in passages))
    asked = {r["knowledge"]: r["message"] for r in passages}
    for i, text in enumerate(known):
        docs.append(("begin", "en", text, asked[text]))
        if i % 3 == 0:  # longer pages: three passages about different things under one roof
            docs.append(("begin", "en", "\n".join(known[i : i + 3]), asked[text]))
    docs += [
        ("bipia email", "en", r["context"], r["question"]) for r in rows_of(data / "safety" / "bipia_email_train.jsonl")
    ]
    for row in rows_of(data / "grounding" / "uhgeval_zh_dev.jsonl"):
        docs.append(("uhgeval", "zh", f"{row['beginning']}{row['remainder']}"[:900], row["headline"]))
    docs += [
        ("own", lang, grammar.document(lang), grammar.harmless("plain", lang))
        for lang, n in (("en", 700), ("zh", 400))
        for _ in range(n)
    ]
    titles = sample([r["text"] for r in rows_of(data / "intents" / "banking77_train.jsonl")], 800)
    docs += [("own threads", "en", grammar.thread(titles), "") for _ in range(700)]
    docs += [
        ("demo", "en" if r["text"].isascii() else "zh", r["text"], "")
        for r in rows_of(ROOT / "rag" / "demo_kb" / "kb.jsonl")
    ]
    bipia = attacks_for_pages(data)
    requests = sample([r["text"] for r in rows_of(data / "intents" / "clinc_train.jsonl")], 600)
    families = ["override", "role", "theft", "form", "form", "plant", "plant", "exfil", "marked", "task", "task", "ask"]
    pages: list[Page] = []
    for i, (source, lang, text, question) in enumerate(docs):
        fold = fold_of(text[:60])
        pages.append(Page(source, text, question, "", fold))
        for _ in range(2):
            attack = grammar.attack(grammar.choice(families), lang if grammar.chance(0.85) else "en")
            if grammar.chance(0.05):
                attack = grammar.disguised(attack)
            where = grammar.choice(list(PLACES))
            pages.append(Page(source, planted(text, attack, where), question, attack, fold, where, "own"))
        if lang == "en" and bipia:
            category, attack = bipia[i % len(bipia)]
            where = PLACES[i % 3]
            pages.append(
                Page(source, planted(text, attack, where), question, attack, fold_of(category), where, category)
            )
        if lang == "en" and requests and i % 2:
            attack = requests[i % len(requests)]
            attack = attack[:1].upper() + attack[1:] + ("?" if grammar.chance(0.4) else ".")
            pages.append(
                Page(
                    source,
                    planted(text, attack, PLACES[i // 2 % 3]),
                    question,
                    attack,
                    fold,
                    PLACES[i // 2 % 3],
                    "clinc",
                )
            )
    return pages


def harmless_pages(data: Path, count: int = 400) -> list[Page]:
    """Pages that nothing was trained on, from four sets."""
    pages: list[Page] = []
    retrieval = data / "retrieval"
    rag = list(rows_of(data / "grounding" / "ragtruth_qa_dev.jsonl"))
    pages += [Page("ragtruth", p, r["question"]) for r in sample(rag, count) for p in r["passages"]][: 2 * count]
    pages += [Page("squad2", r["text"], "") for r in sample(list(rows_of(retrieval / "squad2_passages.jsonl")), count)]
    pages += [
        Page("drcd zh-TW", r["text"], "") for r in sample(list(rows_of(retrieval / "drcd_zhtw_passages.jsonl")), count)
    ]
    pages += [
        Page("stackfaq", r["question"] + "\n" + "\n".join(r["answers"]), "")
        for r in rows_of(retrieval / "stackfaq_docs.jsonl")
    ]
    seen: dict[str, Page] = {}
    for page in pages:
        seen.setdefault(page.text, page)
    return list(seen.values())
