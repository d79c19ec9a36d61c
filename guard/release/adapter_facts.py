"""What the registry knows of the adapter of each version: lineage for incidents, evaluation as the canary's prior.

A version says `adapter: MODEL@VERSION` in guard.yaml, as `lora register` named it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from guard.release.kb_facts import ENTRY_COUNT, KbFacts, short
from registry.model import Evaluation, ModelVersion
from registry.port import RegistryPort

EVALUATION = "lora-eval"
SIMILARITY = "sft_quality_similarity_score"
_SETTINGS = ("learning_rate", "epochs", "rank", "row_count", "schedule", "warmup_steps")


def adapter_words(version: ModelVersion, evaluations: Sequence[Evaluation] = ()) -> dict[str, str]:
    """A registered adapter as short words.

    >>> from registry.model import Lineage
    >>> adapter_words(ModelVersion("hr", "1", meta={"base_model": "tiny"}, lineage=Lineage("ann", "ab12")))
    {'adapter base': 'tiny', 'adapter trained by': 'ann', 'adapter data': 'ab12'}
    """
    lineage = version.lineage
    facts: dict[str, object] = {
        "base": version.meta.get("base_model"), "trained by": lineage.created_by, "data": lineage.data_hash[:16],
        **{name.replace("_", " "): lineage.parameters.get(name) for name in _SETTINGS},
    }  # fmt: skip
    found = {f"adapter {name}": short(value) for name, value in facts.items() if value not in (None, "")}
    if (judged := _latest(evaluations)) is not None:
        word = "passed" if judged.get("passed") is True else "NOT passed"
        similarity = judged.get("similarity")
        how = f", similarity {similarity:.1%} of {judged.get('count')}" if isinstance(similarity, int | float) else ""
        found["adapter evaluation"] = f"{word}{how}"
    return dict(list(found.items())[:ENTRY_COUNT])


def expected_scores(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Indicator -> score that the latest evaluation found, 0..1; nothing for one that has not passed."""
    judged = _latest(evaluations)
    similarity = judged.get("similarity") if judged is not None and judged.get("passed") is True else None
    known = isinstance(similarity, int | float) and 0.0 <= similarity <= 1.0
    return {SIMILARITY: float(similarity)} if known and similarity is not None else {}  # type: ignore[arg-type]


def _latest(evaluations: Sequence[Evaluation]) -> Mapping[str, object] | None:
    return next((e.result for e in reversed(evaluations) if e.name == EVALUATION), None)


class AdapterFacts(KbFacts):
    """Keeps the words of every configured adapter, and what its evaluation lets expect."""

    what = "adapter"

    def __init__(self, port: RegistryPort, adapters: Callable[[], Iterable[str]]) -> None:
        super().__init__(port, adapters)
        self._expected: dict[str, dict[str, float]] = {}

    def expected(self, adapter: str) -> Mapping[str, float]:
        """Indicator -> score, as evaluated before the release; empty while nothing is known."""
        return self._expected.get(adapter, {})

    def _words(self, kb: str, version: ModelVersion, evaluations: Sequence[Evaluation]) -> dict[str, str]:
        self._expected[kb] = expected_scores(evaluations)
        return adapter_words(version, evaluations)
