"""What in an answer is a claim: sentences without questions, politeness and refusals. Pure."""

from __future__ import annotations

import re

import rag.text

_REFUSAL_EN = re.compile(
    r"\b(?:i|we)\b(?: \w+){0,2} (?:don't|do not|didn't|did not) (?:know|understand|(?:have|see|"
    r"find) (?:\w+ ){0,3}(?:information|details?|data|answer|context|access|enough|anything))"
    r"|\b(?:can(?:not|'t| not)|could(?:n't| not)|(?:un|not )able to) (?:\w+ ){0,2}(?:find|answer|"
    r"provide|help|tell|determine|say|give|confirm|locate|assist)"
    r"|\b(?:unable|not able|impossible) to (?:answer|provide|find|determine|tell|give|say)\b"
    r"|\b(?:no|not any|insufficient|not enough|lack of) (?:relevant |specific |sufficient |such |"
    r"direct |further )?(?:information|documents?|context|details?|answer|mention|results?)\b"
    r"|\b(?:passages?|contexts?|documents?|texts?|sources?|information|"
    r"knowledge base)\b[^.]{0,60}\b(?:do(?:es)?(?: not|n't)|did(?: not|n't)|is not|isn't|"
    r"not) (?:\w+ ){0,2}?(?:contain|provide|mention|include|specify|state|say|give|address|"
    r"discuss|answer|explicitly|clear|available)"
    r"|\bnot (?:mentioned|specified|stated|provided|available|covered|found|answerable)\b|\bi apologi[sz]e\b"
)
_REFUSAL_HINTS = ("n't ", "not ", "no ", "'t ", "unable ", "impossible ", "insufficient ", "lack of ", "apologi")
"""Every match of the pattern above holds one of these."""

_REFUSAL_ZH = re.compile(
    "抱歉|很遺憾|很遗憾|對不起|对不起|無法(?:回答|提供|找到|確認|判斷|得知)|无法(?:回答|提供|找到|确认|判断|得知)|不知道|不清楚|"
    "(?:沒有|没有|未|查無|找不到|缺乏)[^。]{0,12}(?:資料|資訊|信息|内容|內容|文件|記載|提及|說明|提供|答案|結果)|"
    "(?:資料|文件|內容|内容|知識庫)(?:中|裡|里)?(?:並)?(?:沒有|没有|未|不)(?:包含|提到|提及|提供|說明|记载|記載)"
)
# "Who cannot provide a receipt within 9 days pays": a rule for others, where a refusal speaks of what is not found.
_OTHERS_BEFORE = re.compile(
    r"\b(?:if|when|unless|who|whoever|those|employees?|staff|customers?|users?|members?|visitors?|applicants?|students?|"
    r"patients?)\b[^.;:]{0,40}$|(?:若|如果|如|倘|凡)[^，。；]{0,20}$"
)
_OTHERS_AFTER = re.compile(
    r"\s+(?:is|are|will be|shall be) (?:required|needed|necessary|accepted|issued|kept)\b"
    "|[^，。；]{0,6}(?:者|時|时|的話|的话)"
)
_BINDS = re.compile(
    r"\d|\b(?:must|shall|has to|have to|may not|required|needed|forfeit\w*|charged|refused|denied)\b"
    "|不得|不予|視同|視為|视同|视为|須|须|罰|罚|自行|[一二三四五六七八九十百千兩两]個?(?:日|天|週|周|月|年|小時|小时|元)"
)
_POLITE_EN = re.compile(
    r"^(?:(?:hi|hello|hey|dear|sure|certainly|of course|absolutely|great question|good question|"
    r"thanks?|thank you|you're welcome|i'm sorry|i am sorry|i apologi[sz]e|"
    r"you are welcome|sorry|yes|no|ok|okay|i hope|hope (?:this|that)|let me know|feel free|"
    r"please (?:let|feel|contact|reach|ask|note that i)|"
    r"if you (?:have|need|want|would like) (?:any|further|more|other|additional|anything|help|"
    r"to know)|is there anything|here (?:is|are) (?:the|some|a|your|what)\b[^:.]{0,60}[:.]$|"
    r"happy to help|glad to help|i(?:'m| am) (?:happy|glad|here)|have a (?:nice|great|good)|"
    r"best regards|kind regards|in summary:?$|"
    r"as an ai|i can help|based on the (?:provided |given |above )?(?:passages?|contexts?|"
    r"information|documents?)[^.]{0,40}:$|the answer is:?$)(?![\w'-]))"
)
_OFFER = re.compile(
    r"\b(?:let me know|feel free|please|ask|contact|reach|help|assist\w*|questions?|information|details|visit|check|"
    r"tell me|here)\b"
)
_POLITE_ZH = re.compile(
    "^(?:您好|你好|哈囉|嗨|謝謝|谢谢|感謝|感谢|不客氣|不客气|好的|當然|当然|沒問題|没问题|希望(?:以上|這|这|能|對|对)|"
    "如(?:果)?(?:您|你|有|需)[^。]{0,24}(?:請|请|歡迎|欢迎|告訴|告诉|聯絡我|联系我|問題|问题)|歡迎(?:隨時|再)|欢迎(?:随时|再)|祝(?:您|你)|"
    "很高興|很高兴|以下(?:是|為|为)|請問|请问|還有(?:什麼|其他)|請隨時|请随时|以上(?:資訊|内容|內容)|根據(?:以上|下列)[^。]{0,8}$)"
)
_QUESTION = re.compile("[?\uff1f][\"'\u201d\u2019\u300d)\uff09\\s]*$")
_CLAUSE = re.compile(
    r"[;\uff1b]\s*|[,\uff0c]\s+(?=\w)(?!(?:1[5-9]|20)\d\d\b)|(?<!\d)\uff0c|\uff0c(?!\d{3}(?!\d))|(?<=[\u4e00-\u9fff]),|\u3001(?=.{4})"
    r"|\s+(?:and|but|while|whereas|whilst|although|though|however)\s+"
)
_ATTRIBUTION = re.compile(
    r"^\W*(?:according to|as (?:stated|described|mentioned|set out) in|in accordance with|based on|as per|per)"
    r"(?: \w+){0,2} (?:polic(?:y|ies)|rules?|handbook|guidelines?|documents?|documentation|passages?|contexts?|"
    r"articles?|information|knowledge base)(?: (?:provided|given|above))?(?: \d+)?\s*[,:]\s*"
    r"|^\W*(?:根據|依據|依照|按照|根据|依据)[^,，:：。\d]{0,10}"
    r"(?:規定|規章|政策|辦法|資料|文件|內容|规定|资料|内容)[,，:：]\s*",
    re.IGNORECASE,
)
"""Who is quoted is no fact that the contexts would repeat; fine-tuned models begin nearly every answer with it."""

