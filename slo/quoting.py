"""Findings without anybody's words, for places that may hold none. Pure."""

from __future__ import annotations

from dataclasses import replace

from slo.types import CheckResult, Finding

_COUNTED = frozenset({"pii", "question_pii", "acl", "reopen"})
"""Checks whose evidence is kinds, counts and ids; that of all others may quote."""
_QUOTING = frozenset({"grounding", "rules"})
"""Checks whose reason goes on after its kind with what the answer says: `number: the answer says 45 days, ...`."""


def unquoted(finding: Finding) -> Finding:
    """The same finding without a word of the question, the answer or the contexts.

    >>> said = unquoted(Finding("grounding", CheckResult.FAIL, 0.1, "name: the answer says Wu", ("Ask Wu.",)))
    >>> said.reason, said.evidence
    ('name', ())
    """
    reason, evidence = finding.reason, finding.evidence
    if finding.check in _QUOTING and finding.result is CheckResult.FAIL:
        reason = reason.partition(":")[0]
    if finding.check not in _COUNTED:
        evidence = ()
    if (reason, evidence) == (finding.reason, finding.evidence):
        return finding
    return replace(finding, reason=reason, evidence=evidence)
