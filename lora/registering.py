"""A trained adapter in the version registry: what it was made of, what it is worth, and whether it may go on.

    None -> Staging is closed (by the registry itself) until the latest evaluation of the adapter has passed.

The evaluation also becomes the `current` value of similarity in a baseline, which the rules of slo.yaml are held to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lora.adapter_files import adapter_hash, read_directory
from lora.artifact import WEIGHTS, check_artifact
from lora.dataset_files import read_rows
from lora.evaluation import content_sha256
from lora.register_gate import MIN_ROWS, doubts, rules_of
from lora.runlog import CARD, EVALUATION, read_object
from registry.model import BLOCKS, EVIDENCE, Lineage, ModelVersion, Stage
from registry.port import RegistryPort
from registry.registering import ensure_model
from slo.artefact import DAY_S, Baseline, Measured
from slo.errors import DataError, RefusedError

GATE = "lora-eval"
SIMILARITY = "sft_quality_similarity_score"
TAGS = ("llm", "lora", "adapter")
CLOSED = (Stage.STAGING.value, Stage.PRODUCTION.value)
VALID_DAYS, MEASURED_KEPT = 30.0, 20
_SUMMARY = ("count", "similarity", "similarity_interval", "characters", "accuracy", "high_quality", "poor",
            "refusal_accuracy", "answered", "hallucinated", "confusion", "repetition", "echo", "length")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sealed:
    """Where an adapter lies sealed. content_sha256: over all its files."""

    name: str
    version: str
    content_sha256: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Ready:
    """An adapter, its run card and its evaluation, held against each other. evaluation: {} for none.

    adapter_sha256: of weights and configuration, sealed or not. trained_wall_s: 0.0 when the card does not say.
    doubts: why the evaluation opens nothing, whatever its figures.
    """

    artifact_url: str
    adapter_sha256: str
    card: Mapping[str, Any]
    card_sha256: str
    evaluation: Mapping[str, Any]
    lineage: Lineage
    trained_wall_s: float
    sealed: Sealed | None = None
    doubts: tuple[str, ...] = ()
    min_rows: int = MIN_ROWS

    @property
    def passed(self) -> bool:
        """Whether the evaluation says so, and may; not evaluated is not passed."""
        return self.evaluation.get("passed") is True and not self.doubts


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `lora eval` wrote.

    Raises:
        DataError: it cannot be read, or it was changed since.
    """
    found = read_object(path)
    if not isinstance(found.get("summary"), dict) or not isinstance(found.get("passed"), bool):
        raise DataError(f"{path}: not an evaluation; make it with sft-guard lora eval")
    if found.get("sha256") != content_sha256(found):
        raise DataError(f"{path}: not what its hash says; it was changed, evaluate again with sft-guard lora eval")
    return found


def prepare(
    run: Path,
    files: Mapping[str, bytes] | None,
    *,
    adapter: Path | None = None,
    sealed: Sealed | None = None,
    evaluation: Path | None = None,
    commit: str = "",
    min_rows: int = MIN_ROWS,
    rules_sha256: str = "",
) -> Ready:
    """Read what a run left, and hold it against the adapter.

    Args:
        run: directory with run_card.json and evaluation.json.
        min_rows, rules_sha256: as in `lora.register_gate.doubts`.
        files: of an adapter that was opened from the vault, with `sealed`; None reads the directory `adapter`.

    Raises:
        DataError: something cannot be read. RefusedError: `other_adapter`, the evaluation is of another one or does not
        say of which; `artifact_rejected`.
    """
    card = read_object(run / CARD) if (run / CARD).exists() else {}
    place = evaluation or run / EVALUATION
    found = read_evaluation(place) if evaluation or place.exists() else {}
    if files is None:
        assert adapter is not None
        files = read_directory(adapter)
    check_artifact(files)
    own = adapter_hash(files)
    judged = _object(found, "model").get("adapter_sha256")
    if judged and judged != own:
        raise RefusedError(
            "other_adapter",
            f"{place}: is of adapter {str(judged)[:12]}..., this one is {own[:12]}...; evaluate this one",
        )
    if found and not judged:
        cure = "evaluate this one with sft-guard lora eval --adapter DIR"
        raise RefusedError("other_adapter", f"{place}: does not say which adapter it is of; {cure}")
    trained = _object(card, "adapter").get(WEIGHTS)
    if trained and trained != sha256(files.get(WEIGHTS, b"")).hexdigest():
        raise RefusedError("other_adapter", f"{run / CARD}: is of other weights than this adapter; name its own run")
    if sealed is not None:
        url = f"vault://{sealed.name}@{sealed.version}"
    else:
        assert adapter is not None
        url = adapter.resolve().as_uri()
    card_sha256 = sha256((run / CARD).read_bytes()).hexdigest() if card else ""
    why = doubts(
        found, card, min_rows=min_rows, rules_sha256=rules_sha256, trained=_trained_questions(card)
    ) if found else ()  # fmt: skip
    lineage = _lineage(card, found, commit)
    return Ready(url, own, card, card_sha256, found, lineage, _trained(card), sealed, why, min_rows)


