"""Units that can be told apart, with factors to one base per dimension; weekday and month names. Pure data."""

from __future__ import annotations

from guard.simplified import folded

_ROWS: tuple[tuple[str, float, str], ...] = (
    ("time", 0.001, "ms millisecond milliseconds msec 毫秒"),
    ("time", 1, "s sec secs second seconds 秒 秒鐘 秒钟"),
    ("time", 60, "min mins minute minutes 分鐘 分钟"),
    ("time", 3600, "h hr hrs hour hours 小時 小时 個小時 个小时 鐘頭 個鐘頭"),
    ("time", 86_400, "day days 天 日"),
    ("time", 604_800, "week weeks 週 周 星期 禮拜 個星期 个星期 個禮拜"),
    ("workday", 1, "workday workdays 工作天 工作日 個工作天 個工作日 个工作日"),
    ("month", 1, "month months 個月 个月"),
    ("month", 3, "quarter quarters"),
    ("month", 12, "year years yr yrs 年 年間 周年 週年"),
    ("percent", 1, "% percent percentage 趴"),
    ("percent", 10, "成"),
    ("point", 1, "pp 百分點 個百分點"),
    ("cent", 0.01, "cent cents"),
    ("usd", 1, "usd us$ $ dollar dollars 美元 美金"),
    ("twd", 1, "twd ntd nt$ nt 新台幣 新臺幣 台幣"),
    ("yuan", 1, "元 塊"),
    ("cny", 1, "cny rmb 人民币 人民幣"),
    ("eur", 1, "eur euro euros € 歐元 欧元"),
    ("gbp", 1, "gbp £ 英鎊 英镑"),
    ("jpy", 1, "jpy yen ¥ 日圓 日元 円"),
    ("byte", 1, "byte bytes"),
    ("byte", 1e3, "kb kib"),
    ("byte", 1e6, "mb mib"),
    ("byte", 1e9, "gb gib"),
    ("byte", 1e12, "tb tib"),
    ("bps", 1e3, "kbps"),
    ("bps", 1e6, "mbps"),
    ("bps", 1e9, "gbps"),
    ("metre", 0.001, "mm 毫米 公釐"),
    ("metre", 0.01, "cm 公分 厘米 centimeter centimeters centimetre centimetres"),
    ("metre", 1, "meter meters metre metres 公尺 米"),
    ("metre", 1000, "km kilometer kilometers kilometre kilometres 公里"),
    ("mile", 1, "mile miles 英里"),
    ("foot", 1, "ft foot feet 英尺"),
    ("inch", 1, "inch inches 英吋 吋"),
    ("yard", 1, "yard yards"),
    ("acre", 1, "acre acres"),
    ("gram", 0.001, "mg milligram milligrams 毫克"),
    ("gram", 1, "g gram grams 公克 克"),
    ("gram", 1000, "kg kilogram kilograms 公斤"),
    ("gram", 1e6, "公噸 噸 吨 ton tons tonne tonnes"),
    ("pound", 1, "lb lbs pound pounds 磅"),
    ("ounce", 1, "oz ounce ounces"),
    ("litre", 0.001, "ml milliliter milliliters 毫升"),
    ("litre", 1, "liter liters litre litres 公升"),
    ("gallon", 1, "gallon gallons"),
    ("cup", 1, "cup cups 杯"),
    ("spoon", 1, "tablespoon tablespoons tbsp"),
    ("teaspoon", 1, "teaspoon teaspoons tsp"),
    ("celsius", 1, "°c celsius"),
    ("fahrenheit", 1, "°f fahrenheit"),
    ("degree", 1, "° degree degrees 度"),
    ("person", 1, "person persons people employee employees 人 位 名"),
    ("times", 1, "time times 次 回"),
    ("volt", 1, "volt volts"),
    ("watt", 1, "watt watts"),
    ("watt", 1000, "kw"),
    ("calorie", 1, "calorie calories kcal 大卡"),
    ("page", 1, "page pages 頁 页"),
    ("floor", 1, "樓 楼"),
)

UNITS: dict[str, tuple[str, float]] = {
    form: (dimension, factor)
    for dimension, factor, names in _ROWS
    for name in names.split()
    for form in (name, folded(name))
}
"""Surface form (lower case; Chinese also folded to simplified) -> (dimension, factor to the base of the dimension)."""

PHRASES: dict[str, tuple[str, float]] = {"percentage points": ("point", 1.0), "percentage point": ("point", 1.0)}
"""Units of two words."""

_COUNTERS_TEXT = """
個 級 項 款 份 台 張 筆 家 間 本 階段 條 種 件 組 班 點 倍 冊 枚 支 隻 顆 粒 錠 片 包
盒 箱 瓶 罐 袋 碗 盤 輛 架 艘 座 棟 幢 層 排 列 欄 匹 盞 幅 封 束 堆 批 雙 套 部 首
篇 章 句 行 格 則 期 屆 輪 場 堂 局 趟 步 歲 戶 房 席 票 艙 把 輯 桶 串 字元
"""
COUNTERS_ZH = tuple(folded(c) for c in _COUNTERS_TEXT.split())
"""Words that Chinese puts between a number and what is counted; without a dimension of their own."""

COMPATIBLE = frozenset(
    frozenset(pair)
    for pair in (
        ("yuan", "twd"), ("yuan", "cny"), ("degree", "celsius"), ("degree", "fahrenheit"), ("cent", "usd"),
        ("cent", "eur"),
    )
)  # fmt: skip
"""Dimensions that may be written for each other."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEKDAYS_ZH = "一二三四五六日"


def compatible(one: str, other: str) -> bool:
    """Whether two dimensions can mean the same; "" (a bare number) goes with everything."""
    return one == other or not one or not other or frozenset((one, other)) in COMPATIBLE
