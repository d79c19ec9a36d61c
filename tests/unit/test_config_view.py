"""`/api/v1/config` needs no token, so nothing in it may open anything."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from guard.backend import GuardBackend
from guard.settings import load_settings

GUARD = """\
service: faq-bot
slo: null
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {upstreams: ["http://127.0.0.1:9/base"], headers: {x-key: s3cret}}}
release: {stable: v1}
webhooks:
  - {name: ops, format: slack, url: "https://chat.example.com:8443/services/T0/B0/s3cret"}
  - {name: bot, url: "http://127.0.0.1:9", secret_env: SECRET}
"""


def test_the_running_configuration_shows_no_header_and_no_address_of_a_chat(tmp_path: Path) -> None:
    (tmp_path / "guard.yaml").write_text(GUARD)
    settings = load_settings(tmp_path / "guard.yaml", {"SECRET": "whsec_" + "czNjcmV0" * 4})
    parts: Any = SimpleNamespace(settings=settings, last_reload=(True, 0.0))
    shown = msgspec.json.encode(GuardBackend(parts).config()).decode()
    assert "s3cret" not in shown
    assert "czNjcmV0" not in shown
    webhooks = json.loads(shown)["settings"]["webhooks"]
    assert [webhook["url"] for webhook in webhooks] == ["https://chat.example.com:8443/(hidden)", "http://127.0.0.1:9"]
    assert settings.webhook_urls["ops"].endswith("/s3cret")  # what is called is the whole address
