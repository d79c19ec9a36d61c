"""What `sft-guard doctor` says of contexts, drift, intents and probes: are they read, and is there enough to go by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from guard.checks.drift import load_reference
from guard.following.intents_file import load_intents
from guard.ports import ContextSource, Route
from guard.probing.probes_file import load_probes
from guard.settings import Settings
from slo.errors import GuardError
from slo.sources.exchange_log import LogReader
from slo.types import CheckResult, Exchange, Outcome

Found = tuple[str, str, str, str]
"""state (ok | warn | fault), subject, text, cure: a line of `sft-guard doctor`."""

LAST_COUNT = 200
"""Answers of a route that are looked at, the newest."""
ENOUGH_RATIO = 0.8
"""Fewer answers with contexts than this leave too many unchecked to judge a canary by."""
MIN_REFERENCE = 200
"""Questions behind a drift reference; docs/drift.md has the noise of fewer."""


def examine_files(settings: Settings) -> Iterator[Found]:
    """Contexts of each route on its last answers; then the files that the checks follow."""
    checks = settings.file.checks
    if not checks.enabled:
        return
    last = _last_answers(settings)
    for route in settings.routes:
        if route.adapter != "passthrough":
            yield _contexts(route, last.get(route.name, ()), settings)
    yield _drift(settings)
    if checks.intents is not None:
        try:
            intents = load_intents(settings.resolve(checks.intents))
        except GuardError as error:
            yield "fault", "intents", str(error), f"mend it, then `sft-guard check {settings.resolve(checks.intents)}`"
        else:
            examples = sum(len(intent.examples) for intent in intents)
            yield "ok", "intents", f"{len(intents)} intents, {examples} examples in {checks.intents}", ""
    if checks.probes is not None:
        yield _probes(settings)


def _contexts(route: Route, answers: tuple[Exchange, ...], settings: Settings) -> Found:
    subject, place = f"contexts of {route.name}", where(route.contexts)
    if not place:
        cure = f"routes: [{{name: {route.name}, contexts: {{body: PATH}}}}], or header, or prompt_start and prompt_end"
        return "warn", subject, "not named: no answer of this route is checked against its documents", cure
    known = [_retrieval(answer) is not CheckResult.SKIPPED for answer in answers]
    if not known:
        return "ok", subject, f"{place}; no answer in the exchange log yet: ask something, then run this again", ""
    said = f"{place}: found in {sum(known)} of the last {len(known)} answers"
    if sum(known) >= ENOUGH_RATIO * len(known):
        return "ok", subject, said, ""
    cure = f"look at one answer of the bot and name where its documents are (routes: contexts in {settings.path.name})"
    return "warn" if any(known) else "fault", subject, f"{said}; the others are unchecked, not passed", cure


def where(source: ContextSource) -> str:
    """Where contexts are looked for, in words; "" when nowhere.

    >>> where(ContextSource(body_path="guard.contexts")), where(ContextSource(header="x-docs")), where(ContextSource())
    ('body guard.contexts', 'header x-docs', '')
    """
    if source.body_path:
        return f"body {source.body_path}"
    if source.header:
        return f"header {source.header}"
    return f"prompt, between {source.prompt_start!r} and {source.prompt_end!r}" if source.prompt_start else ""


def _retrieval(answer: Exchange) -> CheckResult:
    """`skipped`: its contexts were not found."""
    return next((f.result for f in answer.findings if f.check == "zero_hit"), CheckResult.SKIPPED)


def _last_answers(settings: Settings) -> dict[str, tuple[Exchange, ...]]:
    """The newest answers of each route that were checked, from the newest segment of the log."""
    found: dict[str, deque[Exchange]] = {}
    try:
        newest = LogReader(settings.log_dir).files[-2:] if settings.log_dir.is_dir() else ()
        for exchange, _ in LogReader(newest) if newest else ():
            if exchange.outcome is Outcome.OK and any(f.check == "zero_hit" for f in exchange.findings):
                found.setdefault(exchange.route, deque(maxlen=LAST_COUNT)).append(exchange)
    except (GuardError, OSError):
        return {}  # an unreadable log is told by whoever reads it; here it only means that nothing was seen
    return {route: tuple(answers) for route, answers in found.items()}


def _drift(settings: Settings) -> Found:
    """What questions are compared with: a named reference, that of the baseline, or what was learnt."""
    drift, baseline = settings.file.checks.drift, settings.file.baseline
    named = drift.reference or baseline
    learnt = _learnt(settings)
    if named is None:
        return "ok", "drift", f"no reference: {learnt}", ""
    path = settings.resolve(named)
    try:
        reference = load_reference(path)
    except GuardError as error:
        if drift.reference is not None:
            return "fault", "drift", str(error), "until then drift of questions is `unavailable`"
        return "warn", "drift", f"{error}; {learnt}", ""
    said = f"compared with {reference.count} questions in {named}, read by {reference.fingerprint}"
    if reference.count < MIN_REFERENCE:
        return "warn", "drift", f"{said}: few", f"collect it again from {MIN_REFERENCE} questions or more"
    return "ok", "drift", said, ""


def _learnt(settings: Settings) -> str:
    kept = sorted(path.name for path in settings.state_dir.glob("drift-*.npz")) if settings.state_dir.is_dir() else []
    return f"learnt, in {', '.join(kept)}" if kept else "it is learnt from the first questions of stable"


def _probes(settings: Settings) -> Found:
    probes = settings.file.checks.probes
    assert probes is not None
    path: Path = settings.resolve(probes.file)
    try:
        rows = load_probes(path)
    except GuardError as error:
        return "fault", "probes", str(error), f"mend {path}"
    by_documents = sum(bool(row.documents) for row in rows)
    by_answer = sum(bool(row.reference.strip()) for row in rows)
    said = f"{len(rows)} questions in {probes.file}: {by_documents} by document, {by_answer} by answer"
    a_round = len(rows) * 3_600.0 / probes.every
    if a_round > probes.per_hour:
        text = f"{said}; one release alone needs {a_round:.0f} requests an hour, {probes.per_hour} are allowed"
        return "warn", "probes", text, "raise checks.probes.per_hour or checks.probes.every"
    return "ok", "probes", said, ""
