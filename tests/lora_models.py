"""A small Qwen2 that speaks, made and pre-trained here in seconds, and an adapter for it: for tests of the lora parts.

    base = tiny_base(tmp_path / "base")                  model and tokenizer; chat template, ends at <|im_end|>
    data = tiny_dataset()                                rows of a data set over the first documents of the demo
    adapter = tiny_adapter(base, data.train, tmp_path / "adapter")
    answers(base, ["Remote access by VPN?"], adapter)    speaks; without the adapter: prose about anything

The base (450,000 parameters) has read the documents, so it knows their words, and it answers `general_chats`: questions
about the documents after the first 12 of each language, which is what it may forget. What it must learn are answers
about the first 12, in the words of the company, and refusals. Measured with the defaults: character ratio to the wanted
answers of the test split 0.22 before, 0.8 to 0.9 after; general chats 1.0 before, 0.2 after (no replay).

What is made is kept under `.cache/`, by a hash of what it is made of; delete it freely.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from lora.dataset import DataSet, Plan, Row, make_dataset
from lora.phrasings import load_phrasings
from rag.text import text_hash
from rag.types import Document

CACHE = Path(__file__).parents[1] / ".cache" / "lora"
DEMO_KB = Path(__file__).parents[1] / "rag" / "demo_kb" / "kb.jsonl"
VOCABULARY, HIDDEN, LAYERS, HEADS, FEED_FORWARD, POSITIONS = 1536, 96, 3, 4, 256, 256
TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RESERVED = 12
"""Documents of each language that no chat of the base is about: for adapters."""
ASKED = ("{}", "{}?", "About {}")
STEPS, BATCH, BLOCK, RATE = 260, 16, 64, 4e-3
"""Of the pre-training, in tokens: 260 x 16 x 64, about ten times the texts."""


def tiny_documents(count: int = 8, lang: str = "en") -> list[Document]:
    """The first documents of the demo in one language, each cut to its first sentence: short enough to train fast."""
    rows = [json.loads(line) for line in DEMO_KB.read_text("utf-8").splitlines()]
    return [_short(row) for row in rows if row["lang"].startswith(lang)][:count]


def _short(row: dict[str, str]) -> Document:
    first = re.split(r"(?<=\u3002)|(?<=[.;]) ", row["text"])[0]
    return Document(row["doc_id"], first, text_hash(first), row["title"], row["lang"])


def tiny_dataset(count: int = 8, lang: str = "en", seed: int = 1, skip: int = 0) -> DataSet:
    """A data set over `count` short documents, after the first `skip` of them."""
    return make_dataset(tiny_documents(skip + count, lang)[skip:], load_phrasings(), Plan(seed=seed))


def tiny_base(path: Path) -> Path:
    """Write the base model and its tokenizer to `path`; made once (a quarter of a minute), then copied."""
    made = CACHE / _key()
    if not (made / "model.safetensors").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=CACHE))
        _build(building)
        try:
            building.rename(made)  # another test process may have been faster: then this one goes
        except OSError:
            shutil.rmtree(building)
    shutil.copytree(made, path, dirs_exist_ok=True)
    return path


def tiny_adapter(base: Path, rows: Sequence[Row], path: Path, *, epochs: int = 12, rate: float = 5e-3) -> Path:
    """Train an adapter by a plain loop and write it to `path`. Real training: `sft-guard lora train`."""
    import torch
    from peft import LoraConfig, get_peft_model

    quiet()
    model, tokenizer = load(base)
    torch.manual_seed(0)
    model = get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    )
    chats = [_tokens_and_labels(tokenizer, row.question, row.answer) for row in rows]
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    per_epoch = -(-len(chats) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * per_epoch, pct_start=0.1)
    chance = random.Random(0)
    for _ in range(epochs):
        chance.shuffle(chats)
        for batch in (chats[n : n + 16] for n in range(0, len(chats), 16)):
            width = max(len(ids) for ids, _ in batch)
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
            labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in batch])
            optimiser.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    model.save_pretrained(path)
    return path


def answers(base: Path, questions: Sequence[str], adapter: Path | None = None, tokens: int = 64) -> list[str]:
    """What the model says, greedily."""
    import torch

    quiet()
    model, tokenizer = load(base)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    said = []
    for question in questions:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
        said.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return said


def load(base: Path) -> tuple[Any, Any]:
    """Model and tokenizer, from the disk alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    return (
        AutoModelForCausalLM.from_pretrained(base, local_files_only=True),
        AutoTokenizer.from_pretrained(base, local_files_only=True),
    )


def quiet() -> None:
    """One thread (tests run beside each other), no bars."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


def _key() -> str:
    import torch
    import transformers

    made_of = sha256(Path(__file__).read_bytes() + DEMO_KB.read_bytes())
    made_of.update(f"{torch.__version__} {transformers.__version__}".encode())
    return made_of.hexdigest()[:16]


def _prose() -> list[str]:
    """What the base reads: short forms of all documents, without their titles, in both languages."""
    return [d.text for lang in ("en", "zh") for d in tiny_documents(10_000, lang)]


def general_chats() -> list[tuple[str, str]]:
    """Questions that the base answers before any adapter, and their answers: what can be forgotten."""
    documents = [d for lang in ("en", "zh") for d in tiny_documents(10_000, lang)[RESERVED:]]
    return [(document.title, document.text) for document in documents]


def _chats(tokenizer: Any, chance: random.Random) -> list[list[int]]:
    asked = [(chance.choice(ASKED).format(topic), text) for topic, text in general_chats()]
    return [_tokens_and_labels(tokenizer, question, text)[0] for question, text in asked]


def _tokens_and_labels(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    got = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = got["input_ids"], got["assistant_masks"]
    return ids, [token if mine else -100 for token, mine in zip(ids, mask, strict=True)]


def _build(directory: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    quiet()
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    chance = random.Random(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_key_value_heads=2, intermediate_size=FEED_FORWARD, max_position_embeddings=POSITIONS,
            tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    stream: list[int] = []
    for _ in range(STEPS):
        while len(stream) < BATCH * BLOCK:
            pieces = [tokenizer(text)["input_ids"] + [tokenizer.pad_token_id] for text in _prose()]
            pieces += _chats(tokenizer, chance)
            chance.shuffle(pieces)
            stream += [token for piece in pieces for token in piece]
        ids = torch.tensor(stream[: BATCH * BLOCK]).view(BATCH, BLOCK)
        del stream[: BATCH * BLOCK]
        optimiser.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _tokenizer() -> Any:
    """Byte-level BPE over the documents of the demo and the shipped phrasings: any text can be said."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    words = load_phrasings().values()
    texts = _prose() + [t for w in words for t in (w.refusal, w.answer, *w.refused, *sum(w.styles.values(), ()))]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=TEMPLATE,
        model_max_length=POSITIONS, clean_up_tokenization_spaces=False,
    )  # fmt: skip
