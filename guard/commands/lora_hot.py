"""lora load, lora unload: adapters of a running `lora serve`, while it answers."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from typing import Any

from guard.commands.common import Groups, add_command, emit
from guard.commands.plain_http import ask_plainly
from guard.settings import environment_value
from slo.errors import ConfigError, RefusedError, UpstreamError

SERVER = "http://127.0.0.1:8830"
TOKEN_ENV = "SFT_LORA_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S = 120.0
ANSWER_BYTES = 2**20


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    example = (
        "sft-guard lora load hr-v4 sealed:hr-rules@v4\n"
        "  sft-guard lora load hr-v4 /adapters/hr-v4 --replace --server http://127.0.0.1:8830"
    )
    about = "load an adapter into a running `lora serve`; answers under way end with what they began with"
    load = add_command(lora, "load", run_load, about, example)
    load.add_argument("name", metavar="NAME", help="model name under which it is asked")
    about = "directory under the server's --adapter-root, or sealed:NAME@VERSION of its vault"
    load.add_argument("source", metavar="SOURCE", help=about)
    load.add_argument("--replace", action="store_true", help="an adapter of that name is replaced")
    about = "environment variable with your token of the vault; default: the server opens with its own"
    load.add_argument("--vault-token-env", metavar="NAME", help=about)
    about = "take an adapter out of a running `lora serve`, when the answers under way are done"
    unload = add_command(lora, "unload", run_unload, about, "sft-guard lora unload hr-v3")
    unload.add_argument("name", metavar="NAME", help="model name under which it is asked")
    for parser in (load, unload):
        parser.add_argument("--server", default=SERVER, metavar="URL", help="of `lora serve` (default %(default)s)")
        about = "environment variable with the server's admin token (default %(default)s)"
        parser.add_argument("--admin-token-env", default=TOKEN_ENV, metavar="NAME", help=about)


def run_load(args: argparse.Namespace) -> int:
    """Load; whatever the server refuses is one line and exit 2."""
    body = {"lora_name": args.name, "lora_path": args.source, "load_inplace": args.replace}
    said = _asked(args, "/v1/load_lora_adapter", body, _secret("--vault-token-env", args.vault_token_env))
    emit(args, said, f"loaded {said.get('loaded')} from {said.get('source')} (sha256 {str(said.get('sha256'))[:12]})")
    return 0


def run_unload(args: argparse.Namespace) -> int:
    """Unload; whatever the server refuses is one line and exit 2."""
    said = _asked(args, "/v1/unload_lora_adapter", {"lora_name": args.name}, None)
    emit(args, said, f"unloaded {said.get('unloaded')}")
    return 0


def _secret(flag: str, name: str | None) -> str | None:
    if name is None:
        return None
    value = environment_value(name)
    if not value:
        raise ConfigError(flag, name, "set that environment variable")
    return value


def _asked(args: argparse.Namespace, path: str, body: dict[str, Any], vault_token: str | None) -> dict[str, Any]:
    """The server's answer.

    Raises:
        ConfigError: no address, no token. UpstreamError: no such server there. RefusedError: it says no, in its words.
    """
    from rag.bearer import clean_key, plain_url

    url = plain_url(args.server, "--server").rstrip("/").removesuffix("/v1") + path
    token = clean_key(_secret("--admin-token-env", args.admin_token_env) or "", args.admin_token_env)
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")  # noqa: S310 - http(s) was checked
    request.add_header("content-type", "application/json")
    request.add_header("authorization", f"Bearer {token}")
    if vault_token is not None:
        request.add_header("x-vault-token", clean_key(vault_token, args.vault_token_env))
    try:
        answer = json.loads(ask_plainly(request, TIMEOUT_S, ANSWER_BYTES)[1])
    except urllib.error.HTTPError as error:
        raise _refusal(error, args.server) from error
    except OSError as error:  # URLError among them
        reason = getattr(error, "reason", error)
        raise UpstreamError(f"{args.server}: {reason}; is `sft-guard lora serve` running there?") from error
    except ValueError as error:
        raise UpstreamError(f"{args.server}: the answer is not JSON; is this `sft-guard lora serve`?") from error
    if not isinstance(answer, dict):
        raise UpstreamError(f"{args.server}: an answer of another kind; is this `sft-guard lora serve`?")
    return answer


def _refusal(error: urllib.error.HTTPError, server: str) -> RefusedError | UpstreamError:
    try:
        said = json.loads(error.read(ANSWER_BYTES))["error"]
        message = " ".join(str(said["message"]).split())[:500]
        return RefusedError(str(said.get("code") or error.code), f"{message}; so says {server}")
    except (OSError, ValueError, KeyError, TypeError):
        return UpstreamError(f"{server}: answers {error.code}; is this `sft-guard lora serve`?")
