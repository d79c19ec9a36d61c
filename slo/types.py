"""The eight types that travel everywhere: frozen, slotted, no behaviour beyond small sums.

    Version -> Exchange (+ Findings) -> Window, Reading -> Slo -> Verdict -> Action

Units: seconds, ratios 0..1, tokens, USD; names carry them. `None` means "not measured", never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256


class Outcome(StrEnum):
    """How one exchange ended. Closed set: it is a metric label."""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # 4xx by the caller: not held against the release
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    INCOMPLETE = "incomplete"  # started with 200, then broke, stalled or lacked its terminal marker
    CANCELLED = "cancelled"  # the client went away: neither success nor failure
    BLOCKED = "blocked"  # refused by the guard itself (overload, policy)


FAILURES = frozenset({Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.INCOMPLETE})
"""Outcomes that count against availability; `ok` plus these is its denominator."""


class CheckResult(StrEnum):
    """What one check said. `unavailable`: it could not look. `skipped`: nothing to look at."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    UNAVAILABLE = "unavailable"
    SKIPPED = "skipped"


class State(StrEnum):
    """Outcome of one evaluation. Unknown never rolls back and never advances."""

    OK = "ok"
    BREACH = "breach"
    UNKNOWN = "unknown"


class OnBreach(StrEnum):
    """What a rule asks for when it is breached (slo.yaml `action`)."""

    TRACK = "track"
    PAGE = "page"
    SHED = "shed"
    ROLLBACK = "rollback"


class Compared(StrEnum):
    """What a canary looks like beside the stable version that answers at the same time.

    `inconclusive`: seen, and not enough yet. `unknown`: could not be seen. Neither advances, neither rolls back.
    """

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    UNKNOWN = "unknown"


class ActionKind(StrEnum):
    """What the release is told to do. Decided in `slo`, carried out in `guard`."""

    ADVANCE = "advance"
    HOLD = "hold"
    SHED = "shed"
    ROLL_BACK = "roll_back"


class CacheStatus(StrEnum):
    """`x-guard-cache` of one answer."""

    HIT = "hit"
    MISS = "miss"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Version:
    """What answered: model x adapter x knowledge base x prompt x policy, with a name for people.

    Two versions with the same five parts are the same release whatever they are called.
    """

    name: str
    model: str = ""
    adapter: str = ""
    kb: str = ""
    prompt: str = ""
    policy: str = ""

    @property
    def release_id(self) -> str:
        """Short id: the first 12 hex digits of SHA-256 over the five parts."""
        return _release_id(self.model, self.adapter, self.kb, self.prompt, self.policy)


@lru_cache(maxsize=1024)
def _release_id(*parts: str) -> str:
    return sha256("\x1f".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check said about one answer.

    check: name from `slo.metric_names.CHECKS`. score: in [0, 1], in the check's own sense (grounding:
    support, similarity: cosine, drift: distance), None when there was nothing to score.
    evidence: unsupported sentences, matched pattern names...; redacted text, at most a few items.
    """

    check: str
    result: CheckResult
    score: float | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()
    detector: str = ""  # which implementation and embedder fingerprint said so


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer as measured: numbers, labels, findings. Its text travels beside it.

    Counted once, at its end. Durations are seconds from the first byte of the request.
    """

    exchange_id: str
    wall_s: float  # Unix seconds at the start; a label
    route: str  # the route's name, from the closed set of guard.yaml
    release: str  # Version.release_id
    arm: str  # "stable" or "canary"
    outcome: Outcome
    status: int  # HTTP status the client saw; 0 when it saw none
    reason: str = ""  # closed set, see guard.ports.Reason: "throttled", "connect", "idle"...
    duration_s: float = 0.0
    first_byte_s: float | None = None  # first chunk of the body
    first_token_s: float | None = None  # first chunk with content; None for answers that are no stream
    overhead_s: float | None = None  # the guard's own share of duration_s
    stream: bool = False
    model: str = ""  # as asked for; free text, never a metric label
    tenant: str = ""
    session: str = ""  # short hash of the session key, never the key itself
    cache: CacheStatus = CacheStatus.BYPASS
    input_tokens: int | None = None
    output_tokens: int | None = None
    usage: str = "none"  # "reported" by the upstream, "estimated" by us, or "none"
    cost_usd: float | None = None
    traceparent: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """A span that readings are taken over, seconds, ending now."""

    length_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """`bad_count` of `count` events in one span. A count of zero is silence, not health.

    value_sum: sum of the measured values (similarity, USD, seconds) for mean indicators.
    coverage_ratio: share of the exchanges that could be judged at all; below 0.5 a rule is unknown.
    """

    bad_count: int
    count: int
    value_sum: float = 0.0
    value_sq_sum: float = 0.0
    coverage_ratio: float = 1.0

    @property
    def mean(self) -> float | None:
        """Mean of the values, or None on an empty reading."""
        return self.value_sum / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class FastPath:
    """Catastrophe rule beside the slow one: share `over_ratio` bad within `window`, at least `min_events`."""

    over_ratio: float = 0.20
    window: Window = field(default_factory=lambda: Window(60.0))
    min_events: int = 20


