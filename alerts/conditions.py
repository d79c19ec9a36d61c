"""What the guard says of itself when it cannot do its work, and what people do then. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from alerts.model import PAGE
from alerts.pages import (
    BACK,
    DOCTOR,
    HEALTH,
    INCIDENT,
    INCIDENTS,
    NO_TARGET_THEN,
    RULES,
    SHARED_THEN,
    STATUS,
    VALUES,
)

_Row = tuple[str, str, str, str, str, tuple[tuple[str, str], ...], tuple[str, ...]]

CONDITIONS: Mapping[str, _Row] = {
    "rollback_suppressed": (
        "SftReleaseRollbackSuppressed", PAGE,
        "the guard wanted to roll back and did not: too many automatic rollbacks in 24 h",
        "The limit `release.max_rollbacks_per_day` is reached, so the guard holds instead. Find out why "
        "release after release fails.",
        "It holds the release where it is and lets nothing advance.",
        (STATUS, INCIDENTS, INCIDENT, RULES, BACK),
        (
            "Take the release out by hand: a rollback by a person is never suppressed.",
            "Compare the incidents of the last day. One rule on different releases: the rule may be wrong "
            "(`sft-guard slo replay`). Different rules: start nothing new until the cause is known.",
        ),
    ),
    "unknown_too_long": (
        "SftReleaseUnknownTooLong", PAGE,
        "a canary takes traffic and cannot be judged",
        "For longer than `release.unknown_after` the canary could not be judged: too little traffic, checks that are "
        "down, or an expired baseline.",
        "It holds the canary; with `unknown_action: drain`, in mode `enforce`, it takes its traffic away.",
        (STATUS, VALUES, HEALTH, BACK),
        (
            "The reason stands behind *last judged*. Checks are down: see SftGuardChecksDown. The baseline has "
            "expired: see SftGuardBaselineExpired.",
            "Too few events: wait, give the canary more traffic by hand (`sft-guard release promote`), or lower "
            "`min_events` in slo.yaml and reload.",
            "Nobody can look at it now: `sft-guard release abort` takes its traffic away without blame.",
        ),
    ),
    "no_target": (
        "SftReleaseNoTarget", PAGE,
        "stable breaches a rule and there is nothing to return to",
        "A rule that rolls back fires on the stable release, and no earlier release is known or configured.",
        "It holds and opens an incident: it never points to a release that does not exist.",
        (STATUS, INCIDENTS, INCIDENT, DOCTOR),
        NO_TARGET_THEN,
    ),
    "shared_upstream": (
        "SftReleaseSharedUpstream", PAGE,
        "stable and canary breach the same rule: it is not the canary",
        "Both arms suffer, so something they share does: model server, knowledge base, network.",
        "It may lower the weight of the canary; the pointer does not move.",
        (STATUS, VALUES, DOCTOR, INCIDENTS, INCIDENT),
        SHARED_THEN,
    ),
}  # fmt: skip
"""Word of `sft_release_condition` -> alert, severity, summary, meaning, what the guard does, where to look, what to do
then."""
