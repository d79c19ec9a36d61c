"""A reload names the part of the cache that only a restart can change, and takes the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.reference import PAGES
from guard.wiring.following import _refuse_restart_only, restart_only
from slo.errors import ConfigError
from tests.unit.test_settings import SMALL, load


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("cache: {ttl: 1h}", "cache: {max_bytes: 1MiB}", "cache.max_bytes"),
        ("cache: {ttl: 1h}", "cache: {warming: {in_flight: 1}}", "cache.warming"),
        ("cache: {ttl: 1h}", "cache: {enabled: false}", "cache.enabled"),
        ("", "cache: {ttl: 1h}", "cache.enabled"),
        ("", "checks: {queue: 100}", "checks"),
    ],
)
def test_what_only_a_restart_can_change_is_refused_with_its_place(
    before: str, after: str, place: str, tmp_path: Path
) -> None:
    old, new = load(tmp_path, f"{SMALL}{before}\n"), load(tmp_path, f"{SMALL}{after}\n")
    with pytest.raises(ConfigError, match="restart the guard to change this part") as caught:
        _refuse_restart_only(old, new)
    assert caught.value.place == f"guard.yaml: {place}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cache: {ttl: 1h}", "cache: {ttl: 2h, routes: {chat: {enabled: false}}}"),
        ("", "cache: {enabled: false, max_bytes: 1MiB}"),
    ],
)
def test_the_rest_is_taken(before: str, after: str, tmp_path: Path) -> None:
    _refuse_restart_only(load(tmp_path, f"{SMALL}{before}\n"), load(tmp_path, f"{SMALL}{after}\n"))


def test_the_settings_page_lists_what_needs_a_restart() -> None:
    page = PAGES["settings.md"]()
    assert {"listen", "checks", "cache.max_bytes"} <= set(restart_only())
    assert ", ".join(f"`{name}`" for name in restart_only()) in page
