"""The answer path of the demo as one process: every knowledge base on its port, one embedder for all.

python -m guard.demo.answer_path --kb DIR:PORT [--kb DIR:PORT] [--model-url http://127.0.0.1:8811/v1]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from guard.demo.model_server import MODEL_NAME
from rag.model_client import ModelConfig
from rag.servers import serve_many
from slo.errors import GuardError

READY = "answering on"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="The demo's answer path.")
    parser.add_argument("--kb", action="append", required=True, metavar="DIR:PORT", help="a port of 0 takes a free one")
    parser.add_argument("--model-url", help="OpenAI-compatible model; without one answers are extractive")
    parser.add_argument("--embedder", default="static")
    args = parser.parse_args(argv)
    kbs = [(Path(directory), int(port)) for directory, _, port in (text.rpartition(":") for text in args.kb)]
    model = ModelConfig(args.model_url, MODEL_NAME) if args.model_url else None

    def ready(ports: list[int]) -> None:
        print(READY, *ports, flush=True)

    try:
        asyncio.run(serve_many(kbs, model=model, embedder=args.embedder, on_ready=ready))
    except GuardError as error:
        print(f"sft-guard: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
