"""lora: from knowledge base to guarded release. Each part registers its own commands."""

from __future__ import annotations

from guard.commands import (
    lora_data,
    lora_eval,
    lora_hot,
    lora_judging,
    lora_register,
    lora_rules,
    lora_serve,
    lora_training,
    lora_vault,
)
from guard.commands.common import Groups, add_group


def register(groups: Groups) -> None:
    """Add the group and its commands."""
    lora = add_group(groups, "lora", "adapters on premises: train, judge, keep under lock")
    lora_data.register(lora)
    lora_training.register(lora)
    lora_judging.register(lora)
    lora_eval.register(lora)
    lora_register.register(lora)
    lora_rules.register(lora)
    lora_serve.register(lora)
    lora_hot.register(lora)
    lora_vault.register(lora)
