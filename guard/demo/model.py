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
from rag.answer import read_prompt
from rag.text import count_tokens, language, sentences

SURE_SCORE = 0.40
"""From here on the passages hold the answer. With the answering sentence among them 97 of 100 questions of the demo
score more, without it still 28 of 100."""
HINT_SCORE = 0.27
"""Below it the passages say nothing about the question: 1 and 41 of 100."""
REFUSE_WITH_HINT = 0.4
REFUSE_WITHOUT_HINT = 0.1
EMBELLISH_RATIO = 0.01
MORE_RATIO = 0.35
MEMORY_SCORE = 0.2
"""Below it general knowledge has nothing to say either."""

_FRAMES = {
    "en": ("", "", "Of course. ", "Here is what applies: "),
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
        asked = next((content for role, content in reversed(messages) if role == "user"), "")
        passages, question = read_prompt(asked)
        text = self._answer(Prompt(question, tuple(passage for _, passage in passages)), dice)
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
        found = self._reader.best(question, self._memory[lang], strict=True)
        return found.sentence if found and found.score >= MEMORY_SCORE else None


def is_refusal(text: str) -> bool:
    """Whether the model said that it does not know."""
    return any(text == refusal for refusals in _REFUSALS.values() for refusal in refusals)
