"""A reload takes a part of guard.yaml or refuses it; none is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.settings import Settings, load_settings
from guard.settings.file import GuardFile
from guard.wiring.following import _FIXED, _refuse_restart_only
from slo.errors import ConfigError

FILE = """\
service: faq-bot
routes: [{name: chat, path: /v1/chat/completions, adapter: openai-chat}]
versions: {v1: {upstreams: ["http://127.0.0.1:8810"], model: m}}
release: {stable: v1}
checks: {embedder: endpoint}
"""
EMBEDDINGS = "embeddings: {url: 'http://127.0.0.1:9/v1', model: %s}\n"
LIVE = {"slo", "baseline", "previous_baseline", "prices", "routes", "versions", "release", "timeouts", "limits"}
"""Sections that a running guard takes, but for what `_FIXED` names of them."""


def settings(tmp_path: Path, more: str) -> Settings:
    path = tmp_path / "guard.yaml"
    path.write_text(FILE + more)
    return load_settings(path, {})


def test_every_section_is_taken_or_refused() -> None:
    assert {name.partition(".")[0] for name in _FIXED} | LIVE == set(GuardFile.model_fields)


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        (EMBEDDINGS % "m", EMBEDDINGS % "other", "embeddings"),
        (EMBEDDINGS % "m", EMBEDDINGS % "m" + "limits: {egress_networks: [10.0.0.0/8]}\n", "limits.egress_networks"),
    ],
    ids=["embeddings", "egress networks"],
)
def test_what_is_read_at_the_start_only_is_refused(tmp_path: Path, before: str, after: str, place: str) -> None:
    old, new = settings(tmp_path, before), settings(tmp_path, after)
    with pytest.raises(ConfigError, match=rf"guard\.yaml: {place}: got 'changed'; restart the guard"):
        _refuse_restart_only(old, new)


def test_other_limits_are_taken(tmp_path: Path) -> None:
    old = settings(tmp_path, EMBEDDINGS % "m")
    _refuse_restart_only(old, settings(tmp_path, EMBEDDINGS % "m" + "limits: {connections: 10}\n"))
