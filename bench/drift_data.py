"""What the drift bench reads from the evaluation sets: questions in the order in which they would be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Scene:
    """One kind of traffic and one shift. healthy: before; later: same kind, other questions; shifted: what comes in."""

    name: str
    language: str
    reference: list[str]
    later: list[str]
    shifted: list[str]


def rows(path: Path) -> list[dict[str, str]]:
    """JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def english(data: Path) -> list[Scene]:
    """CLINC150 against its out-of-scope set, banking77, and each of two of its own domains left out of the rest."""
    folder = data / "intents"
    train, val = (rows(folder / f"clinc_{part}.jsonl") for part in ("train", "val"))
    oos = [r["text"] for part in ("train", "val") for r in rows(folder / f"clinc_oos_{part}.jsonl")]
    banking = [r["text"] for r in rows(folder / "banking77_train.jsonl")]
    every = [r["text"] for r in train], [r["text"] for r in val]
    scenes = [Scene("out of scope", "en", *every, oos), Scene("banking77", "en", *every, banking)]
    domains = json.loads((folder / "clinc_domains.json").read_text())
    for domain in ("travel", "utility"):
        inside = set(domains[domain])
        new = [r["text"] for r in val if r["intent"] in inside]
        scenes.append(
            Scene(
                f"domain {domain}", "en", [r["text"] for r in train if r["intent"] not in inside],
                [r["text"] for r in val if r["intent"] not in inside], new,
            )
        )  # fmt: skip
    return scenes


def chinese(data: Path, seed: int) -> list[Scene]:
    """Two kinds of traffic: questions to a help desk, put together from `questions_zh.json`, and questions about the
    articles of DRCD that have many of them (written by people, no two alike).

    Shifts: a subject area left out of the help desk, questions of the other kind, articles left out of DRCD.
    """
    chance = np.random.default_rng(seed)
    areas = help_desk(chance)
    desk = _mixed([q for area, questions in areas.items() if area != "it" for q in questions], chance)
    folder = data / "retrieval"
    title = {r["pid"]: r["title"] for r in rows(folder / "drcd_zhtw_passages.jsonl")}
    articles: dict[str, list[str]] = {}
    for question in rows(folder / "drcd_zhtw_questions.jsonl"):
        articles.setdefault(title[question["pid"]], []).append(question["question"])
    large = [articles[t] for t in sorted(articles, key=lambda t: (-len(articles[t]), t))]
    known, new = [q for a in large[5:] for q in a], [q for a in large[:5] for q in a]
    read = _mixed(known, chance)
    everything = [q for area in areas.values() for q in area]
    half, middle = len(desk) // 2, len(read) // 2
    return [
        Scene("help desk, area IT", "zh", desk[:half], desk[half:], areas["it"]),
        Scene("help desk, DRCD", "zh", desk[:half], desk[half:], known),
        Scene("DRCD, help desk", "zh", read[:middle], read[middle:], everything),
        Scene("DRCD, five new articles", "zh", read[:middle], read[middle:], new),
    ]


def help_desk(chance: np.random.Generator) -> dict[str, list[str]]:
    """Questions by area: every subject in every form, with an opening and an ending drawn for each."""
    parts = json.loads((Path(__file__).parent / "questions_zh.json").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for area, subjects in parts["domains"].items():
        asked = dict.fromkeys(
            f"{chance.choice(parts['openings'])}{form.format(subject)}{chance.choice(parts['endings'])}"
            for subject in subjects for form in parts["forms"] for _ in range(4)
        )  # fmt: skip
        found[area] = list(asked)
    return found


def _mixed(questions: list[str], chance: np.random.Generator) -> list[str]:
    return [questions[i] for i in chance.permutation(len(questions))]
