"""Resident memory of the guard, stage by stage: `python -m bench.proxy_memory`.

One process loads and starts what `sft-guard serve` does, in this order, and prints after each stage what is resident:
the interpreter, the settings, the data path, exporters, everything that is composed, the registry, the running guard,
and the guard after `--count` requests of 2 kB from a client in another process. `own` is memory of this process alone,
`files` are mapped libraries, which processes on one machine share. Last comes what must not be loaded in a proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import tempfile
from pathlib import Path

GUARD_YAML = """service: bench
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
state_dir: {directory}/state
slo: slo.yaml
routes:
  - {{name: chat, path: /v1/chat/completions, adapter: openai-chat}}
versions:
  v1: {{upstreams: ["http://127.0.0.1:{upstream}"], model: gpt-4o-mini}}
release: {{stable: v1}}
checks: {{embedder: none}}
"""
UNWANTED = ("alembic", "duckdb", "faiss", "matplotlib", "numpy", "pyarrow", "torch", "transformers")
WATCHED = ("aiohttp", "sqlalchemy", "fastapi", "pydantic", "uvicorn", "opentelemetry")
WORDS = "Employees receive 14 days of annual leave per year. "


def main() -> int:
    """Print one line per stage; 1 when a library is loaded that no proxy needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="requests after the start")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        asyncio.run(_load(asked.count))
        return 0
    print(f"{'stage':<26}{'RSS MB':>8}{'own':>8}{'files':>8}{'modules':>9}")
    _line("interpreter, asyncio")
    for stage, module in (("settings", "guard.settings"), ("data path", "guard.proxy")):
        importlib.import_module(module)
        _line(stage)
    for module in ("exporters.prometheus", "exporters.exchange_log", "exporters.parquet"):
        importlib.import_module(module)
    _line("exporters")
    importlib.import_module("guard.admin.api")
    importlib.import_module("guard.admin.server")
    _line("admin listener")
    importlib.import_module("guard.app")
    _line("everything composed")
    asyncio.run(_guarded(asked.count))
    found = [name for name in UNWANTED if name in sys.modules]
    print(
        f"loaded: {', '.join(name for name in WATCHED if name in sys.modules)}; unwanted: {', '.join(found) or 'none'}"
    )
    return 1 if found else 0


def _line(stage: str) -> None:
    """What /proc says now."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    total, own, files = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile"))
    print(f"{stage:<26}{total:>8.1f}{own:>8.1f}{files:>8.1f}{len(sys.modules):>9}", flush=True)


async def _guarded(count: int) -> None:
    """The guard itself, in this process; upstream and client in another."""
    from guard.settings import load_settings
    from guard.wiring import Guard

    command = [sys.executable, "-m", "bench.proxy_memory", "--count", str(count), "--load"]
    with tempfile.TemporaryDirectory(prefix="sft-memory-") as directory:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdin is not None
        upstream = int(await child.stdout.readline())
        place = Path(directory)
        (place / "slo.yaml").write_text("service: bench\npreset: support-faq\n")
        (place / "guard.yaml").write_text(GUARD_YAML.format(directory=directory, upstream=upstream))
        guard = Guard(load_settings(place / "guard.yaml"))
        _line("guard built")
        try:
            await guard.start()
            _line("guard started")
            child.stdin.write(guard.addresses[0].split(":")[1].encode() + b"\n")
            answered = int(await child.stdout.readline())
            _line(f"after {answered:,} requests")
            await asyncio.sleep(3)
            _line("3 s later")
        finally:
            await guard.stop(drain=False)
            await child.wait()


async def _load(count: int) -> None:
    """An upstream, then 16 connections that ask through the guard, one after another each."""
    answer = json.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": WORDS * 10}}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59},
        }
    ).encode()
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": WORDS * 38}]}).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _message(reader):
            writer.write(b"HTTP/1.1 200 OK\r\n" + head % len(answer) + answer)
        writer.close()

    async def ask(port: int, number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        good = 0
        for _ in range(number):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\n" + head % len(body) + body)
            good += (await _message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        return good

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    port = int(await asyncio.to_thread(sys.stdin.readline) or 0)
    if port:
        print(sum(await asyncio.gather(*(ask(port, count // 16) for _ in range(16)))), flush=True)
    server.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Head of one message with a content-length, its body read; empty at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    except (asyncio.IncompleteReadError, asyncio.CancelledError):  # the other side, or this process, is done
        return b""
    return head


if __name__ == "__main__":
    sys.exit(main())
