"""lora key, token, seal, unseal, vault: adapters under lock."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from guard.commands.common import Groups, add_command, add_group, emit, login, needs_extra, progress
from guard.settings import environment_value
from slo.clock import SystemClock
from slo.errors import ConfigError


def register(lora: Groups) -> None:
    """Add the commands of this module to the group `lora`."""
    key = add_command(lora, "key", run_key, "make a master key; older ones stay in the ring",
                      "sft-guard lora key --keys keys.json")  # fmt: skip
    token = add_command(lora, "token", run_token, "give a person a role and a token, shown once",
                        "sft-guard lora token --access access.json --user ada --role keyholder")  # fmt: skip
    token.add_argument("--user", required=True, help="whose token it is")
    token.add_argument(
        "--role", required=True, choices=("viewer", "releaser", "keyholder"), help="what the token may do"
    )
    seal = add_command(lora, "seal", run_seal, "encrypt an adapter as one version of the vault",
                       "sft-guard lora seal run/adapter --as hr-rules@v3 --vault vault --keys keys.json")  # fmt: skip
    seal.add_argument("adapter", type=Path, metavar="DIR", help="directory of the adapter")
    seal.add_argument(
        "--as", dest="label", required=True, metavar="NAME@VERSION", help="name and version to seal under"
    )
    unseal = add_command(lora, "unseal", run_unseal, "write the plaintext of a version into a new directory",
                         "sft-guard lora unseal hr-rules@v3 --out adapter --vault vault --keys keys.json")  # fmt: skip
    unseal.add_argument("label", metavar="NAME@VERSION", help="the sealed adapter")
    unseal.add_argument("--out", type=Path, required=True, metavar="DIR", help="new directory for the plaintext")
    vault = add_group(lora, "vault", "what is sealed, whether it is whole, and who did what")
    listing = add_command(vault, "list", run_list, "all sealed versions",
                          "sft-guard lora vault list --vault vault --keys keys.json")  # fmt: skip
    verify = add_command(vault, "verify", run_verify, "check hashes and the manifest; nothing is decrypted",
                         "sft-guard lora vault verify hr-rules@v3 --vault vault --keys keys.json")  # fmt: skip
    verify.add_argument("label", metavar="NAME@VERSION", help="the sealed adapter")
    audit = add_command(vault, "audit", run_audit, "who did what; exit 1 when the log was changed",
                        "sft-guard lora vault audit --vault vault --keys keys.json")  # fmt: skip
    for parser in (key, token, seal, unseal, listing, verify, audit):
        needed = parser is not token
        parser.add_argument("--keys", type=Path, required=needed, metavar="FILE", help="key ring, mode 600")
    for parser in (key, token, seal, unseal, listing, verify, audit):
        about = "users, roles and hashes of tokens; without it whoever reads the keys is the key holder"
        parser.add_argument("--access", type=Path, metavar="FILE", required=parser is token, help=about)
        parser.add_argument("--token-env", metavar="NAME", help="environment variable with your token")
    for parser in (key, token, seal, unseal, listing, verify, audit):
        about = "directory of the sealed versions and the audit log"
        parser.set_defaults(run=needs_extra("lora", parser.get_default("run")))
        parser.add_argument("--vault", type=Path, required=parser not in (key, token), metavar="DIR", help=about)


def vault_of(args: argparse.Namespace) -> Any:
    """The vault as the asking person may use it."""
    from lora.access import load_access
    from lora.keys import load_ring
    from lora.vault import Vault

    return Vault(
        args.vault, load_ring(args.keys), load_access(args.access).person(_token(args), login()), SystemClock().wall_s
    )


def _token(args: argparse.Namespace) -> str | None:
    if not args.token_env:
        return None
    value = environment_value(args.token_env)
    if not value:
        raise ConfigError("--token-env", args.token_env, "set that environment variable")
    return value


def split_label(label: str) -> tuple[str, str]:
    name, at, version = label.partition("@")
    if not at:
        raise ConfigError("adapter", label, "write NAME@VERSION such as hr-rules@v3")
    return name, version


def run_key(args: argparse.Namespace) -> int:
    """Make a key. In a vault with an access file only a key holder may."""
    from lora.access import Deed, load_access
    from lora.keys import load_ring, make_ring
    from lora.vault import Vault

    person = load_access(args.access).person(_token(args), login())
    if args.vault and args.keys.exists():
        Vault(args.vault, load_ring(args.keys), person, SystemClock().wall_s).record(Deed.KEY, str(args.keys.name))
    elif not person.may(Deed.KEY):
        raise _refused(person, Deed.KEY)
    ring = make_ring(args.keys)
    progress("keep a copy of this file in your key store: what it seals cannot be opened without it")
    result = {"keys": str(args.keys), "current": ring.current_id, "count": len(ring.keys)}
    emit(args, result, f"{args.keys}: key {ring.current_id} seals from now on, {len(ring.keys)} in the ring")
    return 0


def run_token(args: argparse.Namespace) -> int:
    """Give a person a token; from the second on a key holder has to ask."""
    from lora.access import Deed, Role, issue_token, load_access
    from lora.keys import load_ring
    from lora.vault import Vault

    if (args.vault is None) != (args.keys is None):
        raise ConfigError("--vault, --keys", "one of them", "give both, and the vault's audit log tells of the token")
    person = load_access(args.access if args.access.exists() else None).person(_token(args), login())
    if args.vault is not None:
        vault = Vault(args.vault, load_ring(args.keys), person, SystemClock().wall_s)
        with vault.recorded(Deed.TOKEN, args.user, args.role):
            token = issue_token(args.access, args.user, Role(args.role))
    elif person.may(Deed.TOKEN):
        token = issue_token(args.access, args.user, Role(args.role))
    else:
        raise _refused(person, Deed.TOKEN)
    emit(args, {"user": args.user, "role": args.role, "token": token}, f"{args.user} is {args.role}; token: {token}")
    return 0


def run_seal(args: argparse.Namespace) -> int:
    """Seal one version."""
    name, version = split_label(args.label)
    manifest = vault_of(args).seal(args.adapter, name, version)
    plain_bytes = sum(file.plain_bytes for file in manifest.files.values())
    result = {
        "name": name, "version": version, "key_id": manifest.key_id, "content_sha256": manifest.content_sha256,
        "files": len(manifest.files), "bytes": plain_bytes,
    }  # fmt: skip
    text = f"sealed {name} {version}: {len(manifest.files)} files, {plain_bytes} bytes, key {manifest.key_id}"
    emit(
        args,
        result,
        f"{text}\nthe plaintext in {args.adapter} is still there; remove it when you have checked the vault",
    )
    return 0


def run_unseal(args: argparse.Namespace) -> int:
    """Write plaintext."""
    name, version = split_label(args.label)
    adapter = vault_of(args).unseal(name, version, args.out)
    result = {"name": name, "version": version, "out": str(args.out), "files": sorted(adapter.files)}
    emit(args, result, f"wrote {len(adapter.files)} files of {name} {version} to {args.out}, readable by you alone")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """List; exit 1 when one of them is damaged."""
    rows = vault_of(args).versions()
    shown = [
        {"name": name, "version": version, "key_id": m.key_id if m else None, "problem": problem}
        for name, version, m, problem in rows
    ]  # fmt: skip
    lines = [f"{name}@{version}  " + (f"key {m.key_id}" if m else problem) for name, version, m, problem in rows]
    emit(args, {"versions": shown}, "\n".join(lines) or "nothing is sealed here yet")
    return 1 if any(problem for *_, problem in rows) else 0


def run_verify(args: argparse.Namespace) -> int:
    """Verify one version."""
    manifest = vault_of(args).verify(*split_label(args.label))
    result = {
        "name": manifest.name,
        "version": manifest.version,
        "content_sha256": manifest.content_sha256,
        "whole": True,
    }
    emit(
        args, result, f"{manifest.name} {manifest.version} is whole: {len(manifest.files)} files, key {manifest.key_id}"
    )
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """Show and check the audit log."""
    import msgspec

    from guard.release.incident import utc

    entries, problem = vault_of(args).audit()
    lines = [
        f"{e.number:>5}  {utc(e.wall_s)}  {e.user} ({e.role})  {e.deed} {e.object}: {e.result}"
        + (f", {e.detail}" if e.detail else "")
        for e in entries
    ]
    words = f"entry {problem.number}: {problem.what}" if problem else ""
    result = {"entries": [msgspec.to_builtins(e) for e in entries], "intact": problem is None, "problem": words}
    emit(args, result, "\n".join([*lines, f"NOT intact: {words}" if problem else f"{len(entries)} entries, intact"]))
    return 1 if problem else 0


def _refused(person: Any, deed: Any) -> Exception:
    from lora.access import refused

    return refused(person, deed)
