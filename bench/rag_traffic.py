"""Made-up exchanges of the size of real ones: answers of 250 tokens, 3 contexts of 300, English and Chinese, by seed.

Contexts are documents of sentences with numbers, dates, names and links; an answer repeats most of what it was given in
other words, gets a number wrong now and then and invents a sentence now and then. Lengths are in MiniLM's word pieces
where English (1 word is about 1.3) and in characters where Chinese (one each).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

ANSWER_TOKENS, CONTEXT_TOKENS, CONTEXT_COUNT = 250, 300, 3
PIECES_PER_WORD = 1.3
ZH_RATIO = 0.2

_EN_WHAT = ("travel claim", "laptop", "parking permit", "annual leave", "visitor badge", "expense report", "shift swap",
            "training course", "medical certificate", "remote desktop", "meeting room", "company card", "health check",
            "overtime request", "locker key", "supplier contract", "warranty repair", "data export", "backup tape",
            "office chair")  # fmt: skip
_EN_WHO = ("the service desk", "your line manager", "Human Resources", "the finance office in Lakegate",
           "the safety officer", "Ms. Harrow", "the site team in Porto", "the archive",
           "Mr. Okafor", "the works council")  # fmt: skip
_EN_SENTENCES = (
    "A {what} is approved by {who} within {n} working days.",
    "The limit for a {what} is {n}0 EUR per person and month.",
    "Requests for a {what} go through https://intranet.example/{what_id}/form-{n}.",
    "If the {what} is not returned by {n} {month}, {who} is informed and the account is locked.",
    "Since {month} 20{n2}, every {what} must carry the number {code} on its first page.",
    "Employees may not pass a {what} on to other people without written consent of {who}.",
    "Up to {n} people can share one {what}, provided that each of them has signed the list.",
    "For questions about a {what}, call extension {ext} between {n}:00 and 17:30.",
)
_EN_INVENTED = ("The cafeteria on level {n} offers a discount to everybody who owns a bicycle.",
                "A quarterly newsletter describes how {n} colleagues learned to sail last summer.")  # fmt: skip
_MONTHS = ("January", "March", "April", "June", "July", "September", "October", "December")
_ZH_WHAT = ("差旅申請", "筆記型電腦", "停車證", "特休假", "訪客識別證", "費用報告", "換班", "教育訓練", "診斷證明",
            "會議室",
            "公司信用卡", "健康檢查", "加班申請", "置物櫃鑰匙", "供應商合約", "保固維修")  # fmt: skip
_ZH_WHO = ("服務台", "直屬主管", "人力資源處", "財務室", "勞安人員", "陳經理", "台中辦公室", "檔案室", "林小姐")
_ZH_SENTENCES = (
    "{what}由{who}於{n}個工作天內核准\u3002",
    "{what}的上限為每人每月{n}千元\u3002",
    "{what}請至 https://intranet.example/form-{code} 申請\u3002",
    "{what}若未於{m}月{n}日前歸還\uff0c{who}將停用該帳號\u3002",
    "未經{who}書面同意\uff0c不得將{what}轉讓他人\u3002",
    "{what}最多可由{n}人共用\uff0c每人皆須在名冊上簽名\u3002",
    "有關{what}的問題\uff0c請於上午{n}點至下午五點半撥打分機{ext}\u3002",
)
_ZH_INVENTED = ("騎自行車上班的同仁可在{n}樓餐廳享有折扣\u3002", "季刊介紹{n}位同事去年夏天學習帆船的經過\u3002")


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange as the guard captures it on a route with the json adapter."""

    request: bytes
    response: bytes


def turns(count: int, seed: int, *, document_count: int = 0) -> Iterator[Turn]:
    """Exchanges. document_count: 0 for contexts that are never seen twice; else contexts are drawn from so many
    documents, the k-th most asked about 1/k as often as the first, as retrieval has it."""
    chance = random.Random(seed)
    library = {
        zh: [_document(chance, zh) for _ in range(document_count * (1 if zh else 4) // 5)] for zh in (False, True)
    }
    weights = {zh: [1.0 / (k + 1) for k in range(len(rows))] for zh, rows in library.items()}
    for _ in range(count):
        zh = chance.random() < ZH_RATIO
        if document_count:
            documents = chance.choices(library[zh], weights[zh], k=CONTEXT_COUNT)
        else:
            documents = [_document(chance, zh) for _ in range(CONTEXT_COUNT)]
        answer = _answer(chance, zh, documents)
        question = "怎麼辦理\uff1f" if zh else "How do I get one, and what does it cost?"
        yield Turn(
            json.dumps({"question": question}, ensure_ascii=False).encode(),
            json.dumps(
                {"answer": answer, "contexts": [_joined(d, zh) for d in documents]}, ensure_ascii=False
            ).encode(),
        )


def token_count(text: str, zh: bool) -> float:
    """About how many word pieces."""
    return float(len(text)) if zh else len(text.split()) * PIECES_PER_WORD


def _document(chance: random.Random, zh: bool) -> list[str]:
    rows: list[str] = []
    size = 0.0
    while size < CONTEXT_TOKENS:
        rows.append(_sentence(chance, zh, _ZH_SENTENCES if zh else _EN_SENTENCES))
        size += token_count(rows[-1], zh)
    return rows


def _answer(chance: random.Random, zh: bool, documents: list[list[str]]) -> str:
    given = [sentence for document in documents for sentence in document]
    rows: list[str] = []
    size = 0.0
    while size < ANSWER_TOKENS:
        drawn = chance.random()
        if drawn < 0.05:
            rows.append(_sentence(chance, zh, _ZH_INVENTED if zh else _EN_INVENTED))
        else:
            sentence = chance.choice(given)
            if drawn < 0.15:
                sentence = "".join(str(chance.randint(1, 9)) if c.isdigit() else c for c in sentence)
            elif not zh and drawn < 0.6:  # other words around the same facts
                words = sentence.rstrip(".").split()
                cut = chance.randrange(2, len(words) - 1)
                sentence = f"Please note that {' '.join(words[:cut]).lower()} {' '.join(words[cut:])}."
            rows.append(sentence)
        size += token_count(rows[-1], zh)
    return _joined(rows, zh)


def _joined(rows: list[str], zh: bool) -> str:
    return ("" if zh else " ").join(rows)


def _sentence(chance: random.Random, zh: bool, forms: tuple[str, ...]) -> str:
    what = chance.choice(_ZH_WHAT if zh else _EN_WHAT)
    return chance.choice(forms).format(
        what=what, what_id=what.replace(" ", "-"), who=chance.choice(_ZH_WHO if zh else _EN_WHO),
        n=chance.randint(2, 28), n2=chance.randint(18, 25), m=chance.randint(1, 12), month=chance.choice(_MONTHS),
        code=f"{chance.choice('ABCDKQ')}-{chance.randint(1000, 9999)}", ext=chance.randint(1000, 9999),
    )  # fmt: skip
