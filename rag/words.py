"""Word lists of `rag.text`: what ends no sentence, and what every question has in common. Data only."""

from __future__ import annotations

_ABBREVIATIONS = """
e.g i.e etc mr mrs ms dr prof vs approx dept inc ltd co corp st jr sr al cf min max resp a.m p.m
u.s u.k u.n jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun
"""
_MAY_END = "etc inc ltd co corp a.m p.m u.s u.k u.n min max"
_STOP_WORDS = """
a an and are as at be been being by can could did do does doing for from had has have how i if in into is it its
me my of on or our ours please shall should so than that the their them then there these they this those to us
was we were what when where which who whom whose why will with would you your yours am about any also just
tell know want need get let may might must not no yes hi hello dear thanks thank
"""
_STOP_BIGRAMS = """
什麼 甚麼 怎麼 如何 請問 可以 是否 能否 我們 你們 您好 你好 謝謝 哪裡 哪些 哪個 多少 幾個 嗎我 我想 想問 想要
想知 知道 告訴 訴我 麼樣 麼辦 為什 為何 有沒 沒有 這個 那個 一下 應該 需要 必須 要怎 該怎 是什 有什 有哪 呢請
幫我 麼時 時候 是多 以嗎 我可 我要 問一 我該
"""

ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
"""English abbreviations without their last period, lower case."""

MAY_END = frozenset(_MAY_END.split())
"""After these a capital letter does begin a sentence more often than not ("... by 5 p.m. The form ...")."""

BEFORE_NUMBERS = frozenset({"no", "nos", "fig", "ext", "tel", "art", "para", "p", "pp"})
"""These are abbreviations only where a number follows."""

STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words that say nothing about the subject of a question."""

STOP_BIGRAMS = frozenset(_STOP_BIGRAMS.split())
"""Bigrams of question words, politeness and function characters: they match every Chinese text alike."""

FUNCTION_CHARACTERS = frozenset(
    "的是了在不有和與及或為於以之其也而等這那此個中上下一二三人到由從被將把對就都會可能還又很最什麼甚何哪誰幾多少嗎呢吧請問"
    "如因所但則並且來去後前時年月日大小我們你他她它您要用讓使得著過給向當者性該並各每某些位名次"
    "与为于这个从将对会还么谁几多吗请问来后时们让过给当该并"
)
"""Chinese characters, traditional and simplified, that hold sentences together: frequent whatever a text is about."""
