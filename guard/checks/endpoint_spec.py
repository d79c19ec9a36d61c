"""Settings of an embeddings endpoint as they travel to the worker. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from guard.limits import Egress

ENDPOINT = "endpoint"
"""`checks.embedder` that means the endpoint of `embeddings`."""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """See `rag.endpoint.EndpointEmbedder`. One try: what is not there now is not there for this answer.

    egress_networks: as in `limits`.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    dim: int = 0
    batch_count: int = 64
    timeout_s: float = 5.0
    tries_count: int = 1
    latin_only: bool = False
    egress_networks: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """Of the embedder that asks this endpoint."""
        given = asdict(self)
        egress = Egress(given.pop("egress_networks"))
        return {**given, "permits": egress.permits}
