"""From guard.yaml to what the check worker is told of an embeddings endpoint."""

from __future__ import annotations

from guard.checks.endpoint_spec import ENDPOINT, EndpointSpec
from guard.settings import Settings


def endpoint_spec(settings: Settings) -> EndpointSpec | None:
    """Of `embeddings`, when `checks.embedder` asks for it."""
    asked = settings.file.embeddings
    if settings.file.checks.embedder != ENDPOINT or asked is None:
        return None
    return EndpointSpec(
        base_url=asked.url,
        model=asked.model,
        api_key=settings.embeddings_key or "",
        dim=asked.dim,
        batch_count=asked.batch,
        timeout_s=asked.timeout,
        latin_only=asked.scripts == "latin",
        egress_networks=settings.file.limits.egress_networks,
    )
