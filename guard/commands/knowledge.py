"""kb: the answer path behind the guard."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from guard.commands import kb_files, kb_gate
from guard.commands.common import Groups, add_command, add_group, emit, progress
from guard.commands.kb_files import add_key, key_of, roles_in
from guard.settings import environment_value
from slo.errors import ConfigError


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    kb = add_group(groups, "kb", "knowledge base: make, grow, search, serve")
    init = add_command(kb, "init", run_kb_init, "make an empty knowledge base", "sft-guard kb init --kb kb")
    about = "add documents; known ones are skipped, bad rows are set aside with the reason"
    add = add_command(kb, "add", run_kb_add, about, "sft-guard kb add --kb kb --jsonl documents.jsonl")
    add.add_argument(
        "--jsonl", type=Path, action="append", default=[], metavar="FILE", help='rows {"text": ..., "doc_id"?: ...}'
    )
    add.add_argument(
        "--text", type=Path, action="append", default=[], metavar="FILE", help="plain text, one document a file"
    )
    add.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help=".jsonl .csv .md .html .pdf, anything else as plain text"
    )
    add.add_argument("--update", action="store_true", help="replace what has the same doc_id or came from that file")
    add.add_argument("--near", choices=("off", "report", "skip"), default="report",
                     help="rows nearly the same as known ones (default: report)")  # fmt: skip
    add.add_argument("--acl", default="", metavar="ROLES", help="roles that may see rows which name none: hr,staff")
    add.add_argument("--chunk", default="none", help="none, SIZE/OVERLAP in tokens such as 500/80, or sentence:N")
    about = "add to a copy beside what serves; `kb gate` decides on it"
    add.add_argument("--stage", action="store_true", help=about)
    kb_gate.register(kb)
    search = add_command(kb, "search", run_kb_search, "the best documents for a question",
                         'sft-guard kb search --kb kb "How many days of leave?" --k 3')  # fmt: skip
    search.add_argument("query", help="what to look for")
    search.add_argument("--k", type=int, default=3, help="how many rows")
    search.add_argument(
        "--mode", choices=("hybrid", "embedding", "bm25"), default="hybrid", help="by vectors, words, or both"
    )
    search.add_argument("--roles", metavar="ROLES", help="of the asker: hr,staff; without it everything is seen")
    search.add_argument("--reranker", metavar="NAME", help="cross-encoder (sentence-transformers) for the best 20")
    serve = add_command(kb, "serve", run_kb_serve, "answer questions from it, OpenAI-compatible",
                        "sft-guard kb serve --kb kb --port 8810")  # fmt: skip
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8810, help="port to listen on")
    serve.add_argument(
        "--model-url", help="base URL of an OpenAI-compatible model, for example https://api.openai.com/v1"
    )
    serve.add_argument("--model", default="", help="model name to ask for")
    serve.add_argument("--model-key-env", help="environment variable with its API key")
    serve.add_argument("--routes", type=Path, metavar="FILE", help="routes.yaml: who answers which question")
    about = "rules behind the model (docs/lora.md): answers that miss a known topic are replaced; the file is followed"
    serve.add_argument("--rules", type=Path, metavar="FILE", help=about)
    about = "evaluation.json of the adapter behind: --rules must be, and stay, those that it was judged with"
    serve.add_argument("--evaluation", type=Path, metavar="FILE", help=about)
    serve.add_argument("--prices", type=Path, metavar="FILE", help="price table; default: the one shipped")
    serve.add_argument("--k", type=int, default=3, help="documents a question (default 3)")
    serve.add_argument("--also", action="append", default=[], metavar="NAME=DIR[@GENERATION]",
                       help="answers requests with the header x-kb-generation: NAME")  # fmt: skip
    serve.add_argument("--context-tokens", type=int, metavar="N", help="pack the contexts into so many tokens")
    serve.add_argument("--reranker", metavar="NAME", help="cross-encoder (sentence-transformers) for the best 20")
    for parser in (init, add, search, serve):
        parser.add_argument("--kb", type=Path, required=True, metavar="DIR", help="directory of the knowledge base")
        add_key(parser)
    for parser in (add, search, serve):
        parser.add_argument("--embedder", help="name, path, or none (BM25 only); default: the one it was made with")
    kb_files.register(kb)


def run_kb_init(args: argparse.Namespace) -> int:
    """Make an empty knowledge base."""
    from rag import commands

    result = commands.kb_init(args.kb, key=key_of(args))
    emit(args, result, f"made {args.kb} (kb_version 0)")
    return 0


def run_kb_add(args: argparse.Namespace) -> int:
    """Add files; exit 1 when rows had to be set aside."""
    from rag import commands

    if not args.jsonl and not args.text and not args.files:
        raise ConfigError("kb add", "no file", "name at least one FILE, --jsonl FILE or --text FILE")
    result = commands.kb_add(
        args.kb, jsonl=args.jsonl, text=args.text, files=args.files, chunk=args.chunk, embedder=args.embedder,
        update=args.update, near=args.near, roles=roles_in(args.acl), key=key_of(args), stage=args.stage,
        progress=progress,
    )  # fmt: skip
    lines = [
        f"added {result['added']}, skipped {result['skipped']} (known), set aside {result['quarantined']}; "
        f"kb_version {result['kb_version']}, {result['doc_count']} documents"
    ]
    lines += _strings(result.get("notes"))
    emit(args, result, "\n".join(lines))
    return 1 if result["quarantined"] else 0


def run_kb_search(args: argparse.Namespace) -> int:
    """Print the best documents; exit 1 when there is none."""
    from rag import commands

    result = commands.kb_search(args.kb, args.query, k=args.k, mode=args.mode, embedder=args.embedder,
                                roles=None if args.roles is None else roles_in(args.roles), reranker=args.reranker,
                                key=key_of(args))  # fmt: skip
    hits: Any = result["hits"]
    lines = [f"{hit['similarity']:.4f}  {hit['doc_id']}  {hit['text'][:100]}" for hit in hits]
    emit(args, result, "\n".join(lines) or "nothing found")
    return 0 if hits else 1


def run_kb_serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from rag import commands
    from rag.model_client import ModelConfig

    key = ""
    if args.model_key_env:
        key = environment_value(args.model_key_env) or ""
        if not key:
            raise ConfigError("--model-key-env", args.model_key_env, "set that environment variable")
    for option, count in (("--k", args.k), ("--context-tokens", args.context_tokens)):
        if count is not None and count < 1:
            raise ConfigError(option, count, "write 1 or more; without documents every question would find nothing")
    model = ModelConfig(args.model_url, args.model, api_key=key) if args.model_url else None
    routes = prices = None
    if args.routes:
        from rag.routes_file import load_routes
        from slo.pricing import PriceTable

        if model is not None:
            raise ConfigError("--routes", str(args.routes), "leave --model-url out: the route file names the models")
        routes, prices = load_routes(args.routes, environment_value), PriceTable.load(args.prices)
    return commands.kb_serve(
        args.kb, args.host, args.port, model, embedder=args.embedder, routes=routes, prices=prices,
        others=_others(args.also), context_tokens=args.context_tokens, reranker=args.reranker, key=key_of(args),
        k=args.k, rules=_rules(args, model is not None or routes is not None),
        on_ready=lambda url: emit(args, {"url": url}, "") if args.json else None,
    )  # fmt: skip


def _judged_with(args: argparse.Namespace) -> str | None:
    """Hash of the rules that the adapter was judged with, "" for none; None when nobody said."""
    if args.evaluation is None:
        return None
    from lora.register_gate import rules_of
    from lora.registering import read_evaluation

    wanted = rules_of(read_evaluation(args.evaluation))
    if wanted and args.rules is None:
        cure = f"{args.evaluation} was judged with the rules {wanted[:12]}; name that file"
        raise ConfigError("--rules", "nothing", cure)
    return wanted


def _rules(args: argparse.Namespace, asks_models: bool) -> Any:
    """The rules behind the model, checked against the knowledge base; None without."""
    only = _judged_with(args)
    if args.rules is None:
        return None
    if not asks_models:
        raise ConfigError(
            "--rules", str(args.rules), "name a model with --model-url or --routes: rules speak about its answers"
        )
    from lora.rule_file import RuleFile
    from rag.kb import KnowledgeBase
    from rag.kb_commands import parse_place

    rules = RuleFile(args.rules, progress, only=only)
    directory, generation = parse_place(str(args.kb))
    rules.check(KnowledgeBase.open(directory, generation=generation, key=key_of(args), lazy=True).iter_documents())
    return rules


def _others(said: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in said:
        name, equals, place = text.partition("=")
        if not equals or not place or not re.fullmatch(r"[\w.-]{1,64}", name) or name in (*found, "default"):
            raise ConfigError("--also", text, "write NAME=DIR or NAME=DIR@GENERATION, each name once")
        found[name] = place
    return found


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
