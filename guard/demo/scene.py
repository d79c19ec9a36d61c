"""What the demo runs on, written to one directory: two knowledge bases, guard.yaml, slo.yaml.

The files are ordinary ones; `sft-guard check`, `serve` and `release` work on them like on anybody's.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from guard.demo.model_server import MODEL_NAME
from guard.demo.rebuild import Rebuild
from rag.embedding import Embedder
from rag.kb import KnowledgeBase
from slo.types import Version

SERVICE = "northlake-assistant"
STABLE, CANARY = "v1.2.0", "v1.2.1"
PLAN = "20% for 2h"
WINDOW = "1m"
"""Window of the rules that use the baseline, as in slo.yaml beside this file."""
TOKEN_ENV, SECRET_ENV = "SFT_GUARD_DEMO_TOKEN", "SFT_GUARD_DEMO_WEBHOOK"
PROMPT_VERSION = "p3"


@dataclass(frozen=True, slots=True)
class Release:
    """One version of the demo: its knowledge base and where it is answered."""

    version: Version
    build: Rebuild
    port: int


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made for one run, handed over in the environment only."""

    admin_token: str
    webhook_secret: str

    @classmethod
    def fresh(cls) -> Secrets:
        """New ones."""
        return cls(secrets.token_hex(24), "whsec_" + b64encode(secrets.token_bytes(32)).decode())

    def environment(self) -> dict[str, str]:
        """As `guard.yaml` of the demo names them."""
        return {TOKEN_ENV: self.admin_token, SECRET_ENV: self.webhook_secret}


def make_release(name: str, build: Rebuild, kb: KnowledgeBase, port: int, model: str = MODEL_NAME) -> Release:
    """The release that a knowledge base makes together with model and prompt."""
    return Release(Version(name, model=model, kb=kb.content_id, prompt=PROMPT_VERSION, policy="default"), build, port)


def build_kb(directory: Path, build: Rebuild, embedder: Embedder | None) -> KnowledgeBase:
    """Write the rows of a build as a knowledge base, the faulty ones too.

    Raises:
        DataError, RefusedError: the directory cannot be written, or holds one already.
    """
    kb = KnowledgeBase.init(directory, embedder=embedder)
    rows: list[dict[str, object]] = [
        {"doc_id": row.doc_id, "lang": row.lang, "title": row.title, "text": row.text} for row in build.rows
    ]
    kb.add(rows, allow_bad=True, dedupe=False)
    return kb


def write_rules(directory: Path) -> None:
    """Write slo.yaml and prices.yaml."""
    for name in ("slo.yaml", "prices.yaml"):
        text = files("guard.demo").joinpath(name).read_text(encoding="utf-8")
        (directory / name).write_text(text, encoding="utf-8")


def write_guard_yaml(
    path: Path,
    releases: Sequence[Release],
    *,
    data: str = "127.0.0.1:0",
    admin: str = "127.0.0.1:0",
    embedder: str,
    webhook_port: int | None = None,
    enforce: bool = False,
    token: bool = False,
    baseline: bool = False,
    cache: bool = False,
) -> None:
    """Write guard.yaml for these releases; the first one is stable.

    cache: the answers are extracts of the knowledge base, so one question has one answer.
    """
    lines = [
        f"service: {SERVICE}",
        f"listen: {{data: '{data}', admin: '{admin}'}}",
        f"admin: {{token_env: {TOKEN_ENV}}}" if token else "",
        "state_dir: state",
        "slo: slo.yaml",
        "baseline: baseline.json" if baseline else "",
        "routes:",
        "  - name: chat",
        "    path: /v1/chat/completions",
        "    adapter: openai-chat",
        "    contexts: {body: retrieval.contexts, retrieval_s: retrieval.duration_s}",
        "  - name: ask",
        "    path: /ask",
        "    adapter: json",
        "    contexts: {body: contexts, retrieval_s: retrieval.duration_s}",
        "  - {name: models, path: /v1/models, adapter: passthrough}",
        "versions:",
        *(line for release in releases for line in _version_lines(release)),
        "release:",
        f"  stable: {releases[0].version.name}",
        f"  mode: {'enforce' if enforce else 'recommend'}",
        f"  plan: {PLAN}",
        "  evaluate_every: 1s" if enforce else "",
        f"checks: {{embedder: {embedder}}}",
        "prices: prices.yaml",
        "cache: {routes: {chat: {assume_deterministic: true}, ask: {assume_deterministic: true}}}" if cache else "",
    ]
    if webhook_port is not None:
        lines += [
            "webhooks:",
            "  - name: bot",
            f"    url: 'http://127.0.0.1:{webhook_port}/hook'",
            f"    secret_env: {SECRET_ENV}",
            "    events: [rollback]",
        ]
    path.write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")


def _version_lines(release: Release) -> list[str]:
    version, build = release.version, release.build
    return [
        f"  {version.name}:",
        f"    upstreams: ['http://127.0.0.1:{release.port}']",
        f"    model: {version.model}",
        f"    kb: '{version.kb}'",
        f"    prompt: {version.prompt}",
        f"    policy: {version.policy}",
        "    details:",
        f"      chunking: '{build.chunking}'",
        f"      rows: '{len(build.rows)}'",
        f"      mean_row_tokens: '{build.mean_length:.0f}'",
        f"      empty_rows: '{build.empty_count}'",
        f"      duplicate_rows: '{build.duplicate_count}'",
    ]
