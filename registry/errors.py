"""What the registry may answer besides a result. One line each: place, value, cure.

The registry is a neighbour of `slo` on the lowest floor and imports nothing of it; whoever uses both translates at
the border (see `guard.release.pointer`).

RegistryError
├── RegistryRefused      understood and not allowed now; `reason` is a stable word for machines
└── RegistryUnreachable  no answer, or one that was not agreed; says nothing about what was written
"""

from __future__ import annotations


class RegistryError(Exception):
    """Base of everything the registry reports; printed as one line."""


class RegistryRefused(RegistryError):
    """Understood and refused. Reasons are the keys of `STATUS`."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class RegistryUnreachable(RegistryError):
    """Nobody knows whether a write happened: repeat it, every write is safe to repeat."""


STATUS: dict[str, int] = {
    "invalid": 422,
    "bad_name": 422,
    "unauthorized": 401,
    "unknown_model": 404,
    "unknown_version": 404,
    "unknown_service": 404,
    "unknown_alias": 404,
    "no_production": 404,
    "no_route": 404,
    "method_not_allowed": 405,
    "exists": 409,
    "archived": 409,
    "illegal_transition": 409,
    "no_target": 409,
    "conflict": 409,
    "stale_epoch": 409,
    "reserved_alias": 409,
    "gate_failed": 409,
    "too_large": 413,
    "precondition_required": 428,
    "unsupported": 501,
}
"""HTTP status of each reason. 409: the loser of a race, or a rule of the stages."""
