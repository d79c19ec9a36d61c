"""Cross-encoders by name: question and document read together, for the best of a search only."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

from rag.embedding import INSTALL_LINE
from slo.errors import DataError

_CHARS_MAX = 8_000  # a cross-encoder reads some hundred words; the rest would only be cut off more slowly


class CrossEncoderReranker:
    """A sentence-transformers CrossEncoder. Imports torch.

    Raises:
        DataError: no such model on this machine, it cannot be loaded, or it has more than one score.
    """

    def __init__(self, name: str, *, threads: int = 1, allow_download: bool = False) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside those libraries are not ours to fix
            import torch
            from sentence_transformers import CrossEncoder

            torch.set_num_threads(threads)
            try:
                self._model: Any = CrossEncoder(
                    name, device="cpu", local_files_only=not allow_download, model_kwargs={"use_safetensors": True}
                )
            except Exception as error:  # the libraries raise a dozen kinds for "not there" and "damaged"
                raise DataError(
                    f"reranker {name!r}: cannot be loaded ({' '.join(str(error).split())[:200]}); give the path of a "
                    "cross-encoder, or a name that is in the local cache"
                ) from error
        if self._model.config.num_labels != 1:
            raise DataError(f"reranker {name!r}: gives {self._model.config.num_labels} scores a pair, a reranker one")
        self.name = name

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text fits the query; higher is better."""
        if not texts:
            return []
        pairs = [(query, text[:_CHARS_MAX]) for text in texts]
        return [float(score) for score in self._model.predict(pairs, show_progress_bar=False)]


def load_reranker(name: str) -> CrossEncoderReranker:
    """The reranker called `name`.

    Raises:
        DataError: as of the class, or its packages are missing.
    """
    missing = [module for module in ("torch", "sentence_transformers") if importlib.util.find_spec(module) is None]
    if missing:
        raise DataError(f"reranker {name!r} needs {', '.join(missing)}: {INSTALL_LINE}")
    return CrossEncoderReranker(name)
