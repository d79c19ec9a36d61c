"""What the rows of a knowledge base look like: schema, defects, duplicates, lengths, language, where they lie. Pure.

    profiler = Profiler()
    for row in rows:
        profiler.take(place, text, fields)       or  profiler.reject(place, reason)
    profile = profiler.profile()

One pass and bounded memory: lengths are counted, texts are remembered as 8-byte hashes up to `HASH_COUNT`, near
duplicates by sketches (`rag.likeness`), bad rows by their first `EXAMPLES`. Beyond that counts of duplicates are
estimates and `estimated` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from zlib import crc32

from rag.defects import BAD, EMPTY, EXACT, MALFORMED, NEAR, text_defect
from rag.likeness import NearTwins, sketch_of
from rag.text import cjk_ratio, count_tokens, near_hash, search_tokens

HASH_COUNT = 500_000
EXAMPLES = 50
"""Bad rows named, of each kind."""
CENTROID_DIM = 256
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class RowIssue:
    """One row that is of no use, or no more than another one. place: `file:line` or doc_id."""

    place: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of rows that hold text. `sd`: standard deviation of one row."""

    count: int = 0
    mean: float = 0.0
    sd: float = 0.0
    smallest: int = 0
    largest: int = 0
    quantiles: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """One set of rows. Counts are rows; `language_ratio` (cjk, mixed, other) and `centroid` are of rows that hold text.

    kinds: rows by kind of issue (`rag.defects`). fields: rows that have each field filled.
    centroid: mean of the rows' unit vectors of hashed words, for either script; `()` without text.
    estimated: counts of duplicates are scaled up from a sample.
    """

    row_count: int = 0
    kinds: tuple[tuple[str, int], ...] = ()
    lengths: Lengths = Lengths()
    language_ratio: tuple[tuple[str, float], ...] = ()
    fields: tuple[tuple[str, int], ...] = ()
    centroid: tuple[float, ...] = ()
    issues: tuple[RowIssue, ...] = ()
    estimated: bool = False

    def count_of(self, *kinds: str) -> int:
        """Rows with an issue of one of these kinds."""
        return sum(count for kind, count in self.kinds if kind in kinds)

    @property
    def bad_count(self) -> int:
        """Rows that are malformed, empty or damaged."""
        return self.count_of(*BAD)

    @property
    def duplicate_count(self) -> int:
        """Rows whose text was there before in the same set, exactly or nearly."""
        return self.count_of(EXACT, NEAR)


