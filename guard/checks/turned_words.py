"""Closed sets of words of which a thing has one: season, side, colour, rank. Pure data.

English members are words, their forms parted by |; Chinese ones are regular expressions, because there the neighbours
decide.
"""

from __future__ import annotations

_SETS_TEXT = """
spring, summer, autumn, winter
north|northern, south|southern, east|eastern, west|western
red, green, blue, yellow, black, white
top, bottom
upstairs, downstairs
moist|damp|wet|moisture, dry
sunny, shady|shade
edible, poisonous|toxic
begin|begins|began|start|starts|open|opens, end|ends|ended|stop|stops|close|closes
automatically, voluntarily
manager|managers, director|directors, supervisor|supervisors
keep|keeps|kept, delete|deletes|deleted, remove|removes|removed
add|adds|added, drop|drops|dropped
bought|buy|buys, sold|sell|sells
husband, wife
father, mother
brother, sister
son, daughter
春, 夏, 秋, 冬
東(?=[側部邊面方線岸區]), 南(?=[側部邊面方線岸區]), 西(?=[側部邊面方線岸區]), 北(?=[側部邊面方線岸區])
紅(?=[燈色線牌字]), 綠(?=[燈色線牌字]), 藍(?=[燈色線牌字]), 黃(?=[燈色線牌字]), 黑(?=[燈色線牌字]), 白(?=[燈色線牌字])
底部|底面|下方, 頂部|上方, 背面|後面, 正面|前面
潮濕, 乾燥
有毒, 無毒
自動, 自願
總經理|執行長, (?<!總)經理, 總監, 處長, 課長, 科長, 組長
銀行, 信託
保留, 清除|刪除|移除
新增|加入支援, 停止支援|取消支援|移除支援
"""

SETS = tuple(tuple(m.strip() for m in line.split(", ")) for line in _SETS_TEXT.strip().splitlines())

CLASSES = (
    "[\u4e00-\u9fff][^的底頂全內外東西南北中局上下前後面\\W](?=部(?![分門長位件份落])|處(?![理長])|科(?![長學技]))",
)
"""Chinese names of a class, told by the character behind them: the offices of a company."""

LIGHT_ZH = (
    "的了和與及或是在有也都就而之其這那個為以於被將會可能讓使到從對並且但要得須應該請於由自至即不未無沒非勿禁止准許允"
    "一二兩三四五六七八九十百千萬零日月年時分秒天週次位名人元"
)
"""Characters that say nothing of what a clause is about; numbers are compared elsewhere."""
