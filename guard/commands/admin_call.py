"""Asking the admin listener of a running guard, for every command that does."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from guard.settings import environment_value, load_settings
from slo.errors import RefusedError, UpstreamError


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    """Where the guard is, and how to be allowed in."""
    parser.add_argument("-c", "--config", type=Path, help="take the admin address and token from this guard.yaml")
    parser.add_argument("--admin", help="admin listener (default http://127.0.0.1:8801)")
    parser.add_argument("--token-env", default="SFT_GUARD_TOKEN", help="environment variable with the bearer token")


def call_admin(args: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the admin listener.

    Raises:
        UpstreamError: it cannot be reached or answers nonsense.
        RefusedError: it says no; the message is its own.
    """
    base, token = args.admin or "http://127.0.0.1:8801", environment_value(args.token_env)
    if args.config:
        settings = load_settings(args.config)
        base = args.admin or f"http://{settings.file.listen.admin}"
        token = settings.admin_token or token
    if not base.startswith(("http://", "https://")):
        raise UpstreamError(f"--admin {base}: write http://host:port")
    request = urllib.request.Request(base.rstrip("/") + path, method=method)  # noqa: S310 - http(s) checked above
    request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(request, data, timeout=30) as response:  # noqa: S310
            answer = response.read()
            kind = response.headers.get_content_type()
    except urllib.error.HTTPError as error:
        if error.code == 401 and not token:
            cure = f"export {args.token_env} with the token that the guard was started with, or name it by --token-env"
            raise RefusedError("no_token", f"{base}{path} needs a token: {cure}") from error
        raise _refusal(error, base + path) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UpstreamError(
            f"{base}: {reason}; is `sft-guard serve` running, and is this its admin address?"
        ) from error
    if kind != "application/json":
        return {"markdown": answer.decode("utf-8", "replace")}
    try:
        result = json.loads(answer)
    except ValueError as error:
        raise UpstreamError(f"{base}{path}: the answer is not JSON; is this the admin listener?") from error
    return result if isinstance(result, dict) else {"items": result}


def _refusal(error: urllib.error.HTTPError, url: str) -> RefusedError:
    """The server's own words, or what the status means."""
    try:
        detail = json.loads(error.read())["error"]
        return RefusedError(str(detail.get("type", error.code)), str(detail["message"]))
    except (ValueError, KeyError, TypeError):
        cure = {401: "set the token", 404: "changing state is off until the guard has an admin token"}.get(
            error.code, "see its log"
        )
        return RefusedError(str(error.code), f"{url} answers {error.code}; {cure}")
