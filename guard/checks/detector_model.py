"""A Hugging Face classifier as a grounding detector. Imports torch; lives in a process of its own.

Long contexts are read in sliding windows. A claim is as well supported as in the window that supports it best, since
evidence stands in one place: P(unsupported) = 1 - max over windows of P(supported). Weights are read from safetensors
only and no code of a model is run, so a model directory cannot execute anything here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guard.checks.detector_labels import NLI, TOKENS, Labels, read_labels
from guard.checks.detector_spec import DetectorSpec
from guard.checks.file_watch import file_sha256
from rag.probing import probe_model
from slo.errors import ConfigError, DataError

CONTEXT_CHARS = 120_000
"""Characters of all contexts together that are read; about 60 windows of 512 tokens."""

CLAIM_CHARS = 4_000
MAX_POSITIONS = 8192
"""Tokens read at once, whatever a model claims."""


class HfDetector:
    """One loaded model.

    Raises (constructor):
        DataError: not there, damaged, or of another kind. ConfigError: its labels are not understood.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside those libraries are not ours to mend
            import torch
            import transformers
            from transformers.utils import logging as transformers_logging

            transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
            transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            torch.set_num_threads(spec.thread_count)
            self._torch = torch
            probe_model(spec.model)
            source: dict[str, Any] = {"local_files_only": not spec.allow_download, "trust_remote_code": False}
            try:
                config = transformers.AutoConfig.from_pretrained(spec.model, **source)
                self.kind = _kind(spec, config)
                load: Any = (
                    transformers.AutoModelForTokenClassification
                    if self.kind == TOKENS
                    else transformers.AutoModelForSequenceClassification
                )
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(spec.model, use_fast=True, **source)
                self._model: Any = load.from_pretrained(spec.model, use_safetensors=True, **source)
                self._model = self._model.to(spec.device).eval()
            except (ConfigError, DataError):
                raise
            except Exception as error:  # those libraries raise a dozen kinds for "not there" and "damaged"
                here = Path(spec.model).is_dir() or spec.allow_download
                why = " ".join(str(error).split())[:240] if here else "no such directory, nor in the local hub cache"
                raise DataError(
                    f"detector {spec.model!r}: cannot be loaded ({why}); give the path of a directory with "
                    "config.json, "
                    "tokenizer.json, model.safetensors"
                ) from error
        if not self._tokenizer.is_fast:
            raise DataError(f"detector {spec.model!r}: has no fast tokenizer (tokenizer.json), which windows need")
        self.labels: Labels = read_labels(self.kind, config.id2label, dict(spec.labels))
        self._spec = spec
        positions = int(getattr(config, "max_position_embeddings", 512) or 512)
        if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
            positions -= 2  # these count positions from the padding index on
        self._room = min(positions, MAX_POSITIONS, int(self._tokenizer.model_max_length))
        if spec.window_tokens:
            self._room = min(self._room, spec.window_tokens)
        if self._room < 16 or spec.overlap_tokens > self._room // 4:
            raise ConfigError(
                "checks.detector.overlap_tokens",
                spec.overlap_tokens,
                f"at most a quarter of a window ({self._room} tokens)",
            )
        self.files = _files_of(spec.model, config)
        weights = next((d for p, d in self.files.items() if p.endswith(".safetensors")), "")
        self.name = f"{self.kind}:{Path(spec.model).name}@{weights[:12] or 'unhashed'}"

    def score(self, question: str, claims: Sequence[str], contexts: Sequence[str]) -> list[float]:
        """Probability of being unsupported, one per claim, in [0, 1].

        question: read by token classifiers, which were trained with it; a claim of an NLI model stands alone.
        """
        context = "\n\n".join(c for c in contexts if c.strip())
        if self.kind == TOKENS and question.strip():
            context = f"{question.strip()}\n\n{context}"
        context = context[:CONTEXT_CHARS]
        read = [self._cut(c) for c in claims]
        asked = [i for i, claim in enumerate(read) if claim]
        best: list[list[float]] = [[] for _ in claims]  # of each token of a claim; an NLI model says one number
        for claim, chances in self._windows([read[i] for i in asked], context):
            seen = best[asked[claim]]
            best[asked[claim]] = [max(a, b) for a, b in zip(seen, chances, strict=True)] if seen else chances
        # A claim is as bad as its worst token; one without tokens claims nothing.
        return [min(1.0, max(0.0, 1.0 - min(chances))) if chances else 0.0 for chances in best]

    def _cut(self, claim: str) -> str:
        """At most half a window of a claim, so that its context has the other half."""
        found = self._tokenizer(
            claim[:CLAIM_CHARS], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets = found["offset_mapping"][: self._room // 2]
        return claim[: offsets[-1][1]] if offsets else ""

    def _windows(self, claims: Sequence[str], context: str) -> Iterator[tuple[int, list[float]]]:
        """(claim, probabilities of being supported) of every window of every claim."""
        if not claims:
            return
        overlap = min(self._spec.overlap_tokens, self._room // 4)
        found = self._tokenizer(
            [context] * len(claims), list(claims), truncation="only_first", max_length=self._room, stride=overlap,
            return_overflowing_tokens=True, verbose=False,
        )  # fmt: skip
        owner = found["overflow_to_sample_mapping"]
        for at in range(0, len(owner), self._spec.batch_count):
            rows = range(at, min(at + self._spec.batch_count, len(owner)))
            yield from zip((owner[i] for i in rows), self._forward(found, rows), strict=True)

    def _forward(self, found: Any, rows: Sequence[int]) -> Iterator[list[float]]:
        """Per window: [P(supported)], or of a token classifier P(supported) of each token of the claim."""
        torch = self._torch
        names = [n for n in self._tokenizer.model_input_names if n in found]
        batch = self._tokenizer.pad({n: [found[n][i] for i in rows] for n in names}, return_tensors="pt", verbose=False)
        with torch.inference_mode():
            logits = self._model(**{k: v.to(self._spec.device) for k, v in batch.items()}).logits
            supported = torch.softmax(logits.float(), dim=-1)[..., list(self.labels.supported)].sum(-1).cpu()
        for row, index in zip(supported, rows, strict=True):
            if self.kind == NLI:
                yield [float(row)]
            else:
                padded_left = self._tokenizer.padding_side == "left"
                of = found.sequence_ids(index)
                offset = len(row) - len(of) if padded_left else 0
                yield [float(row[at + offset]) for at, sequence in enumerate(of) if sequence == 1]


def _kind(spec: DetectorSpec, config: Any) -> str:
    names = " ".join(config.architectures or ())
    found = TOKENS if "ForTokenClassification" in names else NLI if "ForSequenceClassification" in names else ""
    if not found and spec.kind == "auto":
        raise ConfigError(
            "checks.detector.model", spec.model, 
            f"it is a {names or 'model of no kind'}; give one for sequence or token classification"
        )  # fmt: skip
    if found and spec.kind not in ("auto", found):
        raise ConfigError("checks.detector.kind", spec.kind, f"the model is of kind `{found}`; write that, or auto")
    return found or spec.kind


def _files_of(model: str, config: Any) -> dict[str, str]:
    """Path -> SHA-256 of what was loaded, as far as it lies on this machine."""
    directory = Path(model)
    if not directory.is_dir():
        from transformers.utils.hub import cached_file

        found = cached_file(model, "config.json", local_files_only=True)
        directory = Path(found).parent if found else directory
    wanted = (".safetensors", ".json", ".txt", ".model")
    paths = sorted(p for p in directory.glob("*") if p.suffix in wanted) if directory.is_dir() else []
    return {str(p): file_sha256(p) for p in paths}
