"""From guard.yaml to what the check worker is told of an embeddings endpoint."""

from __future__ import annotations

from guard.checks.endpoint_spec import ENDPOINT, EndpointSpec
from guard.settings import Settings
from slo.errors import ConfigError


def endpoint_spec(settings: Settings) -> EndpointSpec | None:
    """Of `embeddings`, when `checks.embedder` is "endpoint".

    Raises:
        ConfigError: it is, and there is no `embeddings`.
    """
    if settings.file.checks.embedder != ENDPOINT:
        return None
    asked = settings.file.embeddings
    if asked is None:
        cure = "add embeddings: {url: https://.../v1, model: NAME, api_key_env: VARIABLE}"
        raise ConfigError(f"{settings.path.name}: checks.embedder", ENDPOINT, cure)
    return EndpointSpec(
        base_url=asked.url,
        model=asked.model,
        api_key=settings.embeddings_key or "",
        dim=asked.dim,
        batch_count=asked.batch,
        timeout_s=asked.timeout,
        latin_only=asked.scripts == "latin",
    )
