"""Personal data per type against a labelled set, and what our own texts without any lead to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.safety.sets import rows_of
from guard.checks.pii import find_pii

KIND_OF = {
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "US_SSN": "national_id",
    "IP_ADDRESS": "ip",
}


def measure(data: Path) -> dict[str, tuple[float, float, int, int]]:
    """kind -> (precision, recall, labelled, false). A find counts when it overlaps a labelled span of its kind."""
    right: Counter[str] = Counter()
    false: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for row in rows_of(data / "safety" / "presidio_pii_dev.jsonl"):
        labelled = [(KIND_OF[s["type"]], s["start"], s["end"]) for s in row["spans"] if s["type"] in KIND_OF]
        found = [(m.kind, m.start, m.end) for m in find_pii(row["text"])]
        for kind, start, end in labelled:
            hit = any(k == kind and a < end and b > start for k, a, b in found)
            (right if hit else missed)[kind] += 1
        for kind, start, end in found:
            if not any(k == kind and start < b and end > a for k, a, b in labelled):
                false[kind] += 1
    return {
        kind: (
            right[kind] / max(1, right[kind] + false[kind]), right[kind] / max(1, right[kind] + missed[kind]),
            right[kind] + missed[kind], false[kind],
        )
        for kind in sorted({*right, *false, *missed})
    }  # fmt: skip


def false_finds(data: Path) -> tuple[int, Counter[str]]:
    """(texts, finds by kind) in encyclopedia passages, which hold no personal data of a user."""
    texts = [r["text"] for r in rows_of(data / "retrieval" / "squad2_passages.jsonl")]
    texts += [r["text"] for r in rows_of(data / "retrieval" / "drcd_zhtw_passages.jsonl")]
    return len(texts), Counter(m.kind for text in texts for m in find_pii(text))
