"""Whether the contexts of an answer were for this reader: their access tags against roles and tenant. Pure.

A context is for a reader when it carries the tag `public` or `*`, a role that the request holds, or `tenant:NAME` with
the request's tenant. Contexts without tags say nothing; of a request without roles and tenant nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slo.types import CheckResult, Finding

CHECK = "acl"
EVERYBODY = frozenset({"*", "public"})
EVIDENCE_COUNT = 8
TAG_CHARS = 64


def roles_of(header: str, tenant: str) -> frozenset[str]:
    """What a request may see, from `x-guard-roles` (commas between roles) and `x-guard-tenant`.

    >>> sorted(roles_of("HR, staff", "acme"))
    ['hr', 'staff', 'tenant:acme']
    """
    roles = {part.strip().casefold() for part in header.split(",") if part.strip()}
    if tenant.strip():
        roles.add(f"tenant:{tenant.strip().casefold()}")
    return frozenset(roles)


def tags_of(value: object) -> tuple[str, ...] | None:
    """Tags as a context carries them: a list of words, or one word with commas; None when it carries none.

    >>> tags_of(["HR"]), tags_of("hr,staff"), tags_of(None), tags_of([])
    (('hr',), ('hr', 'staff'), None, None)
    """
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return None
    found = tuple(item.strip().casefold()[:TAG_CHARS] for item in value if isinstance(item, str) and item.strip())
    return found or None


def check_acl(tags: Sequence[Iterable[str] | None], roles: frozenset[str]) -> Finding:
    """tags: of each context, None where it carries none. Score: share of the tagged contexts the reader may see."""
    tagged = [(number, frozenset(found)) for number, found in enumerate(tags, start=1) if found is not None]
    if not tagged:
        return Finding(CHECK, CheckResult.SKIPPED, None, "no context carries an access tag")
    closed = [(number, found) for number, found in tagged if not found & EVERYBODY]
    if closed and not roles:
        return Finding(CHECK, CheckResult.SKIPPED, None, "the request names no role and no tenant")
    hidden = [(number, found) for number, found in closed if not found & roles]
    score = 1.0 - len(hidden) / len(tagged)
    if not hidden:
        return Finding(CHECK, CheckResult.PASS, score, "", (), "tags")
    evidence = tuple(f"context {number} is for {', '.join(sorted(found)[:4])}" for number, found in hidden)
    reason = f"{len(hidden)} of {len(tagged)} tagged contexts are not for this reader"
    return Finding(CHECK, CheckResult.FAIL, score, reason, evidence[:EVIDENCE_COUNT], "tags")
