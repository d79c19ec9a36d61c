"""init, check, doctor: from nothing to a configuration that is known to work."""

from __future__ import annotations

import argparse
import json
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from guard.commands.common import Groups, add_command, emit
from guard.doctor import Diagnosis, examine
from guard.release.plan import parse_plan
from guard.rule_files import written_plan
from guard.settings import UNSET, environment_value, load_settings, load_without_secrets
from guard.settings.fields import NAME
from guard.settings.safety import safety_spec
from slo.errors import ConfigError, RefusedError
from slo.pricing import PriceTable
from slo.spec import PRESETS, load_slo_file, preset_text
from slo.strict_yaml import INIT, load_yaml_file

# Grounding similarity by scenario: FAQ 0.4-0.6, internal knowledge 0.6-0.7, medical or finance >= 0.8 in the practice.
# Those numbers are for plain cosine; ours is a calibrated score, so only the strict preset tightens it.
_GROUNDING = {"finance": "  grounding_threshold: 0.35   # stricter than the calibrated default\n"}


def register(groups: Groups) -> None:
    """Add the commands of this module."""
    init = add_command(groups, "init", run_init, "write a commented guard.yaml and slo.yaml",
                       "sft-guard init --preset support-faq --dir .")  # fmt: skip
    init.add_argument(
        "--preset", choices=sorted(PRESETS), default="support-faq", help="whose practice the numbers come from"
    )
    init.add_argument("--dir", type=Path, default=Path("."), help="directory to write to (default: here)")
    init.add_argument("--service", default="faq-bot", help="name of the bot")
    init.add_argument("--force", action="store_true", help="replace files that exist")

    check = add_command(groups, "check", run_check, "validate guard.yaml, slo.yaml, rules and price files",
                        "sft-guard check guard.yaml slo.yaml")  # fmt: skip
    check.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: guard.yaml and what it names")
    check.add_argument("--schema", choices=("guard", "slo"), help="print the JSON Schema of a file and stop")

    doctor = add_command(groups, "doctor", run_doctor, "try everything the configuration names and say what to do",
                         "sft-guard doctor -c guard.yaml")  # fmt: skip
    doctor.add_argument("-c", "--config", type=Path, default=Path("guard.yaml"), help="the configuration")


def run_init(args: argparse.Namespace) -> int:
    """Write both files, or refuse to touch what exists."""
    template = Template(files("guard").joinpath("templates/guard.yaml").read_text(encoding="utf-8"))
    guard = template.substitute(service=args.service, preset=args.preset, grounding=_GROUNDING.get(args.preset, ""))
    if not re.fullmatch(NAME, args.service):
        raise ConfigError("--service", args.service, "write lower-case letters, digits, dots, - and _, at most 64")
    texts = {"guard.yaml": guard, "slo.yaml": preset_text(args.preset).replace("faq-bot", args.service)}
    existing = [name for name in texts if (args.dir / name).exists()]
    if existing and not args.force:
        raise RefusedError("exists", f"{args.dir / existing[0]} exists; --force replaces it, --dir names another place")
    args.dir.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts.items():
        (args.dir / name).write_text(text, encoding="utf-8")
        written.append(str(args.dir / name))
    load_settings(args.dir / "guard.yaml")  # What we write must be what we accept.
    load_slo_file(args.dir / "slo.yaml")
    emit(args, {"written": written}, "\n".join([*(f"wrote {w}" for w in written),
         f"next: edit versions and routes, then `sft-guard check {args.dir / 'guard.yaml'}`"]))  # fmt: skip
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Validate; every error of every file is shown, exit 2 when there is one."""
    if args.schema:
        from guard.schemas import schema_texts

        text = schema_texts()[f"{args.schema}.schema.json"]
        emit(args, json.loads(text), text)
        return 0
    todo = list(args.files) or [Path("guard.yaml")]
    done: list[dict[str, str]] = []
    errors: list[ConfigError] = []
    while todo:
        path = todo.pop(0)
        try:
            kind, more, unset = _check_file(path)
            errors += unset
            done += [{"file": str(path), "kind": kind}] if not unset else []
            todo += [m for m in more if m not in args.files and str(m) not in {d["file"] for d in done}]
        except ConfigError as error:
            errors += [error, *error.more]
    lines = [f"ok    {d['file']} ({d['kind']})" for d in done] + [f"wrong {e}" for e in errors]
    emit(args, {"ok": not errors, "checked": done, "errors": [
        {"place": e.place, "value": repr(e.value), "cure": e.cure} for e in errors]}, "\n".join(lines))  # fmt: skip
    return 2 if errors else 0


def _check_file(path: Path) -> tuple[str, list[Path], list[ConfigError]]:
    """Kind of the file, the files it names, secrets that are not set. The kind is told by its keys, not by its name."""
    document, _ = load_yaml_file(path, INIT)
    if "routes" in document or "versions" in document or "listen" in document:
        settings, missing = load_without_secrets(path)
        unset = [ConfigError(f"{path.name}: {place}", v, UNSET.format(v)) for v, place in missing.items()]
        file = settings.file
        parse_plan(written_plan(settings), f"{path}: release.plan")
        safety_spec(settings)
        named = [file.slo, file.prices, file.checks.rules, file.checks.intents]
        if file.checks.probes is not None and file.checks.probes.file.suffix != ".jsonl":
            named.append(file.checks.probes.file)
        return "guard", [settings.resolve(p) for p in named if p is not None], unset
    if "objectives" in document or "preset" in document:
        load_slo_file(path)
        return "slo", [], []
    if "models" in document:
        PriceTable.load(path)
        return "prices", [], []
    if "rules" in document:
        from guard.checks.rules import load_rules

        load_rules(path)
        return "rules", [], []
    if "topics" in document or "kb_match" in document:
        from lora.postprocess import read_rules

        read_rules(path)
        return "answer rules", [], []
    if "intents" in document:
        from guard.following.intents_file import load_intents

        load_intents(path)
        return "intents", [], []
    if "probes" in document:
        from guard.probing.probes_file import load_probes

        load_probes(path)
        return "probes", [], []
    raise ConfigError(
        path.name,
        ", ".join(map(str, document))[:80],
        "not a guard, slo, price, rules, intents or probes file: no key of them is in it",
    )


def run_doctor(args: argparse.Namespace) -> int:
    """Try everything; exit 1 when something is at fault."""
    settings, missing = load_without_secrets(args.config)
    token_present = environment_value("SFT_GUARD_TOKEN") is not None
    findings: list[Diagnosis] = examine(settings, token_present=token_present, missing=missing)
    width = max(len(f.subject) for f in findings)
    lines = [
        f"{f.state:5} {f.subject:{width}}  {f.text}" + (f"\n{'':6}{'':{width}}  -> {f.cure}" if f.cure else "")
        for f in findings
    ]
    faulty = any(f.state == "fault" for f in findings)
    emit(args, {"ok": not faulty, "findings": findings}, "\n".join(lines))
    return 1 if faulty else 0
