"""References for drift out of the words of healthy traffic: what questions and answers looked like when all was well.

    texts of the log ─► hashed terms (every language, no model) ┐
                     └► the embedder, where it covers the text  ┴─► mean, variance, spread between days, a sample

A fingerprint and the cosines of a few fixed texts travel with each, so that vectors of another embedder, or of this one
computed differently, are never compared.
"""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from guard.checks import drift
from guard.checks.spec import HASHED_FINGERPRINT
from rag.text import cjk_ratio
from slo.artefact import DAY_S, QUANTILES, Distribution, DriftReference
from slo.statistics import quantile

TEXT_COUNT = 600
"""Exchanges whose words are embedded."""
SAMPLE_COUNT = 200
"""Vectors kept of each component: 200 x 384 float16 are 150 kB."""
SCORED_COUNT = 100
CONTEXTS_EACH = 5
TEXT_CHARS = 2_000
MIN_COUNT = 20
"""Fewer texts than this are no reference."""

Vector = Sequence[float]


@dataclass(frozen=True, slots=True)
class Words:
    """What was said in one exchange. wall_s: Unix seconds."""

    wall_s: float
    question: str
    answer: str
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """Something that turns texts into unit vectors, and the texts it can read."""

    fingerprint: str
    embed: Callable[[Sequence[str]], Sequence[Vector]]
    covers: Callable[[str], bool] = lambda text: bool(text.strip())


HASHED = Reader(HASHED_FINGERPRINT, lambda texts: [drift.hashed_vector(text) for text in texts])


def words_of(rows: Sequence[tuple[float, dict[str, Any]]]) -> list[Words]:
    """Words out of the text objects of log lines; what is no text is left out."""
    found = []
    for wall_s, text in rows:
        question, answer, contexts = (text.get(name) for name in ("question", "answer", "contexts"))
        if isinstance(question, str) and isinstance(answer, str):
            kept = contexts if isinstance(contexts, list) else []
            passages = tuple(c[:TEXT_CHARS] for c in kept[:CONTEXTS_EACH] if isinstance(c, str))
            found.append(Words(wall_s, question[:TEXT_CHARS], answer[:TEXT_CHARS], passages))
    return found


def make_references(words: Sequence[Words], embedder: str) -> tuple[tuple[DriftReference, ...], str]:
    """References of hashed terms and of `embedder`, and why some are missing. Embeds; takes seconds with a model."""
    if len(words) < MIN_COUNT:
        return (), f"{len(words)} exchanges with text, {MIN_COUNT} needed (exchange_log.text in guard.yaml)"
    references = [*references_of(words, HASHED)]
    reader, problem = _model(embedder)
    if reader is not None:
        found = references_of(words, reader)
        if not found:
            problem = f"embedder {embedder} covers too few of the texts; hashed terms stand in"
        references += found
    return tuple(references), problem


def references_of(words: Sequence[Words], reader: Reader) -> list[DriftReference]:
    """References of questions and of answers, those with enough texts that the reader covers."""
    found = []
    for component in ("query", "answer"):
        said = [(w, w.question if component == "query" else w.answer) for w in words]
        covered = [(w, text) for w, text in said if reader.covers(text)]
        vectors = [[float(x) for x in v] for v in reader.embed([text for _, text in covered])] if covered else []
        kept = [(w, text, v) for (w, text), v in zip(covered, vectors, strict=True) if any(v)]
        if len(kept) < MIN_COUNT:
            continue
        spread = [_languages([text for _, text, _ in kept])]
        if component == "query":
            spread += _retrieval_scores([(w, v) for w, _, v in kept if w.contexts][:SCORED_COUNT], reader)
        found.append(_reference(component, reader, [(w.wall_s, v) for w, _, v in kept], tuple(spread)))
    return found