_LETTER = re.compile(r"[^\W_]")


def split_claims(answer: str) -> tuple[list[str], int]:
    """Return the claims of an answer, and how many other sentences were refusals.

    Questions, politeness, headings and refusals assert nothing that contexts could support. List items are claims.

    >>> split_claims("Hello! The fee is 5 EUR. Anything else? I do not know the rest.")
    (['The fee is 5 EUR.'], 1)
    """
    claims: list[str] = []
    refusals = 0
    for line in answer.splitlines():
        for sentence in rag.text.sentences(rag.text.normalise_space(line)):
            sentence = without_attribution(sentence)
            kind = kind_of(sentence)
            if kind == "claim":
                claims.append(sentence)
            elif kind == "refusal":
                refusals += 1
    return claims, refusals


def without_attribution(sentence: str) -> str:
    """The sentence without "According to the company rules," before it, when something is left.

    >>> without_attribution("According to company policy: The fee is 5 EUR.")
    'The fee is 5 EUR.'
    """
    match = _ATTRIBUTION.match(sentence)
    if match is None:
        return sentence
    rest = sentence[match.end() :]
    return rest if _LETTER.search(rest) else sentence


def kind_of(sentence: str) -> str:
    """ "claim", "refusal" or "other" (question, greeting, heading, nothing in words)."""
    lower = sentence.strip(" \t*#>-_\u3000").lower().replace("\u2019", "'")
    if not _LETTER.search(lower) or _QUESTION.search(lower):
        return "other"
    may_refuse = any([hint in lower for hint in _REFUSAL_HINTS])  # noqa: C419 - a list is quicker than a generator
    refusal = _REFUSAL_EN.search(lower) if may_refuse else None
    if refusal is None and not lower.isascii():
        refusal = _REFUSAL_ZH.search(lower)
    if refusal is not None:
        return "claim" if _rules_others(lower, refusal) else "refusal"
    polite = _POLITE_EN.match(lower) or (not lower.isascii() and _POLITE_ZH.match(lower))
    if polite and not _rest_asserts(lower, polite.end()):
        return "other"
    if lower.endswith((":", "\uff1a")) and not any(c.isdigit() for c in lower):
        return "other"  # what follows is the claim
    return "claim"


def _rules_others(lower: str, refusal: re.Match[str]) -> bool:
    """Whether what looks like a refusal says what becomes of others who do not find or provide something."""
    about_others = _OTHERS_BEFORE.search(lower, 0, refusal.start()) or _OTHERS_AFTER.match(lower, refusal.end())
    return about_others is not None and _BINDS.search(lower) is not None


def _rest_asserts(lower: str, end: int) -> bool:
    """ "Yes, the fee is 5 EUR" begins politely and claims all the same."""
    begins = lower[:end]
    if begins in (
        "yes",
        "no",
        "ok",
        "okay",
        "sure",
        "certainly",
        "absolutely",
        "of course",
        "sorry",
        "好的",
        "當然",
        "当然",
        "沒問題",
    ):
        rest = lower[end:].strip(" ,.!\uff0c\u3002\uff01")
        return len(rest) > (12 if rest.isascii() else 5)
    if begins.startswith("if you") and _OFFER.search(lower) is None:
        return True  # "If you need more than a week, the director has to approve"
    return any(c.isdigit() for c in lower[end:])


def clauses(sentence: str) -> list[str]:
    """Parts of a sentence in which facts belong together; the whole sentence when it has one part only."""
    parts = [p for p in _CLAUSE.split(sentence) if p and _LETTER.search(p)]
    return parts if len(parts) > 1 else [sentence]
