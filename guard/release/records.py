"""What the journal keeps, as values: the promise, numbered steps, audit lines, outbox items. Pure."""

from __future__ import annotations

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
