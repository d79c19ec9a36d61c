"""What a document is about, and its parts, in the words of the document itself. Pure."""

from __future__ import annotations

import re

from rag.text import has_cjk, normalise_space, sentences
from rag.types import Document

TOPIC_CHARS = 60

_ZH_END = re.compile(
    r"\u9808|\u61c9|\u9700|\u4e0d\u5f97|\u7981\u6b62|\u81f3\u5c11|\u81f3\u591a|\u4e0a\u9650|\u4f9d|\u65bc|\u70ba|\u6bcf|\u8d85\u904e|\u6eff|\u903e|\u9650"
    r"|\u7531|\u63d0\u4f9b|\u53ef|\u672a|\u5982|\u82e5"
)
_ZH_CLAUSE = re.compile(r"[\uff0c\uff1b\u3002\uff01\uff1f\uff1a\u3001]")
_ZH_GENERIC = frozenset(
    {"\u516c\u53f8", "\u672c\u516c\u53f8", "\u54e1\u5de5", "\u540c\u4ec1", "\u6211\u5011", "\u4e3b\u7ba1"}
)
_EN_MODAL = re.compile(
    r"\b(?:must|should|shall|may|can|cannot|will|need(?:s)? to|ha(?:s|ve) to|is|are|receives?|gets?|ends?|costs?)\b",
    re.IGNORECASE,
)
_EN_GENERIC = re.compile(
    r"^(?:the |all |every |each )?(?:staff|employees?|colleagues?|users?|we|you|company)$", re.IGNORECASE
)
_EN_CLAUSE = re.compile(
    r"^(?:if|when|after|before|in|on|at|for|with|during|as|each|there|it|this|these)\b", re.IGNORECASE
)
_EN_STOP = re.compile(
    r"\b(?:for|at|by|within|until|before|after|from|to the|in the|on|with|,|;)\b|[,;.]", re.IGNORECASE
)
_NUMBER = (
    r"\d|[\u4e00\u4e8c\u5169\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341\u767e\u5343\u534a]+\s?"
    r"(?:\u500b)?(?:\u5929|\u65e5|\u6708|\u5e74|\u5c0f\u6642|\u5206\u9418|\u5143|\u6b21|\u500b|\u9031|\u6b72|\u500d|\u9ede)"
)
_LIMIT = re.compile(
    rf"{_NUMBER}|\u4e0d\u5f97|\u7981\u6b62|\u4e0a\u9650|\u4e0b\u9650|\b(?:must not|may not|cannot|not allowed|at most|"
    r"no more than|at least|only|never)\b",
    re.IGNORECASE,
)


def topic_of(document: Document) -> str:
    """The title, else the subject of the first clause; "" when nothing sensible is found.

    >>> topic_of(Document("a", "The VPN client must be version 6.2 or later.", ""))
    'the VPN client'
    """
    if document.title.strip():
        return normalise_space(document.title)[:TOPIC_CHARS]
    found = sentences(document.text)
    first = normalise_space(found[0]) if found else ""
    topic = _chinese(first) if has_cjk(first) else _english(first)
    return topic if 2 <= len(topic) <= TOPIC_CHARS else ""


def states_limits(text: str) -> bool:
    """Whether the text states an amount, a deadline or a prohibition."""
    return _LIMIT.search(text) is not None


def first_and_rest(text: str) -> tuple[str, str]:
    """The first statement and the others; by sentences, of a single sentence by its clauses."""
    found = [normalise_space(sentence) for sentence in sentences(text)]
    if not found:
        return "", ""
    joiner = "" if has_cjk(text) else " "
    if len(found) > 1:
        return found[0], joiner.join(found[1:])
    marks = ("\uff1b", "\uff0c") if has_cjk(text) else ("; ", ", ")
    for mark in marks:
        head, cut, tail = found[0].partition(mark)
        if cut and tail.strip():
            return head.strip(), tail.strip()
    return found[0], ""


def _chinese(sentence: str) -> str:
    clause = _ZH_CLAUSE.split(sentence, maxsplit=1)[0].strip(" \u300c\u300d\u300e\u300f\uff08\uff09()")
    end = _ZH_END.search(clause)
    subject = (clause[: end.start()] if end else clause).strip().removesuffix("\u6642")
    if subject in _ZH_GENERIC or len(subject) < 2:
        # "The company provides everybody with an allowance for courses": the allowance is what it is about.
        last = clause.rpartition("\u7684")[2].strip()
        return last if last != clause else ""
    return subject


def _english(sentence: str) -> str:
    modal = _EN_MODAL.search(sentence)
    if modal is None:
        return ""
    subject = sentence[: modal.start()].strip(" ,")
    if _EN_CLAUSE.match(subject):
        return ""
    if subject and not _EN_GENERIC.match(subject) and len(subject.split()) <= 8 and "," not in subject:
        first, _, rest = subject.partition(" ")
        return subject if first.isupper() or not first[:1].isupper() else f"{first.lower()} {rest}".strip()
    if modal.group().lower() not in ("must", "should", "shall", "can", "need to", "have to"):
        return ""
    action = sentence[modal.end() :].strip()
    stop = _EN_STOP.search(action)
    words = (action[: stop.start()] if stop else action).split()[:4]
    return f"how to {' '.join(words)}" if words and not words[0].startswith("not") else ""
