"""Training texts of our own: attacks and harmless texts put together from parts, English and Chinese. Seeded.

The parts name families of attacks that are publicly known (override, role change, prompt theft, commands about the form
of the answer, foreign tasks, advertising, exfiltration); every sentence here was written for this project.
"""

from __future__ import annotations

import base64
import json
import random
import re
from pathlib import Path

_SLOT = re.compile(r"(?<!\{)\{([A-Za-z][a-z0-9]*)\}")

PARTS: dict[str, dict[str, dict[str, list[str]]]] = json.loads(
    Path(__file__).with_name("parts.json").read_text(encoding="utf-8")
)
"""language -> attack | harmless | fill -> family or name -> texts. {name} stands for one of a fill, or for a text of
another family ({task}, {order})."""

NESTED = {
    "task": ("task", "form", "plant", "theft", "role"),
    "order": ("override", "form", "plant", "theft", "role", "exfil", "task"),
}


class Grammar:
    """Texts from parts; the same seed gives the same texts."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _fill(self, text: str, lang: str, fixed: dict[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1].lower()
            if name in NESTED and lang in PARTS:
                found = self.attack(self._random.choice(NESTED[name]), lang)
                return found if match[1] != "task" or lang == "zh" else found[:1].lower() + found[1:]
            found = fixed.get(name) or self._random.choice(PARTS[lang]["fill"][name])
            return found[:1].upper() + found[1:] if match[1][:1].isupper() else found

        text = _SLOT.sub(value, text)
        return " ".join(text.replace("{{", "{").replace("}}", "}").split()).replace(" .", ".")

    def attack(self, family: str, lang: str) -> str:
        """One attack of a family: override, role, theft, form, plant, exfil, marked, task or ask."""
        return self._fill(self._random.choice(PARTS[lang]["attack"][family]), lang, {})

    def disguised(self, text: str) -> str:
        """The same words hidden: look-alike letters, invisible characters, an HTML comment, base64."""
        way = self._random.randrange(5)
        if way == 0:
            return text.translate(str.maketrans({"a": "\u0430", "e": "\u0435", "o": "\u043e"}))
        if way == 1:
            return "\u200b".join(text)
        if way == 2:
            return f"<!-- {text} -->"
        if way == 3:
            return f"{base64.b64encode(text.encode()).decode()}"
        return f'<span style="display:none">{text}</span>'

    def harmless(self, kind: str, lang: str) -> str:
        """A harmless question (trigger, plain) or sentence of a page (howto, faq, about, forum)."""
        return self._fill(self._random.choice(PARTS[lang]["harmless"][kind]), lang, {})

    def document(self, lang: str) -> str:
        """A how-to page about one thing: a question here and there, imperatives, statements."""
        fixed = {name: self._random.choice(PARTS[lang]["fill"][name]) for name in ("product", "benign2")}
        texts = PARTS[lang]["harmless"]
        lines = [self._fill(self._random.choice(texts["faq"]), lang, fixed)] if self.chance(0.6) else []
        for _ in range(self._random.randint(2, 7)):
            lines.append(self._fill(self._random.choice(texts[self._random.choice(("howto", "about"))]), lang, fixed))
        return ("" if lang == "zh" else " ").join(lines)

    def thread(self, titles: list[str]) -> str:
        """A page of questions and answers as forums and FAQ pages have them; titles: other people's questions."""
        lines = []
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            title = self._random.choice(titles) if titles and self.chance(0.6) else self.harmless("forum", "en")
            lines.append(title[:1].upper() + title[1:])
            kinds = ("forum", "forum", "howto", "about")
            lines += [self.harmless(self._random.choice(kinds), "en") for _ in range(self._random.randint(1, 5))]
        return "\n".join(lines)

    def choice(self, options: list[str]) -> str:
        return self._random.choice(options)

    def chance(self, share: float) -> bool:
        return self._random.random() < share