def _reference(
    component: str, reader: Reader, rows: list[tuple[float, list[float]]], spread: tuple[Distribution, ...]
) -> DriftReference:
    vectors = [vector for _, vector in rows]
    mean = _mean(vectors)
    variance = [math.fsum((v[i] - m) ** 2 for v in vectors) / len(vectors) for i, m in enumerate(mean)]
    by_day: dict[int, list[list[float]]] = defaultdict(list)
    for wall_s, vector in rows:
        by_day[int(wall_s // DAY_S)].append(vector)
    centroids = [_mean(day) for _, day in sorted(by_day.items()) if len(day) >= MIN_COUNT // 2]
    distances = [1.0 - _cosine(a, b) for a, b in pairwise(centroids)]
    step = max(1, len(vectors) // SAMPLE_COUNT)
    sample = [vector for _, vector in sorted(rows, key=lambda row: row[0])][::step][:SAMPLE_COUNT]
    return DriftReference(
        component=component,
        fingerprint=reader.fingerprint,
        dim=len(mean),
        norm=round(math.fsum(math.hypot(*v) for v in vectors) / len(vectors), 4),
        probes=probe_cosines(reader),
        count=len(vectors),
        mean=tuple(round(x, 6) for x in mean),
        variance=tuple(round(x, 8) for x in variance),
        day_spread=round(math.fsum(distances) / len(distances), 6) if distances else None,
        sample_count=len(sample),
        sample=pack(sample),
        distributions=spread,
    )


def probe_cosines(reader: Reader) -> tuple[float, ...]:
    """Cosines of the fixed texts to each other, rounded: kernels differ in the seventh decimal."""
    vectors = [[float(x) for x in v] for v in reader.embed(drift.PROBES)]
    return tuple(round(_cosine(vectors[i], vectors[j]), 3) for i in range(len(vectors)) for j in range(i))


def pack(vectors: Sequence[Vector]) -> str:
    """Base64 of little-endian float16, row by row."""
    return b64encode(b"".join(struct.pack(f"<{len(v)}e", *v) for v in vectors)).decode()


def unpack(reference: DriftReference) -> list[tuple[float, ...]]:
    """The sample of a reference, shape (sample_count, dim), exact to three digits.

    >>> unpack(DriftReference("query", "f", 2, 1.0, (), 1, (0.5, 0.5), (0.0, 0.0), None, 1, pack([[0.5, -0.25]])))
    [(0.5, -0.25)]
    """
    row = struct.Struct(f"<{reference.dim}e")
    return list(row.iter_unpack(b64decode(reference.sample)))


def _model(embedder: str) -> tuple[Reader | None, str]:
    """The embedder as a reader, or why it is none."""
    if embedder in ("", "none"):
        return None, "no embedder named (checks.embedder in guard.yaml): hashed terms only"
    from rag.embedding import embedder_status, load_embedder

    ok, line = embedder_status(embedder)
    if not ok:
        return None, f"{line}: hashed terms only"
    try:
        model = load_embedder(embedder)
    except Exception as error:  # whatever a model library raises, the baseline is made all the same
        return None, f"embedder not usable ({' '.join(str(error).split())[:200]}): hashed terms only"
    if model is None:
        return None, f"{line}: hashed terms only"

    def embed(texts: Sequence[str]) -> Sequence[Vector]:
        vectors: Sequence[Vector] = model.embed(texts).tolist()
        return vectors

    return Reader(model.fingerprint, embed, model.covers), ""


def _languages(texts: Sequence[str]) -> Distribution:
    counts = Counter("cjk" if cjk_ratio(text) > 0.5 else "latin" if text.isascii() else "other" for text in texts)
    return Distribution(
        "language", len(texts), shares=tuple((name, round(n / len(texts), 4)) for name, n in sorted(counts.items()))
    )


def _retrieval_scores(rows: list[tuple[Words, list[float]]], reader: Reader) -> list[Distribution]:
    """Cosine of each question with its best passage."""
    scores = []
    for words, vector in rows:
        passages = [c for c in words.contexts if reader.covers(c)]
        if passages:
            scores.append(max(_cosine(vector, [float(x) for x in v]) for v in reader.embed(passages)))
    if len(scores) < MIN_COUNT:
        return []
    scores.sort()
    values = tuple((name, round(quantile(scores, q), 4)) for name, q in QUANTILES.items())
    return [Distribution("retrieval_score", len(scores), quantiles=values)]


def _mean(vectors: Sequence[Vector]) -> list[float]:
    return [math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def _cosine(a: Vector, b: Vector) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
