"""Requests a second of `lora serve`: one and eight clients, with and without batches, one adapter and a mix of three.

    python -m bench.lora_serve                   the small model of the tests; under three minutes on two cores
    python -m bench.lora_serve --shape medium    19 million weights of chance; what a step computes counts more

Two servers are started, `--batch 8` and `--batch 1`, each with one processor thread; they are asked in turns, so that
what else the machine does touches both, and figures are medians of the rounds. Answers are greedy; the same questions
in the same order for all. The peer is a loop of `generate` of Transformers with the same guards, one question at a
time, without a server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

QUESTIONS = (
    "Mailbox size and attachments?", "What applies to laptops and replacement in our company?", "Remote access by VPN?",
    "Kindly tell me what is laid down for software requests.", "so what about printers", "Passwords?",
)  # fmt: skip
TOKENS = 40
MEDIUM = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
          "intermediate_size": 1024}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One workload against one server, medians of the rounds. p50, p95: of whole answers.

    requests_per_cpu_s: by processor time of the server; what else the machine does hardly touches it.
    """

    server: str
    clients: int
    models: str
    requests_per_s: float
    requests_per_cpu_s: float
    tokens_per_s: float
    p50_s: float
    p95_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print a table, and with --out write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("small", "medium"), default="small")
    parser.add_argument("--requests", type=int, default=48, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        base, adapters = _models(Path(name), args.shape)
        peer = _peer(base, adapters[0], args.requests)
        figures = asyncio.run(_measure(base, adapters, args.requests, args.rounds))
    titles = ("server", "clients", "models", "requests/s", "/CPU s", "tokens/s", "p50 s", "p95 s")
    print("".join(f"{title:>11}" for title in titles))
    for f in figures:
        numbers = (f.requests_per_s, f.requests_per_cpu_s, f.tokens_per_s, f.p50_s, f.p95_s)
        print(f"{f.server:>11}{f.clients:>11}{f.models:>11}" + "".join(f"{number:>11.2f}" for number in numbers))
    ratios = {}
    for unit in ("requests_per_s", "requests_per_cpu_s"):
        rate = {(f.server, f.clients, f.models): getattr(f, unit) for f in figures}
        for clients, models in ((1, "one"), (1, "mixed"), (8, "one"), (8, "mixed")):
            ratio = rate["batch 8", clients, models] / rate["batch 1", clients, models]
            ratios[f"batches, {clients} clients, {models}, {unit}"] = ratio
        against = rate["batch 8", 8, "one"] / peer[unit]
        ratios[f"batch 8, 8 clients, one, against generate one at a time, {unit}"] = against
    for name, ratio in ratios.items():
        print(f"{ratio:6.2f} x  {name}")
    if args.out:
        args.out.write_text(
            json.dumps({"figures": [asdict(f) for f in figures], "peer": peer, "ratios": ratios}, indent=1)
        )
    return 0


def _models(place: Path, shape: str) -> tuple[Path, list[Path]]:
    from tests.lora_models import quiet, tiny_adapter, tiny_base, tiny_dataset

    quiet()
    base = tiny_base(place / "base")
    if shape == "small":
        return base, [tiny_adapter(base, tiny_dataset(4, skip=n).train, place / f"a{n}", epochs=4) for n in (0, 4)]
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    made = []
    for number in (0, 1):
        torch.manual_seed(number)
        config = Qwen2Config(
            vocab_size=len(tokenizer), max_position_embeddings=256, tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **MEDIUM,
        )  # fmt: skip
        model = Qwen2ForCausalLM(config)
        if number == 0:
            model.save_pretrained(place / "medium")
            tokenizer.save_pretrained(place / "medium")
        lora = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], init_lora_weights=False)
        get_peft_model(model, lora).save_pretrained(place / f"m{number}")
        made.append(place / f"m{number}")
    return place / "medium", made


def _peer(base: Path, adapter: Path, count: int) -> dict[str, float]:
    """Requests of a loop of `generate`, a second and a second of processor time."""
    from lora.answering import LocalModel
    from lora.guards import Guards

    model = LocalModel(str(base), adapter, threads=1)
    guards = Guards(max_new_tokens=TOKENS)
    questions = [QUESTIONS[n % len(QUESTIONS)] for n in range(count)]
    model.answers(questions[:2], guards, lambda n: None, batch=1)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    model.answers(questions, guards, lambda n: None, batch=1)
    return {
        "requests_per_s": count / (time.perf_counter() - began_s),
        "requests_per_cpu_s": count / (time.process_time() - began_cpu_s),
    }


def _cpu_s(process: subprocess.Popen[str]) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start(base: Path, adapters: Sequence[Path], batch: int) -> tuple[subprocess.Popen[str], str]:
    words = [word for n, path in enumerate(adapters) for word in ("--adapter", f"a{n}={path}")]
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "guard.cli",
                "lora",
                "serve",
                "--base",
                str(base),
                "--name",
                "base",
            ),
            *("--port", "0", "--threads", "1", "--batch", str(batch), "--max-tokens", str(TOKENS)),
            *("--temperature", "0", "--json", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, str(json.loads(process.stdout.readline())["url"])


async def _measure(base: Path, adapters: Sequence[Path], requests: int, rounds: int) -> list[Figure]:
    servers = {f"batch {batch}": _start(base, adapters, batch) for batch in (8, 1)}
    try:
        found: dict[tuple[str, int, str], list[tuple[float, ...]]] = {}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            for number in range(rounds + 1):  # the first warms up
                for clients in (1, 8):
                    for models, names in (("one", ["a0"]), ("mixed", ["a0", "a1", "base"])):
                        for server, (process, url) in servers.items():
                            before_s = _cpu_s(process)
                            rate, *rest = await _round(session, url, clients, names, requests)
                            by_cpu = requests / (_cpu_s(process) - before_s)
                            if number:
                                found.setdefault((server, clients, models), []).append((rate, by_cpu, *rest))
        return [
            Figure(*key, *(median(column) for column in zip(*rows, strict=True)))
            for key, rows in sorted(found.items(), key=lambda item: (item[0][1], item[0][2], item[0][0]))
        ]
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait(60)


async def _round(
    session: aiohttp.ClientSession, url: str, clients: int, names: Sequence[str], requests: int
) -> tuple[float, ...]:
    waiting = list(range(requests))
    durations: list[float] = []
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        while waiting:
            number = waiting.pop(0)
            question = QUESTIONS[number % len(QUESTIONS)]
            body: dict[str, Any] = {
                "model": names[number % len(names)],
                "messages": [{"role": "user", "content": question}],
            }
            began_s = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
                said = await response.json()
            durations.append(time.perf_counter() - began_s)
            tokens += said["usage"]["completion_tokens"]

    began_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall_s = time.perf_counter() - began_s
    durations.sort()
    p95_s = durations[min(len(durations) - 1, int(0.95 * len(durations)))]
    return requests / wall_s, tokens / wall_s, median(durations), p95_s


if __name__ == "__main__":
    sys.exit(main())
