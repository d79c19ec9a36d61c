"""What the labels of a foreign model mean: read from `id2label`, or from the settings. Pure.

A sequence classifier says of (context, claim) entailment | neutral | contradiction, or consistent | hallucinated. A
token classifier says of each token of the answer supported | unsupported. Guessing wrongly would turn every verdict
round, so names that say nothing (LABEL_0) are refused with the setting that answers it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from slo.errors import ConfigError

NLI, TOKENS = "nli", "tokens"
SUPPORTED, UNSUPPORTED, CONTRADICTED = "supported", "unsupported", "contradicted"
ROLES = (SUPPORTED, UNSUPPORTED, CONTRADICTED)

_WORDS: dict[str, str] = {
    **dict.fromkeys(
        ("entailment", "entail", "entailed", "entails", "supported", "support", "consistent", "factual", "faithful",
         "grounded", "attributable", "supports", "correct", "no hallucination", "not hallucinated"),
        SUPPORTED,
    ),
    **dict.fromkeys(
        ("neutral", "not entailment", "not entailed", "not enough info", "unsupported", "not supported", "hallucinated",
         "hallucination", "inconsistent", "unfaithful", "not grounded", "ungrounded", "hallu", "baseless", "nei"),
        UNSUPPORTED,
    ),
    **dict.fromkeys(("contradiction", "contradictory", "contradict", "contradicts", "refutes", "refuted", "conflict"),
                    CONTRADICTED),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Labels:
    """Positions of the model's outputs by meaning. contradicted: may be empty."""

    supported: tuple[int, ...]
    unsupported: tuple[int, ...]
    contradicted: tuple[int, ...] = ()


def read_labels(kind: str, id2label: Mapping[int, str], given: Mapping[str, str] | None = None) -> Labels:
    """Meaning of each output of a model.

    given: label name -> role, from `checks.detector.labels`; wins over the names. Of token classifiers without names
    (LABEL_0, LABEL_1) label 1 is the unsupported one, as published detectors of this kind have it.

    Raises:
        ConfigError: a label is unknown, or the labels do not tell supported from unsupported.

    >>> read_labels("nli", {0: "CONTRADICTION", 1: "neutral", 2: "Entailment"})
    Labels(supported=(2,), unsupported=(1,), contradicted=(0,))
    >>> read_labels("tokens", {0: "LABEL_0", 1: "LABEL_1"})
    Labels(supported=(0,), unsupported=(1,), contradicted=())
    """
    place = "checks.detector.labels"
    given = dict(given or {})
    names = {int(i): str(name) for i, name in sorted(id2label.items())}
    shown = ", ".join(names.values())
    if stray := sorted(set(given) - set(names.values())):
        raise ConfigError(place, stray[0], f"the model has no such label; its labels are {shown}")
    roles: dict[str, list[int]] = {role: [] for role in ROLES}
    nameless = kind == TOKENS and not given and [n.upper() for n in names.values()] == ["LABEL_0", "LABEL_1"]
    for index, name in names.items():
        role = (SUPPORTED, UNSUPPORTED)[index] if nameless else given.get(name) or _WORDS.get(_plain(name))
        if role is None:
            example = "{" + ", ".join(f"{n}: {SUPPORTED}|{UNSUPPORTED}|{CONTRADICTED}" for n in names.values()) + "}"
            raise ConfigError(
                place, name, f"it is not known what this label of the model means; write labels: {example}"
            )
        roles[role].append(index)
    if not roles[SUPPORTED] or not (roles[UNSUPPORTED] or roles[CONTRADICTED]):
        raise ConfigError(place, shown, "these labels do not tell supported from unsupported; see docs/detectors.md")
    return Labels(*(tuple(roles[role]) for role in ROLES))


def _plain(name: str) -> str:
    """Lower case, words parted by one space."""
    return re.sub(r"[^a-z]+", " ", name.lower()).strip()
