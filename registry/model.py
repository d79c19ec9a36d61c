"""Stages of a version and the rules between them, and the control document of a service. Pure.

    None -> Staging -> Production -> Archived

One Production per model: promoting demotes the old one to Staging. Archived is frozen. None -> Production is illegal
(nothing goes live unseen); Production -> Staging is allowed. A move to the stage a version is in already changes
nothing and is audited all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from registry.errors import RegistryRefused

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VERSION_PATTERN = r"^[a-z0-9][a-z0-9._+-]{0,63}$"
MAX_EPOCH = 2**53  # what JSON readers keep exactly
MAX_STAGE = 10_000
CHAMPION, PREVIOUS = "champion", "previous"
"""Aliases that follow the stages: what is in Production, and what was there before it."""
_NAME = re.compile(NAME_PATTERN[1:-1])
_VERSION = re.compile(VERSION_PATTERN[1:-1])


class Stage(StrEnum):
    """Where a version is in its life."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


_ALLOWED: dict[Stage, frozenset[Stage]] = {
    Stage.NONE: frozenset({Stage.STAGING, Stage.ARCHIVED}),
    Stage.STAGING: frozenset({Stage.PRODUCTION, Stage.ARCHIVED}),
    Stage.PRODUCTION: frozenset({Stage.STAGING, Stage.ARCHIVED}),
    Stage.ARCHIVED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Model:
    """Something that has versions: a knowledge base, an adapter, a service's release."""

    name: str
    owner: str = ""
    description: str = ""
    created_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from, as it was said when it was registered. Never changes afterwards.

    data_hash: of what it was made from. git_commit: of the code that made it. parent: version it was grown from.
    parameters: JSON values (chunking, learning rate, embedder fingerprint...).
    """

    created_by: str = ""
    data_hash: str = ""
    git_commit: str = ""
    parent: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One result of one version, added after the fact. name: what was run (`kb-gate`, `lora-eval`...)."""

    entry_id: int
    model: str
    version: str
    name: str
    time_s: float
    actor: str
    result: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version. `meta` holds JSON values only (artifact_type, dim, doc_count, hash...)."""

    model: str
    version: str
    stage: Stage = Stage.NONE
    artifact_url: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    meta: Mapping[str, object] = field(default_factory=dict)
    created_s: float = 0.0
    lineage: Lineage = Lineage()


@dataclass(frozen=True, slots=True)
class Move:
    """One version changes its stage. `action`: promote | demote | transition | rollback | noop."""

    version: str
    action: str
    from_stage: Stage
    to_stage: Stage


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit. `from_value` and `to_value` are stages, versions or epochs, by action."""

    entry_id: int
    time_s: float
    action: str
    actor: str
    model: str
    version: str
    from_value: str
    to_value: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """Release control document of one service: what every replica obeys. Replaced as a whole, by epoch.

    epoch: grows with every change; a write names the epoch it read and loses when that is not current.
    canary_ratio: share of sessions sent to `canary`, 0..1. cache_epoch: part of every cache key.
    plan: stages as `weight/hold_s/min_events`, comma separated. outbox_id: id of the webhook that tells of it.
    """

    service: str
    epoch: int
    stable: str
    canary: str = ""
    previous: str = ""
    canary_ratio: float = 0.0
    stage: int = 0
    plan: str = ""
    advance: str = "manual"
    phase: str = "idle"
    cache_epoch: int = 0
    incident_id: str = ""
    outbox_id: str = ""
    mode: str = "recommend"


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may be a model or a service.

    Raises:
        RegistryRefused: `bad_name`; names become file names and labels, so the set is small.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistryRefused("bad_name", f"{what}: got {_shown(name)}; use {NAME_PATTERN}")
    return name


def check_version(version: str, what: str = "version") -> str:
    """Return `version` if it may be the name of a version (`+` allowed, as in `3-kb+1750000000`)."""
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise RegistryRefused("bad_name", f"{what}: got {_shown(version)}; use {VERSION_PATTERN}")
    return version


def check_control(control: Control) -> Control:
    """Return `control` if replicas may obey it.

    Raises:
        RegistryRefused: `invalid` or `bad_name`, naming the field.
    """
    check_name(control.service, "service")
    check_version(control.stable, "stable")
    for what, name in (("canary", control.canary), ("previous", control.previous)):
        if name:
            check_version(name, what)
    if control.epoch < 1 or control.cache_epoch < 0 or control.stage < 0:
        raise RegistryRefused("invalid", "control: epoch starts at 1; cache_epoch and stage are never negative")
    if max(control.epoch, control.cache_epoch) > MAX_EPOCH or control.stage > MAX_STAGE:
        raise RegistryRefused("invalid", f"control: epochs end at {MAX_EPOCH}, stages at {MAX_STAGE}; this is no count")
    if not (math.isfinite(control.canary_ratio) and 0.0 <= control.canary_ratio <= 1.0):
        raise RegistryRefused("invalid", f"canary_ratio: got {control.canary_ratio!r}; a ratio is 0..1")
    if control.canary_ratio > 0 and not control.canary:
        raise RegistryRefused("invalid", f"canary_ratio: got {control.canary_ratio!r} without a canary; name one")
    return control


def plan_transition(
    stages: Mapping[str, Stage], version: str, to_stage: Stage, rollback_to: str | None = None
) -> tuple[Move, ...]:
    """Return the moves that one transition request means, in the order they have to be written.

    stages: stage of every version of the model. rollback_to: the version that takes Production in the same
    transaction, whether `version` had been promoted already or not. With `to_stage` Production it may only repeat
    `version` and says that this promotion is a rollback.

    Raises:
        RegistryRefused: unknown_version, archived, illegal_transition, no_target, conflict.

    >>> [f"{m.version}: {m.action}" for m in plan_transition({"v1": Stage.STAGING, "v2": Stage.PRODUCTION},
    ...                                                     "v2", Stage.STAGING, rollback_to="v1")]
    ['v2: demote', 'v1: rollback']
    """
    if version not in stages:
        raise RegistryRefused("unknown_version", f"version {version!r} is not registered; register it first")
    if rollback_to is not None and rollback_to != version:
        return _plan_rollback(stages, version, to_stage, rollback_to)
    if rollback_to is not None and to_stage is not Stage.PRODUCTION:
        raise RegistryRefused("illegal_transition", f"rollback_to: {version!r} cannot be left and returned to at once")
    now = stages[version]
    if now is to_stage:
        return (Move(version, "noop", now, now),)
    _check_edge(version, now, to_stage)
    if to_stage is not Stage.PRODUCTION:
        action = "demote" if now is Stage.PRODUCTION else "transition"
        return (Move(version, action, now, to_stage),)
    demoted = tuple(
        Move(other, "demote", Stage.PRODUCTION, Stage.STAGING)
        for other, stage in stages.items()
        if stage is Stage.PRODUCTION
    )
    return (*demoted, Move(version, "rollback" if rollback_to else "promote", now, to_stage))


def check_holder(stages: Mapping[str, Stage], if_production: str | None) -> None:
    """Compare who is in Production with what a caller read before it decided ("" for nobody, None: no matter).

    Raises:
        RegistryRefused: `conflict`, somebody promoted or demoted in between.
    """
    holder = next((name for name, stage in stages.items() if stage is Stage.PRODUCTION), "")
    if if_production is not None and if_production != holder:
        raise RegistryRefused(
            "conflict", f"Production is {holder or 'empty'}, not {if_production or 'empty'}; read it again and decide"
        )


BLOCKS, EVIDENCE = "blocks", "evidence"
"""Fields of an evaluation's result: stages it closes to the version, and why, one line each."""


_UP = frozenset({(Stage.NONE, Stage.STAGING), (Stage.STAGING, Stage.PRODUCTION)})


def check_gates(
    moves: Sequence[Move], evaluations_of: Callable[[str], Sequence[Evaluation]], *, force: bool = False
) -> str:
    """Refuse a move up into a stage that the latest evaluation of any name closes to the version.

    evaluations_of: all of a version, oldest first. force: a rollback goes all the same, since it must always be
    possible: to the guard at once, to a person who says so. Nothing else can be forced; a later evaluation opens the
    stage.

    Returns:
        What was passed over, for the audit; "" for nothing.

    Raises:
        RegistryRefused: `gate_failed`, with the evaluation and its evidence.
    """
    back = any(move.action == "rollback" for move in moves)
    passed = []
    for move in moves:
        why = _closed(move, evaluations_of(move.version)) if (move.from_stage, move.to_stage) in _UP else ""
        if why and not (back and force):
            cure = ", or repeat with force, which the audit will say" if back else ""
            raise RegistryRefused("gate_failed", f"{why}; mend it and evaluate again{cure}")
        passed += [why] if why else []
    return "; ".join(passed)


def forced_detail(passed: str, detail: str) -> str:
    """What the audit says of a move that passed over a gate.

    >>> forced_detail("version 'v1': gate failed", "at night")
    "forced, version 'v1': gate failed; at night"
    """
    return f"forced, {passed}; {detail}".rstrip("; ") if passed else detail


def _closed(move: Move, evaluations: Sequence[Evaluation]) -> str:
    """Why the stage that a move leads to is closed to its version; "" while it is open."""
    latest = {evaluation.name: evaluation for evaluation in evaluations}
    for name, evaluation in latest.items():
        blocks, why = evaluation.result.get(BLOCKS), evaluation.result.get(EVIDENCE)
        if isinstance(blocks, list | tuple) and move.to_stage.value in blocks:
            said = "; ".join(str(line) for line in why) if isinstance(why, list | tuple) else str(why or "no evidence")
            return (
                f"version {move.version!r}: {name} failed, {move.to_stage} is closed to it: "
                f"{' '.join(said.split())[:300]}"
            )
    return ""


def previous_after(previous: str, moves: Sequence[Move]) -> str:
    """The `previous` pointer once `moves` were made: what a rollback would return to, "" when there is nothing.

    After a rollback that is never the version that was just taken out: rolling back twice does not bring it back.

    >>> previous_after("", plan_transition({"v1": Stage.PRODUCTION, "v2": Stage.STAGING}, "v2", Stage.PRODUCTION))
    'v1'
    >>> previous_after("v1", plan_transition({"v1": Stage.STAGING, "v2": Stage.PRODUCTION}, "v2", Stage.STAGING, "v1"))
    ''
    """
    changed = [move for move in moves if move.from_stage is not move.to_stage]
    risen = next((m for m in changed if m.to_stage is Stage.PRODUCTION), None)
    fallen = next((m for m in changed if m.from_stage is Stage.PRODUCTION), None)
    gone = {m.version for m in changed if m.to_stage is Stage.ARCHIVED}
    if risen is not None and risen.action == "rollback":
        gone |= {m.version for m in moves if m is not risen}
    elif fallen is not None:
        previous = fallen.version
    if risen is not None:
        gone.add(risen.version)
    return "" if previous in gone else previous


def _plan_rollback(stages: Mapping[str, Stage], bad: str, to_stage: Stage, target: str) -> tuple[Move, ...]:
    if to_stage is Stage.PRODUCTION:
        raise RegistryRefused(
            "illegal_transition",
            f"rollback_to: {target!r} and {bad!r} cannot both be Production; use to_stage Staging or Archived",
        )
    holder = next((name for name, stage in stages.items() if stage is Stage.PRODUCTION), None)
    if holder not in (None, bad, target):
        # Somebody promoted a third version meanwhile; undoing that is not what this request was about.
        raise RegistryRefused(
            "conflict", f"Production is {holder!r}, neither {bad!r} nor {target!r}; read it again and decide"
        )
    stage = stages.get(target)
    if stage not in (Stage.STAGING, Stage.PRODUCTION):
        what = "not registered" if stage is None else f"in stage {stage}"
        raise RegistryRefused("no_target", f"rollback_to: {target!r} is {what}; nothing was moved")
    if stages[bad] is not to_stage:
        _check_edge(bad, stages[bad], to_stage)
    left = Move(
        bad,
        "noop" if stages[bad] is to_stage else "demote" if stages[bad] is Stage.PRODUCTION else "transition",
        stages[bad],
        to_stage,
    )
    return (left, Move(target, "rollback", stage, Stage.PRODUCTION))


def _check_edge(version: str, now: Stage, to_stage: Stage) -> None:
    if now is Stage.ARCHIVED:
        raise RegistryRefused("archived", f"version {version!r} is Archived and stays so; register a new version")
    if to_stage not in _ALLOWED[now]:
        ways = ", ".join(sorted(_ALLOWED[now]))
        raise RegistryRefused(
            "illegal_transition", f"version {version!r}: {now} -> {to_stage} is not allowed; from {now} go to {ways}"
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