class Profiler:
    """Takes rows one by one."""

    def __init__(self, *, near: bool = True, hash_count: int = HASH_COUNT) -> None:
        self._hash_count, self._scale = hash_count, 1
        self._seen: dict[int, str] = {}
        self._twins = NearTwins() if near else None
        self._row_count = 0
        self._kinds: Counter[str] = Counter()
        self._issues: dict[str, list[RowIssue]] = {}
        self._token_counts: Counter[int] = Counter()
        self._languages: Counter[str] = Counter()
        self._fields: Counter[str] = Counter()
        self._sum = [0.0] * CENTROID_DIM

    def reject(self, place: str, reason: str, kind: str = "") -> None:
        """A row that has no usable text; an empty one is told from a malformed one by the words of the reason."""
        self._row_count += 1
        self._issue(place, kind or (EMPTY if "is empty" in reason else MALFORMED), reason)

    def take(self, place: str, text: str, fields: Iterable[str] = ("text",)) -> None:
        """A row with a text, which may still be empty or damaged. fields: names that are filled in it."""
        self._row_count += 1
        self._fields.update(fields)
        if defect := text_defect(text):
            self._issue(place, *defect)
        if defect and defect[0] == EMPTY:  # it has no length, no language and no place among the others
            return
        twin = self._twin(place, text)
        if twin and not defect:
            self._issue(place, *twin)
        self._token_counts[count_tokens(text)] += 1
        self._languages[_language(text)] += 1
        self._place(text)

    def profile(self) -> Profile:
        """What was seen so far."""
        kinds = Counter(self._kinds)
        if self._scale > 1:
            kinds[EXACT] *= self._scale
        if self._twins is not None and self._twins.scale > 1:
            kinds[NEAR] *= self._twins.scale
        held = sum(self._languages.values())
        issues = [issue for kind in sorted(self._issues) for issue in self._issues[kind]]
        return Profile(
            row_count=self._row_count,
            kinds=tuple(sorted((kind, count) for kind, count in kinds.items() if count)),
            lengths=lengths_of(self._token_counts),
            language_ratio=tuple(sorted((name, count / held) for name, count in self._languages.items())),
            fields=tuple(sorted(self._fields.items())),
            # Six digits: a stored profile is read by people, and a shift of a millionth means nothing.
            centroid=tuple(round(x / held, 6) for x in self._sum) if held else (),
            issues=tuple(issues),
            estimated=self._scale > 1 or (self._twins is not None and self._twins.scale > 1),
        )

    def _twin(self, place: str, text: str) -> tuple[str, str] | None:
        mark = int(near_hash(text)[:15], 16)
        if mark % self._scale == 0:
            if mark in self._seen:
                return EXACT, f"the same text as {self._seen[mark]}"
            self._seen[mark] = place
            if len(self._seen) > self._hash_count:
                self._scale *= 2
                self._seen = {key: value for key, value in self._seen.items() if key % self._scale == 0}
        if self._twins is not None and (sketch := sketch_of(text)) is not None:
            like = self._twins.take(sketch, place)
            if like is not None:
                return NEAR, f"nearly the same text as {like}"
        return None

    def _issue(self, place: str, kind: str, reason: str) -> None:
        self._kinds[kind] += 1
        named = self._issues.setdefault(kind, [])
        if len(named) < EXAMPLES:
            named.append(RowIssue(place, kind, reason))

    def _place(self, text: str) -> None:
        counts = Counter(search_tokens(text))
        squared = 0.0
        steps: list[tuple[int, float]] = []
        for word, count in counts.items():
            mark = crc32(word.encode("utf-8", "surrogatepass")) * 0x2C1B3C6D & 0xFFFFFFFF
            step = sqrt(count) * (1.0 if mark & 1 else -1.0)
            steps.append((mark >> 8, step))
            squared += step * step
        if squared:
            size = sqrt(squared)
            for place, step in steps:
                self._sum[place % CENTROID_DIM] += step / size


def lengths_of(token_counts: Mapping[int, int]) -> Lengths:
    """Lengths from how many rows have how many tokens.

    >>> lengths = lengths_of({100: 1, 300: 1})
    >>> lengths.mean, lengths.sd, lengths.quantiles[2]
    (200.0, 100.0, (0.5, 100))
    """
    held = {length: count for length, count in sorted(token_counts.items()) if count}
    count = sum(held.values())
    if not count:
        return Lengths()
    mean = sum(length * n for length, n in held.items()) / count
    variance = sum((length - mean) ** 2 * n for length, n in held.items()) / count
    return Lengths(
        count, mean, sqrt(variance), min(held), max(held), tuple((q, _quantile(held, q * count)) for q in QUANTILES)
    )


def centroid_shift(before: Profile, after: Profile) -> float | None:
    """One minus the cosine of what two sets of rows are about: 0 the same words, 1 no word in common.

    None when one has no text. Sets of 20 rows that share none are 0.2 to 0.7 apart by chance, of 300 rows 0.07; a
    tenth more rows of any subject moves a set by less than 0.04.

    >>> def about(*texts: str) -> Profile:
    ...     profiler = Profiler()
    ...     for text in texts:
    ...         profiler.take("row", text)
    ...     return profiler.profile()
    >>> centroid_shift(about("annual leave"), about("annual leave")) < 1e-5
    True
    >>> round(centroid_shift(about("annual leave"), about("printer toner")), 2)
    1.0
    """
    sizes = [sqrt(sum(x * x for x in profile.centroid)) for profile in (before, after)]
    if not all(sizes):
        return None
    dot = sum(a * b for a, b in zip(before.centroid, after.centroid, strict=True))
    return max(0.0, 1.0 - dot / (sizes[0] * sizes[1]))


def _quantile(held: Mapping[int, int], wanted: float) -> int:
    passed = 0
    for length, count in held.items():
        passed += count
        if passed >= wanted:
            return length
    return max(held)


def _language(text: str) -> str:
    ratio = cjk_ratio(text)
    return "cjk" if ratio >= 0.6 else "mixed" if ratio >= 0.2 else "other"
