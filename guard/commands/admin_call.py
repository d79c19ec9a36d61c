"""Asking the admin listener of a running guard, for every command that does."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from guard.commands.common import progress
from guard.commands.plain_http import ask_plainly
from guard.settings import environment_value
from guard.settings.entry import AdminEntry, admin_entry
from slo.errors import ConfigError, RefusedError, UpstreamError

DEFAULT_ADMIN = "http://127.0.0.1:8801"
ADMIN_ENV = "SFT_GUARD_ADMIN"
TOKEN_ENV = "SFT_GUARD_TOKEN"  # noqa: S105 - the name of a variable
HERE = Path("guard.yaml")
TIMEOUT_S = 30.0
ANSWER_BYTES = 64 * 2**20


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    """Where the guard is, and how to be allowed in."""
    about = "take the admin address and token from this guard.yaml (default: ./guard.yaml where there is one)"
    parser.add_argument("-c", "--config", type=Path, help=about)
    about = f"admin listener; without it -c, {ADMIN_ENV}, ./guard.yaml, then {DEFAULT_ADMIN}"
    parser.add_argument("--admin", metavar="URL", help=about)
    about = f"environment variable with the bearer token (default: what guard.yaml names, else {TOKEN_ENV})"
    parser.add_argument("--token-env", metavar="NAME", help=about)


@dataclass(frozen=True, slots=True)
class WhichGuard:
    """One guard and how it was found. token_env: variable that would hold its token; None: it is in a file."""

    url: str
    how: str
    token_env: str | None
    entry: AdminEntry | None = None

    def token(self) -> str | None:
        """Its bearer token, None when there is none to be had. Raises ConfigError: a file that cannot be read."""
        if self.token_env is not None:
            return environment_value(self.token_env)
        return self.entry.token_of_file() if self.entry is not None else None

    def __str__(self) -> str:
        return f"{self.url} ({self.how})"


def which_guard(args: argparse.Namespace) -> WhichGuard:
    """The guard that a command is about: --admin, -c, SFT_GUARD_ADMIN, ./guard.yaml, the default port; the first named.

    A token belongs to a guard: that of a guard.yaml is taken only when the file was named or gave the address.

    Raises:
        ConfigError: the guard.yaml that decides cannot be used, or an address is no URL.
    """
    named = args.admin, "--admin"
    if args.admin is None and args.config is None:
        named = environment_value(ADMIN_ENV), ADMIN_ENV
    url, how = named
    if url is not None and not _is_origin(url):
        raise ConfigError(how, url, "write http://host:port")
    entry = None
    if args.config is not None:
        entry = admin_entry(args.config)
        url, how = (url, how) if url is not None else (entry.url, f"listen.admin of {args.config}")
    elif url is None and HERE.is_file():
        try:
            entry = admin_entry(HERE)
        except ConfigError as error:
            cure = f"{error.cure}; or name the guard by --admin"
            raise ConfigError(f"./{error.place}", error.value, cure) from error
        url, how = entry.url, f"listen.admin of ./{HERE}"
    if url is None:
        url, how = DEFAULT_ADMIN, f"the default: no --admin, -c, {ADMIN_ENV} or ./{HERE}"
    token_env = args.token_env
    if token_env is None and (entry is None or entry.token_file is None):
        token_env = (entry.token_env if entry is not None else None) or TOKEN_ENV
    return WhichGuard(url.rstrip("/"), how, token_env, entry)


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or brackets that do not close
        return False


def call_admin(args: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the admin listener, and say on standard error which one answered.

    Reading needs no token, so none is sent unless the guard asks for it.

    Raises:
        ConfigError: it cannot be told which guard is meant.
        UpstreamError: it cannot be reached or answers nonsense.
        RefusedError: it says no; the message is its own.
    """
    guard = which_guard(args)
    data = json.dumps(body).encode() if body is not None else None
    token = guard.token() if method != "GET" else None
    try:
        try:
            kind, answer = _ask(method, guard.url + path, data, token)
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403) or token:
                raise
            token = guard.token()
            if not token:
                if error.code == 403:
                    raise
                raise RefusedError("no_token", _no_token(guard, path)) from error
            kind, answer = _ask(method, guard.url + path, data, token)
    except urllib.error.HTTPError as error:
        raise _refusal(error, guard, path) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UpstreamError(
            f"{guard}: {reason}; is `sft-guard serve` running, and is this its admin address?"
        ) from error
    if getattr(args, "asked", None) != guard.url:
        args.asked = guard.url
        progress(f"sft-guard: asked {guard}")
    if kind != "application/json":
        return {"markdown": answer.decode("utf-8", "replace")}
    try:
        result = json.loads(answer)
    except ValueError as error:
        raise UpstreamError(f"{guard}: {path}: the answer is not JSON; is this the admin listener?") from error
    return result if isinstance(result, dict) else {"items": result}


def _ask(method: str, url: str, data: bytes | None, token: str | None) -> tuple[str, bytes]:
    """Content type and body of the answer. Raises urllib's errors and OSError."""
    request = urllib.request.Request(url, data, method=method)  # noqa: S310 - http(s) was checked
    request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    return ask_plainly(request, TIMEOUT_S, ANSWER_BYTES)


def _no_token(guard: WhichGuard, path: str) -> str:
    if guard.token_env is None:
        return f"{guard.url}{path} needs a token, and the file that admin.token_file names is empty"
    cure = f"export {guard.token_env} with the token that the guard was started with, or name it by --token-env"
    return f"{guard.url}{path} needs a token: {cure} ({guard.how})"


def _refusal(error: urllib.error.HTTPError, guard: WhichGuard, path: str) -> RefusedError:
    """The server's own words, or what the status means; and which guard said so."""
    try:
        detail = json.loads(error.read())["error"]
        return RefusedError(str(detail.get("type", error.code)), f"{detail['message']}; so says {guard}")
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        elsewhere = "it sends elsewhere, which is not followed; name the guard itself by --admin"
        cure = {401: "set the token", 404: "changing state is off until the guard has an admin token"}.get(
            error.code, elsewhere if 300 <= error.code < 400 else "see its log"
        )
        return RefusedError(str(error.code), f"{guard}: {path} answers {error.code}; {cure}")
