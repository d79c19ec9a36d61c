"""A fine-tuned model in the version registry, with what it was made of."""

from __future__ import annotations

from collections.abc import Mapping

from rag.finetune.jobs import JobState
from registry.client import RegistryPort
from registry.model import ModelVersion
from registry.registering import ensure_model
from slo.errors import RefusedError

TAGS = ("llm", "fine-tuned", "openai")


def version_name(state: JobState) -> str:
    """`ft+<Unix time of the job>`, as versions of knowledge bases are named `<n>-kb+<time>`."""
    return f"ft+{state.created_at or 0}"


def meta_of(state: JobState) -> dict[str, object]:
    """What the registry keeps beside the version."""
    return {
        "artifact_type": "OpenAIFineTunedModel",
        "provider": "openai",
        "base_model": state.model,
        "fine_tuned_model": state.fine_tuned_model,
        "job_id": state.job_id,
        "training_file": state.training_file,
        "validation_file": state.validation_file,
        "train_sha256": state.train_sha256,
        "trained_tokens": state.trained_tokens,
        "epochs": state.epochs,
        "suffix": state.suffix,
    }


async def register(
    registry: RegistryPort, name: str, state: JobState, *, owner: str, evaluation: Mapping[str, object] | None = None
) -> ModelVersion:
    """Register the model of a finished job under `name`; again changes nothing.

    evaluation: result of `ft eval`, kept in the meta data.

    Raises:
        RefusedError: the job has no model. RegistryRefused, RegistryUnreachable: of the registry.
    """
    if state.status != "succeeded" or not state.fine_tuned_model:
        raise RefusedError("not_succeeded", f"job {state.job_id or '(none)'} is {state.status}: there is no model yet")
    await ensure_model(registry, name, owner, f"fine-tuned from {state.model}")
    version = version_name(state)
    for known in await registry.versions(name):
        if known.version == version and known.meta.get("job_id") == state.job_id:
            return known
    return await registry.create_version(
        name,
        version,
        artifact_url=f"openai://models/{state.fine_tuned_model}",
        description=f"OpenAI fine-tune of {state.model}, job {state.job_id}",
        tags=TAGS,
        meta={**meta_of(state), **({"evaluation": dict(evaluation)} if evaluation else {})},
        actor=owner,
    )