@dataclass(frozen=True, slots=True)
class Threshold:
    """How a limit is obtained: one of the eight forms of slo.yaml, with its numbers.

    form: baseline | current | limit | sla | budget | tier | previous | absolute
    params: the numbers and words written in the file, e.g. {"quantile": "p95", "factor": 1.5}
    """

    form: str
    params: Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class CanaryRule:
    """How an objective is compared between canary and stable (slo.yaml `canary`).

    factor: a canary more than this many times as bad as stable fails (harms that happen or do not). margin: a canary
    that is certainly less than this much worse than stable passes; share of events, or score; None: by the limit, see
    `slo.comparison.margin_of`. alpha: probability of a false fail over the whole rollout; this objective's share of it.
    """

    factor: float
    margin: float | None
    alpha: float


@dataclass(frozen=True, slots=True)
class Slo:
    """One objective of slo.yaml."""

    name: str
    indicator: str  # a name of slo.metric_names.INDICATORS
    window: Window
    threshold: Threshold
    for_s: float = 0.0
    keep_firing_for_s: float = 300.0
    min_events: int = 400
    action: OnBreach = OnBreach.TRACK
    fast: FastPath | None = None
    burn_rate: bool = False
    routes: tuple[str, ...] = ()  # empty: all
    canary: CanaryRule | None = None  # None: not compared


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one objective says of a canary beside stable since the rollout began, or of stable since its promotion.

    e_value: evidence for harm; it fails at `e_needed`. None where bounds decide (scores) or nothing was seen.
    harm_low, harm_high: how much worse the canary certainly is at least, and at most; share or score, negative is
    better. evidence: all figures as text, for incidents and webhooks.
    """

    result: Compared
    reason: str
    e_value: float | None = None
    e_needed: float | None = None
    harm_low: float | None = None
    harm_high: float | None = None
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ok, breach or unknown for one Slo and one release, with the reason and the evidence.

    value, threshold, bound: in the indicator's own unit (ratio, seconds, USD); None while unknown.
    bound: the one-sided 95 % bound that had to be past the threshold as well.
    firing: the breach held for `for_s`, or is being kept for `keep_firing_for_s`.
    """

    slo: Slo
    release: str
    state: State
    value: float | None
    threshold: float | None
    reason: str
    bound: float | None = None
    reading: Reading | None = None
    firing: bool = False
    fast: bool = False  # the fast path spoke
    evidence: tuple[tuple[str, str], ...] = ()
    fast_reading: Reading | None = None  # what the fast path saw, whether it spoke or not
    comparison: Comparison | None = None  # of a canary, and of stable after its promotion


@dataclass(frozen=True, slots=True)
class Action:
    """What to do with the release, and why. `verdicts` are those that led to it."""

    kind: ActionKind
    reason: str
    verdicts: tuple[Verdict, ...] = ()


def add_readings(readings: Iterable[Reading]) -> Reading:
    """Add readings of disjoint spans.

    >>> add_readings([Reading(1, 10, value_sum=2.0), Reading(0, 30, value_sum=4.0)]).mean
    0.15
    """
    bad = count = 0
    total = squares = covered = 0.0
    for reading in readings:
        bad += reading.bad_count
        count += reading.count
        total += reading.value_sum
        squares += reading.value_sq_sum
        covered += reading.coverage_ratio * reading.count
    return Reading(bad, count, total, squares, covered / count if count else 1.0)
