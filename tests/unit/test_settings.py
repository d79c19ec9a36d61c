"""guard.yaml: what is accepted, and in which words the rest is refused."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guard.limits import Egress
from guard.ports import Limits, Timeouts
from guard.settings import Settings, load_settings, parse_origin, split_host_port
from guard.upstream import Upstreams
from guard.wiring.following import follow
from slo.errors import ConfigError

R = "release: {stable: v1.0.0}"
SMALL = """\
service: faq-bot
routes:
  - {name: chat, path: /v1/chat/completions, adapter: openai-chat}
versions:
  v1.0.0: {upstreams: ["http://127.0.0.1:8810"], model: m, kb: "1"}
release: {stable: v1.0.0}
"""


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "guard.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environment or {})


def test_the_smallest_file_has_every_default(tmp_path: Path) -> None:
    settings = load(tmp_path, SMALL)
    assert settings.file.listen.data == "127.0.0.1:8800"
    assert settings.file.release.mode == "recommend"
    assert settings.file.exchange_log.text == "redacted"
    assert settings.admin_token is None
    assert settings.state_dir == tmp_path / "state"
    assert settings.targets["v1.0.0"].endpoints[0].port == 8810


def test_a_reload_does_not_pretend_to_have_changed_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("the-one-that-leaked-0123456789")
    text = SMALL + "admin: {token_file: token}\n"
    old = load(tmp_path, text)
    guard: Any = SimpleNamespace(settings=old, clock=None)
    token.write_text("the-new-one-0123456789")
    with pytest.raises(ConfigError, match=r"admin.token_file.*restart the guard") as refused:
        asyncio.run(follow(guard, load(tmp_path, text)))
    assert "0123456789" not in str(refused.value)
    assert guard.settings is old


def test_units_are_converted_once_at_the_border(tmp_path: Path) -> None:
    text = SMALL.replace(
        "release: {stable: v1.0.0}",
        "release:\n  stable: v1.0.0\n  plan: [{weight: 0.3%, hold: 1h30m, min_events: 5}]\n"
        "limits: {capture: 64KiB}\ntimeouts: {idle: 45s}\nexchange_log: {keep: 7d}",
    )
    file = load(tmp_path, text).file
    assert file.release.plan[0].weight == 0.003  # type: ignore[union-attr]
    assert file.release.plan[0].hold == 5400.0  # type: ignore[union-attr]
    assert file.limits.to_ports().capture_bytes == 65536
    assert file.timeouts.to_ports().idle_s == 45.0
    assert file.exchange_log.keep == 7 * 86400.0


@pytest.mark.parametrize(
    ("change", "place", "cure"),
    [
        (("adapter: openai-chat", "adapter: openai"), "routes[0].adapter", "openai-chat"),
        (("kb:", "kbb:"), "versions.v1.0.0.kbb", "did you mean `kb`?"),
        (("stable: v1.0.0", "stable: v9"), "guard.yaml", "not in versions"),
        (("http://127.0.0.1:8810", "ftp://127.0.0.1"), "versions.v1.0.0.upstreams", "write http:// or https://"),
        (("http://127.0.0.1:8810", "http://u:p@127.0.0.1"), "versions.v1.0.0.upstreams", "no user or password"),
        (("path: /v1", "path: v1"), "routes[0].path", "match pattern"),
        (("service: faq-bot", "service: FAQ bot"), "service", "match pattern"),
        (("service: faq-bot", "service: a\nservice: b"), "guard.yaml:2:1", "stands twice"),
        (("service: faq-bot", "service: &x a\nadmin: *x"), "guard.yaml:2", "aliases"),
        ((R, R + "\nlimits: {capture: 64KB}"), "limits.capture", "64MiB"),
        ((R, "release: {stable: v1.0.0, evaluate_every: soon}"), "release.evaluate_every", "10m"),
        ((R, "release: {stable: v1.0.0, evaluate_every: 1m}"), "release.evaluate_every", "30"),
        ((R, R + "\nlisten: {data: '8800'}"), "listen.data", "host:port"),
        (("routes:", "routs:"), "routs", "did you mean `routes`?"),
    ],
)  # fmt: skip
def test_an_error_names_file_path_value_and_cure(
    tmp_path: Path, change: tuple[str, str], place: str, cure: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SMALL.replace(*change))
    messages = [str(e) for e in (caught.value, *caught.value.more)]
    assert any(place in m and cure in m and "guard.yaml" in m for m in messages), messages
    assert all("\n" not in m for m in messages)


def test_two_versions_that_differ_in_nothing_are_refused(tmp_path: Path) -> None:
    text = SMALL.replace("release:", '  v2: {upstreams: ["http://127.0.0.1:1"], model: m, kb: "1"}\nrelease:')
    with pytest.raises(ConfigError, match="one release"):
        load(tmp_path, text)


def test_two_routes_with_one_path_are_refused(tmp_path: Path) -> None:
    text = SMALL.replace("versions:", "  - {name: b, path: /v1/chat/completions, adapter: json}\nversions:")
    with pytest.raises(ConfigError, match="two routes have the path"):
        load(tmp_path, text)


def test_a_secret_is_named_in_the_file_and_read_from_the_environment(tmp_path: Path) -> None:
    text = SMALL.replace('kb: "1"', 'kb: "1", api_key_env: UPSTREAM_KEY')
    with pytest.raises(ConfigError, match="set the environment variable UPSTREAM_KEY"):
        load(tmp_path, text)
    settings = load(tmp_path, text, {"UPSTREAM_KEY": "sk-1"})
    assert settings.targets["v1.0.0"].set_headers == (("authorization", "Bearer sk-1"),)


def test_headers_that_choose_a_version_are_taken_from_no_client(tmp_path: Path) -> None:
    headers = "headers: {X-KB-Generation: canary, authorization: 'Bearer a'}"
    other = f'  v2: {{upstreams: ["http://127.0.0.1:1"], model: m2, {headers}}}\nrelease:'
    settings = load(tmp_path, SMALL.replace("release:", other))
    assert settings.targets["v1.0.0"].drop_headers == {"x-kb-generation"}  # its own key a client may bring
    assert settings.targets["v2"].drop_headers == frozenset()


def test_a_webhook_secret_of_another_kind_is_refused_without_showing_it(tmp_path: Path) -> None:
    text = SMALL + "webhooks: [{name: bot, url: 'http://127.0.0.1:1/hook', secret_env: HOOK}]\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, {"HOOK": "hunter2hunter2"})
    assert "whsec_" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sft-guard init"):
        load_settings(tmp_path / "guard.yaml", {})


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most"):
        load(tmp_path, "a: " + "x" * 2_000_000)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "guard.yaml"
    path.write_bytes(b"service: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_settings(path, {})


@pytest.mark.parametrize("text", ["http://h", "https://h:1/base", "http://[::1]:8080"])
def test_origins_are_read(text: str) -> None:
    assert parse_origin(text).host in {"h", "::1"}


@pytest.mark.parametrize("text", ["h:1", "http://", "http://h?q", "http://h#f", "file:///etc/passwd", "http://h:99999"])
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's own words for a bad port
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://b\u00fccher.example:1", "xn--bcher-kva.example"),
        ("https://\u5ba2\u670d.example", "xn--ubtq9x.example"),
        ("http://\uff11\uff12\uff17\u30020\u30020\u30021:1", "127.0.0.1"),  # full-width digits and full stops
    ],
    ids=["umlaut", "chinese", "full width"],
)
def test_a_host_in_another_script_has_its_ascii_form(text: str, host: str) -> None:
    endpoint = parse_origin(text)
    assert endpoint.host == host
    assert Upstreams(Limits(), Timeouts(), lambda: 0.0, Egress()).pool(endpoint).host_header.startswith(host.encode())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://h/\u77e5\u8b58", "write its path as /%E7%9F%A5%E8%AD%98"),
        ("http://h/a b", "write its path as /a%20b"),
        ("http://a b/", "`a b` is no host name"),
        (f"http://{'a' * 64}.example", "is no host name"),
        ("http://a..b", "`a..b` is no host name"),
    ],
    ids=["chinese path", "blank in the path", "blank in the host", "label too long", "empty label"],
)
def test_an_address_that_no_request_can_carry_is_refused_with_the_form_that_can(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_origin(text)


@pytest.mark.parametrize("value", ["\u5ba2\u670d", "a\u2013b", "a\x1b[0m"], ids=["chinese", "dash", "control"])
def test_a_header_that_no_request_can_carry_is_refused(tmp_path: Path, value: str) -> None:
    """Each request to that version was answered 500, and none of them counted against it."""
    text = SMALL.replace('kb: "1"', f"kb: '1', headers: {{x-team: {json.dumps(value)}}}")
    with pytest.raises(ConfigError, match=r"versions\.v1\.0\.0\.headers.*x-team`: no header carries such"):
        load(tmp_path, text)
    assert load(tmp_path, text.replace(json.dumps(value), '"caf\u00e9"')).targets["v1.0.0"].set_headers


@pytest.mark.parametrize("key", ["sk-\uff11", "sk-1\nsk-2", "sk-\u00e9"], ids=["full width", "two lines", "latin"])
def test_a_key_that_no_request_can_carry_is_refused_without_showing_it(tmp_path: Path, key: str) -> None:
    text = SMALL.replace('kb: "1"', 'kb: "1", api_key_env: UPSTREAM_KEY')
    with pytest.raises(ConfigError, match=r"versions\.v1\.0\.0\.api_key_env.*UPSTREAM_KEY.*copy it anew") as caught:
        load(tmp_path, text, {"UPSTREAM_KEY": key})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("text", ["8800", "h:", ":1", "h:x", "h:70000"])
def test_addresses_need_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_host_port(text)


@pytest.mark.parametrize(
    ("webhook", "said"),
    [
        ("{name: ops, url: 'http://127.0.0.1:1/x'}", "secret_env is required"),
        ("{name: ops, format: slack}", "give either url or url_env"),
        ("{name: ops, format: slack, url: 'http://127.0.0.1:1/x', url_env: X}", "give either url or url_env"),
        ("{name: ops, format: slack, url_env: CHAT_URL}", "must be an http(s) URL"),
    ],
)
def test_a_webhook_is_signed_or_a_chat(tmp_path: Path, webhook: str, said: str) -> None:
    path = tmp_path / "guard.yaml"
    path.write_text(SMALL + f"webhooks: [{webhook}]\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {"CHAT_URL": "a-secret-that-is-no-address"})
    assert said in str(caught.value)
    assert "a-secret" not in str(caught.value)


def test_the_address_of_a_chat_comes_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "guard.yaml"
    path.write_text(SMALL + "webhooks: [{name: ops, format: slack, url_env: CHAT_URL}]\n")
    settings = load_settings(path, {"CHAT_URL": "https://hooks.example/services/T0"})
    assert settings.webhook_urls == {"ops": "https://hooks.example/services/T0"}
    assert settings.webhook_secrets == {}
