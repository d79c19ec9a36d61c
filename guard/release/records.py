"""What the journal keeps, as values: the promise, numbered steps, audit lines, outbox items. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from guard.release.incident import Incident
from guard.release.state import ReleaseState


class SagaStep(IntEnum):
    """Steps of a rollback, in their order. Each is safe to repeat."""

    INTENT = 1  # the promise is durable
    WEIGHT_ZERO = 2  # this process sends the bad version nothing any more
    RECORDED = 3  # state and incident are in the local database
    CONTROL = 4  # the control document was replaced by compare-and-set
    POINTER = 5  # the registry points to the target
    NOTIFY = 6  # webhooks are in the outbox
    DONE = 7


@dataclass(frozen=True, slots=True)
class Intent:
    """Everything a restarted process needs to finish the rollback.

    from_epoch: epoch the decision was made on. state: the release afterwards, weight 0, epoch from_epoch + 1.
    """

    saga_id: str
    from_epoch: int
    promoted: bool
    state: ReleaseState
    incident: Incident


@dataclass(frozen=True, slots=True)
class StepRow:
    """One numbered line of the journal."""

    number: int
    saga_id: str
    step: SagaStep
    wall_s: float
    detail: str


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Who did what to the release. wall_s: Unix seconds."""

    wall_s: float
    action: str
    actor: str
    before: str
    after: str
    detail: str = ""


DEEDS = frozenset({"start", "advance", "promote", "abort", "rollback", "pause", "resume", "shed", "hold"})
"""Actions of the audit that changed who answers; `hold`: a canary that nobody could judge was drained."""
ADOPT, REFUSED = "adopt", "refused"


def last_deed(newest_first: Iterable[AuditLine]) -> AuditLine | None:
    """What changed the release last.

    A raise is written down before it is asked for. One that was refused was none, unless the document that it asked for
    came to be obeyed all the same: a replica had the same thought, or only the answer was lost.
    """
    refused, adopted = False, set()
    for line in newest_first:
        if line.action == ADOPT:
            adopted.add(line.after)
        elif line.action == REFUSED:
            refused = True
        elif line.action in DEEDS:
            if not refused or line.after in adopted:
                return line
            refused = False
    return None


class OutboxState(StrEnum):
    """Where an outgoing message is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXPIRED = "expired"  # 24 h of tries were not enough
    DISABLED = "disabled"  # the receiver said 410 Gone


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One message to one target. `message_id` is the webhook-id of every try; `body` goes out byte for byte.

    urgent: tried at 0, 1, 2, 5, 10 and 30 s first. number: place in the queue, given by the journal.
    """

    message_id: str
    target: str
    incident_id: str
    body: bytes
    created_s: float
    urgent: bool = True
    attempts: int = 0
    state: OutboxState = OutboxState.PENDING
    last_error: str = ""
    number: int = 0