def _trained_questions(card: Mapping[str, Any]) -> frozenset[str]:
    """The questions of the training, where its file is still there and is still the same; none otherwise."""
    data = _object(card, "data")
    digest = _object(data, "files").get("train.jsonl")
    path = Path(str(data.get("directory") or "")) / "train.jsonl"
    if not digest or not path.is_file():
        return frozenset()
    try:
        if sha256(path.read_bytes()).hexdigest() != digest:
            return frozenset()
        return frozenset(row.question for row in read_rows(path))
    except (OSError, DataError):
        return frozenset()


def _lineage(card: Mapping[str, Any], evaluation: Mapping[str, Any], commit: str) -> Lineage:
    """From the run card of `lora train`; of another trainer's run the evaluation at least knows the data."""
    data = _object(card, "data")
    hashes = (_object(data, "card").get("data_sha256"), data.get("sha256"), card.get("data_sha256"),
              _object(evaluation, "set").get("data_sha256"))  # fmt: skip
    return Lineage(
        created_by=str(card.get("trained_by") or ""),
        data_hash=str(next(filter(None, hashes), "")),
        git_commit=commit,
        parameters=_object(card, "settings"),
    )


def _object(place: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = place.get(name)
    return found if isinstance(found, dict) else {}


def _trained(card: Mapping[str, Any]) -> float:
    said = card.get("ended_wall_s") or card.get("began_wall_s")
    return float(said) if isinstance(said, int | float) else 0.0


def result_of(ready: Ready) -> dict[str, object]:
    """What the registry keeps of the evaluation: figures, hash, and the stages that stay closed with the reasons."""
    if not ready.evaluation:
        return {"passed": False, BLOCKS: list(CLOSED), EVIDENCE: ["it was not evaluated; run sft-guard lora eval"]}
    decision = _object(ready.evaluation, "decision")
    reasons = [*(str(reason) for reason in decision.get("reasons", [])), *ready.doubts]
    side = _object(ready.evaluation, "sides").get(str(decision.get("decided_on")), ready.evaluation["summary"])
    return {
        "passed": ready.passed,
        "scenario": decision.get("scenario", ""),
        "minimum": decision.get("minimum"),
        "decided_on": decision.get("decided_on", ""),
        **{name: side.get(name) for name in _SUMMARY},
        "evaluation_sha256": ready.evaluation.get("sha256", ""),
        "set_sha256": _object(ready.evaluation, "set").get("sha256", ""),
        "rules_sha256": _object(ready.evaluation, "rules").get("sha256", ""),
        "embedder": ready.evaluation.get("embedder", ""),
        "made_wall_s": ready.evaluation.get("made_wall_s"),
        "min_rows": ready.min_rows,
        **({} if ready.passed else {BLOCKS: list(CLOSED), EVIDENCE: reasons}),
    }


async def register(
    port: RegistryPort, ready: Ready, model: str, *, owner: str, actor: str, description: str = "", wall_s: float
) -> ModelVersion:
    """Register the adapter as `lora+<Unix time>`, or find it; and add its evaluation.

    Raises:
        RegistryRefused, RegistryUnreachable: safe to repeat.
    """
    base = _base_of(ready)
    await ensure_model(port, model, owner or actor, f"adapters of {base}" if base else "adapters")
    there = await port.versions(model)
    known = next((v for v in reversed(there) if v.meta.get("adapter_sha256") == ready.adapter_sha256
                  and bool(v.meta.get("sealed")) is (ready.sealed is not None)), None)  # fmt: skip
    if known is None:
        sealed = ready.sealed
        meta: dict[str, object] = {
            "artifact_type": "LoRAAdapter", "base_model": base, "adapter_sha256": ready.adapter_sha256,
            "run_card_sha256": ready.card_sha256, "sealed": sealed is not None,
            **({"rules_sha256": rules} if (rules := rules_of(ready.evaluation)) else {}),
            **({"content_sha256": sealed.content_sha256, "key_id": sealed.key_id} if sealed else {}),
        }  # fmt: skip
        name = f"lora+{int(ready.trained_wall_s or wall_s)}"
        if any(v.version == name for v in there):  # the same run again, as plaintext and sealed
            name = f"{name}.{len(there)}"
        parent = there[-1].version if there else ""
        known = await port.create_version(
            model, name, artifact_url=ready.artifact_url, description=description, tags=TAGS, meta=meta, actor=actor,
            lineage=replace(ready.lineage, parent=parent),
        )  # fmt: skip
    said = result_of(ready)
    # The same evaluation that was doubted and is not any more (its rules are named now) is another word of the gate.
    doubted = f"-{sha256(repr(ready.doubts).encode()).hexdigest()[:8]}" if ready.doubts else ""
    key = f"{GATE}-{model}-{known.version}-{said.get('evaluation_sha256') or 'none'}{doubted}"
    await port.evaluate(model, known.version, GATE, said, actor=actor, key=key)
    return known


def _base_of(ready: Ready) -> str:
    base = _object(ready.card, "base")
    return str(base.get("name") or base.get("path") or _object(ready.evaluation, "model").get("base") or "")


def with_current(baseline: Baseline | None, ready: Ready, now_wall_s: float) -> Baseline:
    """The baseline with the evaluation's average similarity as its `current` value; without one, one of this alone.

    Raises:
        RefusedError: `not_passed`; `other_embedder`, similarities of two embedders are no one scale.
    """
    if not ready.passed:
        raise RefusedError("not_passed", "the evaluation has not passed, so it is no measure for what serves")
    said = result_of(ready)
    embedder, value, count = str(said["embedder"] or ""), said["similarity"], said["count"]
    assert isinstance(value, float | int)
    assert isinstance(count, int)
    made = Measured(SIMILARITY, float(value), count, now_wall_s)
    if baseline is None:
        return Baseline(
            created_wall_s=now_wall_s, expires_wall_s=now_wall_s + VALID_DAYS * DAY_S, first_wall_s=now_wall_s,
            last_wall_s=now_wall_s, days=0.0, window_s=3600.0, exchange_count=0, indicators=(), measured=(made,),
            source="lora eval", embedder=embedder, forced=True, forced_reason="an evaluation set alone, no traffic",
            drift_missing="no traffic was collected",
        )  # fmt: skip
    if baseline.embedder and embedder and baseline.embedder != embedder:
        raise RefusedError(
            "other_embedder",
            f"the baseline was made with embedder {baseline.embedder}, the evaluation with {embedder}; "
            f"evaluate with --embedder {baseline.embedder}",
        )
    # The same evaluation again is the same value; older ones stay, the latest counts.
    kept = [m for m in baseline.measured if (m.indicator, m.value, m.event_count) != (SIMILARITY, made.value, count)]
    return replace(baseline, measured=(*kept, made)[-MEASURED_KEPT:])
