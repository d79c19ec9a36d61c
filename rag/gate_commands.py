"""`sft-guard kb profile|gate|pack|verify|register` as functions: plain arguments in, the object of `--json` out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rag import gating, staging
from rag.chunking import parse_chunking
from rag.commands import embedder_for
from rag.embedding import Embedder
from rag.gate import GateLimits, Side, decide
from rag.gate_report import as_json, facts, markdown
from rag.kb import KnowledgeBase
from rag.layout import INDEX_TYPE, write_layout
from rag.pack import INDEX, Pack, documents, pack, verify
from rag.profile import Profile, Profiler
from rag.profile_limits import Limits
from rag.provenance import git_commit
from rag.rows import read_jsonl
from registry.model import Lineage, ModelVersion
from registry.port import RegistryPort
from registry.registering import ensure_model
from slo.clock import Clock, SystemClock
from slo.errors import DataError, RefusedError

Json = dict[str, object]
TAGS = ("kb", "rag", "incremental")
GATE = "kb-gate"


def kb_profile(
    directory: Path | None, jsonl: Sequence[Path], chunk: str, against: Path | None, *, key: bytes | None = None
) -> tuple[Json, str]:
    """Profile a knowledge base, or rows that were not added yet; with `against`, held against its limits."""
    if directory is not None:
        name = str(directory)
        profile = staging.profile_of(KnowledgeBase.open(directory, key=key))
    else:
        how, profiler = parse_chunking(chunk), Profiler()
        name = ", ".join(path.name for path in jsonl)
        for path in jsonl:
            for _ in staging.profiled(read_jsonl(path), how, profiler):
                pass
        profile = profiler.profile()
    if against is not None:
        before = Side(str(against), staging.profile_of(KnowledgeBase.open(against, key=key)))
        decision = decide(before, Side(name, profile))
        return as_json(decision), markdown(decision)
    result: Json = {"name": name, **facts(profile), "fields": dict(profile.fields), "kinds": dict(profile.kinds)}
    result["quantiles"] = {f"p{q * 100:.0f}": length for q, length in profile.lengths.quantiles}
    result["issues"] = [{"place": i.place, "kind": i.kind, "reason": i.reason} for i in profile.issues]
    return result, _profile_text(name, profile)


def kb_gate(
    directory: Path,
    *,
    candidate: Path | None = None,
    golden: Path | None = None,
    mode: str = "hybrid",
    embedder: str | None = None,
    limits: Mapping[str, float] | None = None,
    promote: bool = False,
    force: bool = False,
    report: Path | None = None,
    key: bytes | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Json, str]:
    """Decide, and with `promote` make the candidate current.

    limits: fields of `GateLimits` and `Limits` by name.

    Raises:
        RefusedError: `no_candidate`, `conflict`... DataError: something cannot be read or written.
    """
    loaded: dict[str, Embedder | None] = {}

    def embedder_of(kb: KnowledgeBase) -> Embedder | None:
        name = embedder or kb.meta.model
        if name not in loaded:  # both generations have the same one, as a rule
            loaded[name] = embedder_for(kb, embedder)[0]
        return loaded[name]

    decision = gating.gate(
        directory,
        candidate=candidate,
        golden=golden,
        limits=_limits(limits or {}),
        mode=mode,
        embedder=embedder_of,
        key=key,
        say=progress or (lambda line: None),
    )
    result, text = as_json(decision), markdown(decision)
    if report is not None:
        report.write_text(text, encoding="utf-8")
    if promote and (decision.accepted or force):
        version = gating.promote(directory, force=force, key=key)
        result["promoted"] = version
        text += f"\npromoted: kb_version {version} is current\n"
    elif candidate is None and not decision.accepted:
        text += f"\nthe current generation goes on serving; the candidate stays in {directory / staging.CANDIDATE}\n"
    return result, text


def kb_discard(directory: Path) -> None:
    """Throw away what was staged."""
    staging.discard(directory)


def kb_pack(directory: Path, out: Path, *, key: bytes | None = None) -> Json:
    """Pack the current generation."""
    kb = KnowledgeBase.open(directory, key=key)
    with tempfile.TemporaryDirectory(prefix="sft-kb-pack-") as work:
        made = pack(write_layout(kb, Path(work)), out)
    missing = INDEX not in made.members and kb.meta.doc_count
    note = ["no vectors are packed: not every row has one here; add with the embedder first"] if missing else []
    return _pack_json(made) | ({"notes": note} if note else {})


def kb_verify(path: Path, checksum: str) -> Json:
    """Verify a pack; a refusal is a result, not an error."""
    try:
        return {"verified": True, **_pack_json(verify(path, checksum))}
    except RefusedError as error:
        return {"verified": False, "refused": error.reason, "reason": str(error)}


@dataclass(frozen=True, slots=True)
class Ready:
    """A verified pack and where it comes from, ready to be registered. gate: the gate's decision on it, if any."""

    pack: Pack
    lineage: Lineage
    gate: Mapping[str, object] | None


