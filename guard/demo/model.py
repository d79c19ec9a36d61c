"""A simulated language model: what it answers to a prompt. Pure, and deterministic given (seed, prompt).

Nothing here is a neural network. It imitates the two habits of language models that matter to a guard: it answers
from the passages of its prompt when they hold the answer, and when they do not it sometimes says so and otherwise
speaks from general knowledge (`general_policies.jsonl`: what companies in general do, with other numbers), in the same
confident tone. Now and then it adds such a sentence to a good answer too. It knows nothing of releases, faults, checks
or verdicts: its answers get worse only when its prompt does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from guard.demo.content import GeneralPolicy
from guard.demo.reading import Found, Reader
from rag.text import count_tokens, language, sentences

SURE_SCORE = 0.32
"""From here on the passages hold the answer; measured on the demo's questions: 95 of 100 with, 15 of 100 without it."""
HINT_SCORE = 0.20
"""Below it the passages say nothing about the question."""
REFUSE_WITH_HINT = 0.7
REFUSE_WITHOUT_HINT = 0.15
EMBELLISH_RATIO = 0.02
MORE_RATIO = 0.35
MEMORY_SCORE = 0.15
"""Below it general knowledge has nothing to say either."""

_FRAMES = {
    "en": ("", "", "According to the company rules: ", "Here is what applies: "),
    "zh-TW": ("", "", "依公司規定：", "說明如下："),
}
_REFUSALS = {
    "en": (
        "I am sorry, the documents do not say anything about that.",
        "I could not find this in the documents. Please ask the service desk.",
    ),
    "zh-TW": (
        "很抱歉，文件中沒有提到這件事。",
        "文件中查無相關資料，請洽詢服務台。",
    ),
}
_PASSAGE = re.compile(r"^[ \t]*(?:\[\d+\]|【\d+】)[ \t]*", re.MULTILINE)
_QUESTION = re.compile(r"^[ \t]*(?:Question|問題)[ \t]*[:：][ \t]*", re.MULTILINE)
_ENDS = re.compile("[.!?。！？][\"'」）)]*$")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a prompt says: the user's question and the passages given with it."""

    question: str
    passages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Counts are tokens, estimated; first_token_s and token_s say how fast it comes."""

    text: str
    input_tokens: int
    output_tokens: int
    first_token_s: float
    token_s: float


class SimulatedModel:
    """Answers prompts. `memory` is its general knowledge."""

    def __init__(self, memory: Sequence[GeneralPolicy], seed: int) -> None:
        self._seed = seed
        self._memory = {
            lang: [line for row in memory if row.lang == lang for line in sentences(row.text)]
            for lang in ("en", "zh-TW")
        }
        self._reader = Reader([row.text for row in memory])

    def reply(self, messages: Sequence[tuple[str, str]]) -> Reply:
        """Answer the last user message of (role, content) pairs."""
        whole = "\x1e".join(f"{role}\x1f{content}" for role, content in messages)
        dice = random.Random(sha256(f"{self._seed}\x1e{whole}".encode("utf-8", "surrogatepass")).digest())
        text = self._answer(read_prompt(messages), dice)
        return Reply(
            text,
            input_tokens=count_tokens(whole),
            output_tokens=count_tokens(text),
            first_token_s=dice.uniform(0.03, 0.12),
            token_s=dice.uniform(0.001, 0.003),
        )

    def _answer(self, prompt: Prompt, dice: random.Random) -> str:
        lang = language(prompt.question)
        found = self._reader.best(prompt.question, prompt.passages)
        score = found.score if found else 0.0
        if found and score >= SURE_SCORE:
            return dice.choice(_FRAMES[lang]) + self._from_passages(prompt, found, lang, dice)
        refuse_ratio = REFUSE_WITH_HINT if score >= HINT_SCORE else REFUSE_WITHOUT_HINT
        remembered = self._remember(prompt.question, lang)
        if remembered is None or dice.random() < refuse_ratio:
            return dice.choice(_REFUSALS[lang])
        return dice.choice(_FRAMES[lang]) + remembered

    def _from_passages(self, prompt: Prompt, found: Found, lang: str, dice: random.Random) -> str:
        passage = sentences(prompt.passages[found.text_index])
        position = passage.index(found.sentence)
        said = [found.sentence]
        if dice.random() < MORE_RATIO and position + 1 < len(passage) and _ENDS.search(passage[position + 1]):
            said.append(passage[position + 1])
        cut_off = not _ENDS.search(found.sentence)
        if cut_off or dice.random() < EMBELLISH_RATIO:
            # A sentence that stops in the middle is completed, as models do, from general knowledge.
            remembered = self._remember(prompt.question, lang)
            if remembered is not None:
                said.append(remembered)
        stop = "" if lang == "en" else "。"
        parts = [part if _ENDS.search(part) else part + (stop or ".") for part in said]
        return (" " if lang == "en" else "").join(parts)

    def _remember(self, question: str, lang: str) -> str | None:
        found = self._reader.best(question, self._memory[lang])
        return found.sentence if found and found.score >= MEMORY_SCORE else None


def read_prompt(messages: Sequence[tuple[str, str]]) -> Prompt:
    """Find the passages and the question in a prompt: passages are numbered in brackets, the question comes last.

    A prompt without numbered passages is all question.
    """
    content = next((text for role, text in reversed(messages) if role == "user"), "")
    everything = "\n".join(text for role, text in messages if role != "assistant")
    source = content if _PASSAGE.search(content) else everything
    asked = list(_QUESTION.finditer(content))
    question = content[asked[-1].end() :] if asked else content
    body = source[: source.rfind(question)] if question and question in source else source
    parts = _PASSAGE.split(body)[1:]
    passages = tuple(_QUESTION.split(part)[0].strip() for part in parts)
    return Prompt(question.strip(), tuple(p for p in passages if p))
