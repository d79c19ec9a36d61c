"""Pairs of words that mean the opposite of each other. Pure data.

English sides are words and phrases, parted by commas; Chinese sides are regular expressions, because there the
neighbouring characters decide. Within a pair the second side is looked for first and taken out, so that "must not" is
no "must".
"""

from __future__ import annotations

_ENGLISH = """
must, require, required, requires, mandatory, obligatory, compulsory, need to, needs to, has to, have to
<> optional, optionally, voluntary, voluntarily, need not

allow, allows, allowed, permit, permits, permitted, may
<> forbid, forbids, forbidden, prohibit, prohibits, prohibited, banned, bans, disallowed, must not, may not

before, prior to, earlier than
<> after, following, later than

at least, minimum, no less than, not less than, over, above, more than
<> at most, maximum, no more than, not more than, up to, under, below, less than, fewer than

include, includes, included, including
<> exclude, excludes, excluded, excluding

enable, enables, enabled
<> disable, disables, disabled

increase, increases, increased, increasing, rise, rises, rising, rose, higher, raise, raises, raised
<> decrease, decreases, decreased, decreasing, reduce, reduces, reduced, lower, lowers, lowered, fall, falls, fell

always
<> never

paid
<> unpaid

internal, internally
<> external, externally

first, earliest
<> last, latest

approve, approves, approved, approval
<> reject, rejects, rejected, rejection, deny, denies, denied

accept, accepts, accepted
<> refuse, refuses, refused, decline, declines, declined

weekday, weekdays
<> weekend, weekends

domestic
<> international, overseas, abroad

full-time, full time
<> part-time, part time

permanent, permanently
<> temporary, temporarily

free of charge, free
<> charged, for a fee

morning, mornings
<> afternoon, afternoons, evening, evenings
"""

_CHINESE = """
以上|超過|超过|至少|最少|不少於|不得少於|高於|高于|大於
<> 以下|以內|以内|至多|最多|不超過|不得超過|低於|低于|小於|未滿|不滿

之前|以前|[日天時月年內]前|事前|提前|前提出|事先|於[^,。]{1,6}前|(?:出發|離職|到職|會議|開始)前
<> 之後|以後|之后|以后|[日天時月年]後|事後|事后|於[^,。]{1,6}後|(?:出發|離職|到職|會議|開始)後

(?<!不)(?:可以|可(?![不能靠])|得以|允許|允许|准許|開放)
<> 不可|不得|禁止|不能|不允許|不允许|不准|不開放

(?<!不)(?:必須|必须|須|应|應(?![該用變])|需要|強制)
<> 不必|無須|无须|無需|无需|不需|不須|免|自願|選擇性

(?<![不未])(?:包含|包括)|(?<!不)含(?!有)
<> 不含|不包含|不包括|排除|除外

有薪|支薪|帶薪|全薪
<> 無薪|不支薪|半薪

上午|早上
<> 下午|晚上

平日|工作日|上班日
<> 假日|週末|例假日

國內|境內
<> 國外|境外|海外

增加|提高|上升|調升|成長
<> 減少|降低|下降|調降|衰退

啟用|開啟|打開
<> 停用|關閉|禁用

免費
<> 收費|付費|自費

正職|全職
<> 兼職|約聘

內部
<> 外部

同意|核准|批准
<> 反對|駁回|拒絕

永久
<> 暫時|臨時

年滿|已滿
<> 未滿
"""


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    halves = (pair.split("<>") for pair in text.strip().split("\n\n"))
    return tuple((one.strip(), other.strip()) for one, other in halves)


CHINESE = _pairs(_CHINESE)
ENGLISH = tuple((tuple(one.split(", ")), tuple(other.split(", "))) for one, other in _pairs(_ENGLISH))