def prepare(
    path: Path, directory: Path | None, params: Mapping[str, str], commit: str | None, *, key: bytes | None = None
) -> Ready:
    """Verify and profile a pack. directory: where it was packed, for the gate's decision on the same content.

    Raises:
        RefusedError: it is damaged. DataError: it cannot be read, or the knowledge base is another one.
    """
    made = verify(path)
    profiler = Profiler()
    for doc_id, text, fields in documents(path):
        profiler.take(doc_id, text, fields)
    parameters: dict[str, object] = {"profile": facts(profiler.profile()), **params}
    gate: Mapping[str, object] | None = None
    if directory is not None:
        kb = KnowledgeBase.open(directory, key=key, lazy=True)
        if kb.meta.kb_version != made.meta.get("kb_version") or kb.meta.doc_count != made.meta.get("doc_count"):
            raise DataError(f"{directory}: is at kb_version {kb.meta.kb_version}, the pack at "
                            f"{made.meta.get('kb_version')}; pack it again")  # fmt: skip
        record = gating.decision_of(directory, kb.content_id)
        if record is not None:
            gate = record.get("evaluation")
            if chunking := record.get("chunk"):
                parameters.setdefault("chunking", chunking)
    lineage = Lineage(data_hash=made.data_hash, git_commit=git_commit() if commit is None else commit,
                      parameters=parameters)  # fmt: skip
    return Ready(made, lineage, gate)


async def register(
    port: RegistryPort,
    ready: Ready,
    model: str,
    owner: str,
    description: str,
    actor: str,
    clock: Clock | None = None,
) -> Json:
    """Register a pack under `<kb_version>-kb+<unix time>`, or find the version that it is already.

    Raises:
        RegistryRefused, RegistryUnreachable: safe to repeat.
    """
    await ensure_model(port, model, owner or actor, "knowledge base")
    made = ready.pack
    meta = {
        "artifact_type": "KnowledgeBase",
        "embedding_model": made.meta.get("model"),
        "dim": made.meta.get("dim"),
        "doc_count": made.meta.get("doc_count"),
        "kb_version": made.meta.get("kb_version"),
        "index_type": INDEX_TYPE,
        "hash": made.checksum,
    }
    there = await port.versions(model)
    known = next((v for v in reversed(there) if dict(v.meta) == meta), None)
    note = ""
    if known is not None:
        version, note = known, "this pack is registered already"
    else:
        unix_s = int((clock or SystemClock()).wall_s())
        version = await port.create_version(
            model,
            f"{meta['kb_version']}-kb+{unix_s}",
            artifact_url=made.artifact_url,
            description=description,
            tags=TAGS,
            meta=meta,
            actor=actor,
            lineage=replace(ready.lineage, parent=_parent(there)),
        )
    if ready.gate is not None:
        key = f"{GATE}-{model}-{version.version}"  # two models may have versions of one name
        await port.evaluate(model, version.version, GATE, ready.gate, actor=actor, key=key)
    return {
        "model": model,
        "version": version.version,
        "stage": version.stage.value,
        "artifact_url": version.artifact_url,
        "checksum": made.checksum,
        "gate": None if ready.gate is None else "accepted" if ready.gate.get("accepted") is True else "refused",
        "note": note,
    }


def _parent(versions: Sequence[ModelVersion]) -> str:
    return versions[-1].version if versions else ""


def _pack_json(made: Pack) -> Json:
    return {
        "path": str(made.path),
        "artifact_url": made.artifact_url,
        "checksum": made.checksum,
        "bytes": made.byte_count,
        "members": list(made.members),
        "data_hash": made.data_hash,
        "kb_version": made.meta.get("kb_version"),
        "doc_count": made.meta.get("doc_count"),
    }


def _limits(given: Mapping[str, float]) -> GateLimits:
    rows = {name: value for name, value in given.items() if name in Limits.__dataclass_fields__}
    rest = {name: value for name, value in given.items() if name not in rows}
    return replace(GateLimits(**rest), rows=replace(Limits(), **rows))  # type: ignore[arg-type]


def _profile_text(name: str, profile: Profile) -> str:
    figures = facts(profile)
    lengths = profile.lengths
    spread = ", ".join(f"p{q * 100:.0f} {length}" for q, length in lengths.quantiles)
    lines = [
        f"{name}: {profile.row_count} rows" + (" (duplicates are estimates)" if profile.estimated else ""),
        f"  fields      {', '.join(f'{field} {count}' for field, count in profile.fields) or 'none'}",
        f"  empty       {figures['empty_ratio']:.1%}",
        f"  malformed   {figures['malformed_ratio']:.1%}",
        f"  duplicates  {figures['duplicate_ratio']:.1%}",
        f"  tokens      mean {lengths.mean:.0f}, sd {lengths.sd:.0f}, "
        f"{lengths.smallest} to {lengths.largest}; {spread}",
        f"  language    {', '.join(f'{label} {ratio:.0%}' for label, ratio in profile.language_ratio) or '-'}",
    ]
    lines += [f"  {issue.place}: {issue.kind.replace('_', ' ')}: {issue.reason}" for issue in profile.issues[:20]]
    if len(profile.issues) > 20:
        lines.append(f"  and {sum(count for _, count in profile.kinds) - 20} more")
    return "\n".join(lines)
