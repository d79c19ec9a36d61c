"""What the registry knows of the knowledge base of each version, for the table of differences in an incident.

A version says `kb: MODEL@VERSION` in guard.yaml. Its lineage (chunking, profile of its rows) and the last verdict of
the gate are read beforehand and kept, because an incident is written down at the moment of a rollback, when nobody
waits for a registry. A registry that is away costs these rows of the table and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from registry.errors import RegistryError, RegistryRefused
from registry.model import Evaluation, ModelVersion
from registry.port import RegistryPort

log = logging.getLogger("sft-guard")

EVERY_S = 300.0
"""A gate may be run, and its result added, while a version serves."""
GATE = "kb-gate"
TEXT_CHARS = 200
ENTRY_COUNT = 24

_RATIOS = {
    "empty_ratio": "KB empty rows",
    "malformed_ratio": "KB malformed rows",
    "duplicate_ratio": "KB duplicate rows",
}


def kb_reference(kb: str) -> tuple[str, str] | None:
    """Model and version that `kb` names in the registry; None when it is only a word.

    >>> kb_reference("faq-kb@2-kb+1750000000"), kb_reference("600/100")
    (('faq-kb', '2-kb+1750000000'), None)
    """
    model, at, version = kb.partition("@")
    return (model, version) if at and model and version else None


def kb_words(version: ModelVersion, evaluations: Sequence[Evaluation] = ()) -> dict[str, str]:
    """A registered knowledge base as short words, one line each, at most `ENTRY_COUNT`.

    >>> from registry.model import Lineage
    >>> profile = {"mean_tokens": 280.4, "empty_ratio": 0.15, "row_count": 500}
    >>> kb_words(ModelVersion("kb", "2", lineage=Lineage(parameters={"chunking": "350/50", "profile": profile})))
    {'KB rows': '500', 'KB mean row': '280 tokens', 'KB empty rows': '15.0%', 'KB chunking': '350/50'}
    """
    parameters = version.lineage.parameters
    profile = parameters.get("profile")
    found = _profile_words(profile) if isinstance(profile, Mapping) else {}
    for name, value in parameters.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            found[f"KB {name}".replace("_", " ")[:40]] = short(value)
    if embedder := version.meta.get("embedding_model"):
        found["KB embedder"] = short(embedder)
    gates = [e for e in evaluations if e.name == GATE]
    if gates:
        found["KB gate"] = _gate_words(gates[-1].result)
    return dict(list(found.items())[:ENTRY_COUNT])


def _profile_words(profile: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    rows, mean = profile.get("row_count"), profile.get("mean_tokens")
    if isinstance(rows, int | float):
        found["KB rows"] = f"{rows:.0f}"
    if isinstance(mean, int | float):
        found["KB mean row"] = f"{mean:.0f} tokens"
    for name, label in _RATIOS.items():
        value = profile.get(name)
        if isinstance(value, int | float):
            found[label] = f"{value:.1%}"
    languages = profile.get("languages")
    if isinstance(languages, Mapping):
        parts = (f"{name} {ratio:.0%}" for name, ratio in sorted(languages.items()) if isinstance(ratio, int | float))
        found["KB languages"] = short(", ".join(parts))
    return found


def _gate_words(result: Mapping[str, object]) -> str:
    if result.get("accepted") is True:
        return "accepted"
    reasons = result.get("refused")
    why = [str(reason) for reason in reasons] if isinstance(reasons, list | tuple) else []
    return short("; ".join(["refused", *why]))


def short(value: object) -> str:
    """One line of at most `TEXT_CHARS`."""
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 3] + "..."


class KbFacts:
    """Keeps the words of every configured knowledge base. kbs: the `kb` of each version, asked at every round."""

    what = "knowledge base"

    def __init__(self, port: RegistryPort, kbs: Callable[[], Iterable[str]], *, every_s: float = EVERY_S) -> None:
        self._port, self._kbs, self._every_s = port, kbs, every_s
        self._known: dict[str, dict[str, str]] = {}

    def details(self, kb: str) -> Mapping[str, str]:
        """What is known of it now; empty for a word, and until the registry was asked."""
        return self._known.get(kb, {})

    async def refresh(self) -> None:
        """Ask for every one; what cannot be learnt now stays as it was known before."""
        for kb in dict.fromkeys(self._kbs()):
            reference = kb_reference(kb)
            if reference is None:
                continue
            try:
                version = await self._port.version(*reference)
                self._known[kb] = self._words(kb, version, await self._port.evaluations(*reference))
            except RegistryRefused as error:
                log.warning("%s %s: %s; incidents will not say what it is made of", self.what, kb, error)
                self._known.pop(kb, None)
            except RegistryError as error:
                log.info("%s %s: %s", self.what, kb, error)

    def _words(self, kb: str, version: ModelVersion, evaluations: Sequence[Evaluation]) -> dict[str, str]:
        return kb_words(version, evaluations)

    async def run(self) -> None:
        """Ask now and then, for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._every_s)
