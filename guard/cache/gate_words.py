"""Words of the near-miss gate: question frames, words that change nothing, words that mean the same. Pure data.

English entries are written as people type them; the gate brings them to its own stem. Chinese entries are literal. Both
lists are deliberately short: a word that is missing costs a hit, a word too many serves a wrong answer.
"""

# ruff: noqa: E501 - one frame or question a line reads better than its halves

from __future__ import annotations

FRAMES_EN: tuple[str, ...] = (
    r"(?:(?:can|could|would|will) you (?:please )?)?(?:tell|show|explain|teach|give|let|help|inform|remind) (?:to )?me"
    r"(?: know| understand| out)?(?: with| about| of)?(?: how (?:to|do i|can i)\b)?",
    r"(?:do|would|did) you (?:happen to )?(?:know|have (?:any )?(?:idea|info(?:rmation)?))(?: of| about| on)?",
    r"(?:i(?:'d| would|'ll| will)?|we(?:'d)?) (?:really |just )?(?:want|wanna|like|love|need|wish|have|am trying|try) (?:you )?"
    r"to (?:know|find out|understand|ask|learn|see|hear)(?: about| of| if| whether)?",
    r"(?:i'm|i am|we are|we're) (?:just )?(?:wondering|curious|interested|trying|looking|asking|hoping)(?: in| about| for| if| to)?",
    r"(?:i(?:'d| would|'ll| will)?|we(?:'d)?) (?:really |just )?(?:want|wanna|like|love|need|wish|have) to",
    r"i (?:just )?(?:want|need|would like|'d like)(?: to have)?",
    r"i (?:don't|do not|dont) (?:know|understand|see) (?:how (?:to|i can)|why|what|where|when|if)",
    r"is (?:it|this|that) (?:at all )?possible(?: for (?:me|us|someone|people|a user) to| to| that)?",
    r"(?:is|are) there (?:an?y?|some|other) ?(?:(?:easy|simple|good|quick|other|known) )?"
    r"(?:way|ways|options?|methods?|possibilit(?:y|ies)|features?|settings?|solutions?|means|support)?"
    r"(?: in place)?(?: that (?:i|we|one) can use)?(?: to| of| for me to| for| i can| that i can)?",
    r"what(?:'s| is| are|s)(?: the| a| my| some)?(?: (?:best|easiest|simplest|right|correct|proper|fastest|quickest|recommended|good))?"
    r" (?:ways?|methods?|options?|procedures?|process|steps?)(?: is there| are there)?(?: to| of| for me to| for| i can)?",
    r"how (?:can|do|could|should|would|might|may|shall|will|did) (?:i|we|you|one|someone|people)(?: (?:go about|manage to|be able to))?",
    r"how (?:to|is it possible to|about)",
    r"(?:can|could|may|should|shall|would|might|do|will) (?:i|we|you|one|someone|people|they)(?: (?:somehow|possibly|actually|even|be able to|please))?",
    r"(?:how|where) (?:can|do|could|should) i (?:do|achieve|accomplish|find|get) (?:this|that|it|such)(?: information)?",
    r"(?:is|would|can|could) (?:this|that|it) (?:be )?(?:possible|done|doable|supported)(?: somehow)?",
    r"(?:and )?(?:what is|what's) the (?:best|easiest|fastest|simplest|quickest) way to (?:do|achieve) (?:this|that|it)",
    r"please|thank(?:s| you)|hello|hi|hey|dear|kindly|simply|actually|really|basically|somehow|anyway|exactly|though|so",
    r"(?:the )?(?:best |easiest |simplest )?ways? (?:to|of|for)|options? for|methods? (?:to|of|for)",
    r"(?:a |an )?(?:question|help|information|info|advice|guide|instructions|details) (?:about|on|with|for|regarding)",
)
"""Regular expressions of what surrounds a question without being part of it; longer ones first."""

LIGHT_EN = """
able accomplish achieve actually all already also am and any anybody anyone anything anyway are ask automatically
available basically be been being can certain come correctly could currently determine directly do does doing done
easiest easily easy else essentially even ever every existing explain fast fastest feature find functionality get give
given go going had happen has have having hello here hey hi how idea if interested is it its just kind know let look
lot mainly make manually may maybe mean method might moment need new not now option or other others own particular
people perform performing perhaps person personal please possibility possible properly purpose question
quickly quite really reason respective same should show simply simultaneously so some somebody someone something sort
specific still such take tell thanks that then there these thing this those time today together too try trying type
use user using usually various very via want was way were what when where which who why will wonder would yet
"""
"""Words that may stand on one side only."""

HALF_LIGHT_EN = """
good best well better help like different problem issue trouble support offer provide enable allow set setting apply
recommend suggest say web physical simple able use used using
"""
"""Words that may stand on one side only, but not against another word on the other side."""

DIRECTIONS_EN = """
before after more less most least fewer down out off against without except always never only both between under
over above below than instead again until till since first last next previous another spent left remaining
"""
"""Small words that turn a question around; both sides must have the same ones, but for those of SOFT_EN."""

SOFT_EN = "out over again than more most only another"
"""Directions that may stand on one side only, as long as nothing on the other side answers them."""

DIRECTIONAL_EN = "from to into by than against"
"""Prepositions that give a word its role: "from A to B" is not "from B to A"."""

SYNONYMS_EN = """
delete remove erase rid discard
forward redirect
view look watch
folder directory
multiple several many more-than-one
facebook fb
photo picture image pic
document doc
mail email e-mail message
repair solve resolve
create build construct generate
change modify edit update alter switch
buy purchase
find locate search determine discover identify see view check monitor list browse report

begin start
end finish
stop cease
terminate close
obtain receive acquire
allow permit tolerate let
big large
quick fast
fee charge cost price
decline reject refuse
wrong incorrect
happen occur
child kid
company firm business organisation organization
require need necessary
verify confirm validate
hide conceal
link connect
download save
keep store
analyze analyse analysis
put place
copy duplicate
publish post
whole entire complete full
single individual one
simultaneous simultaneously at-the-same-time at-once
site website page web-site
person people
work function operate
add insert include introduce attach
limit constrain restrict
computer pc laptop
keep retain preserve
stay remain
import load
tag label
phone mobile cellphone
turn-off disable deactivate switch-off
turn-on enable activate switch-on
automatically auto automatic
accidentally mistakenly inadvertently
lose lost
handle deal
information info data details
error mistake
fix undo correct
pay payment
transfer send
refund reimbursement
holiday vacation
car automobile vehicle
cheap inexpensive
near nearby close closest nearest
town city
reply respond answer
call phone ring
internet online web
microsoft ms
option setting preference
tv television
choose select pick
assist help support
gather collect
combine merge join
convert transform
customize customise personalize personalise
duplicate clone
fetch retrieve
erase wipe clear
log-in login sign-in signin log-on logon
log-out logout sign-out signout log-off logoff
sign-up signup register enrol enroll
undo revert
schedule plan
follow track
commence launch start
halt stop pause
teach train
purchase order
parcel package shipment delivery
error bug fault
colour color
favourite favorite
licence license
programme program
cheque check
centre center
uk britain
us usa america
"""
"""One class a line; a dash joins the words of a phrase."""

CONTRAST_EN = """
more|most less|least|fewer
before after
for against
with without
up down
over under
above below
first last
begin|start end|finish|stop
win lose
problem solution
buy sell
give take
send receive
open close
arrive depart|leave
lend borrow
import export
upload download
old new
next previous
enter exit
push pull
increase decrease|reduce
max|maximum min|minimum
big|large small|little
high low
long short
left right
early late
day night
male female
husband wife
man woman
mother father
parent child
buyer seller
employer employee
input output
internal external
north south
east west
"""
"""Sides of a contrast: one text has only the first, the other only the second."""

NO_QUESTION_EN = (
    r"\bwhere (?:can|could|do|should|would|might|to|will) (?:i |we |you |one )?(?:find|get|see|look|check|go|learn|read)\b"
    r"|\b(?:site|place|page|service|country|case|situation|one|way) where\b"
    r"|\b(?:people|persons?|friends?|users?|someone|anyone|somebody|those|guys?|everyone|members?) who(?:se|m)?\b"
)
"""Question words that ask nothing: "where can I find" is "how do I find", "people who" is "people that"."""

QUESTIONS_EN: tuple[tuple[str, str], ...] = (
    ("who", r"\bwho(?:m|se)?\b"),
    (
        "when",
        r"(?:^|[,;] ?|\b(?:know|see|tell|out|about|check|sure|say|or|and) )when\b|\bwhen (?:do|does|did|is|was|were|will|can|"
        r"should|would|are|has|have)\b|\b(?:what|which|in what) (?:year|date|time|day|month|century|decade)\b",
    ),
    ("where", r"\bwhere\b|\b(?:what|which) (?:place|location|city|country|state|region|area)\b"),
    ("how many", r"\bhow (?:many|much)\b|\bwhat (?:number|amount|percent\w*|proportion|share)\b"),
    ("how long", r"\bhow (?:long|soon|quickly)\b"),
    ("how often", r"\bhow (?:often|frequently)\b"),
    ("measure", r"\bhow (?:far|old|large|big|tall|high|wide|deep|heavy|hot|cold)\b"),
    ("why", r"\bwhy\b|\bhow come\b|\b(?:reasons?|cause) (?:that|for|of|is|was|behind)\b|\bfor what reason\b"),
)
"""What a question asks for. "How" and "what" ask for anything and are no kind."""

LATIN_OTHER = """
el que para como una por donde cuando cual puedo le les des une est dans sur avec quel comment pour je vous der das
und ist nicht wie ich ein eine mit auf wann um uma nao voce onde quando posso sono dove het een niet hoe ik voor ve
bir icin nasil nie jak czy jest och att det hur dieses diese heisst esta este cuanto combien quelle sont
"""
"""Function words of other languages in Latin script: the gate knows English words only and refuses those."""

FRAMES_ZH = (
    "請問|请问|你好|您好|謝謝|谢谢|我想(?:要)?(?:知道|問|问|了解|查詢|查询)?(?:一下)?|"
    "(?:可以|能)?(?:告訴|告诉)我|想(?:問|问)(?:一下)?|麻煩|麻烦|一下|"
    "(?:嗎|吗|呢|呀|啊|吧|哦|喔)(?=$|[\\s?!.,])"
)
"""Chinese politeness and particles that end a question."""

SYNONYMS_ZH = """
如何 怎麼 怎么 怎樣 怎样 要怎麼 要怎么 該怎麼 该怎么
什麼時候 什么时候 何時 何时 幾時
哪裡 哪里 哪兒 哪儿 何處 何处 什麼地方 什么地方
為什麼 为什么 為何 为何
什麼 什么 甚麼 何種
多少 幾多
是否 是不是
能否 可否 可不可以 能不能
幾天 多少天
申請請假 請假
帳號 帳戶 賬號 账号 账户 帐号 帐户
重設 重置 重新設定 重设
手機 行動電話 手机
修改 更改 變更 变更
刪除 移除 删除
公司 企業 企业
員工 员工
位於 位于 坐落於 坐落于 地處 地处
出生於 出生于 生於 生于
發行 发行 發布 发布
擔任 担任 任職
開始 开始
因此 所以
但是 但 不過 不过 然而
以及 及 和 與 与 跟
被稱為 被称为 稱為 称为
目前 現在 现在
建於 建于 建立於 建立于
使用 用
的一個 的一个 的
由於 由于 因為 因为
部分 一部分
"""
"""One class a line, longest forms first within the text."""

LIGHT_ZH = "的地得了是在也都而其之這这為为以於于將将並并且就才那此該该有所過过著着個个名位條条座段間间還还一"
"""Characters that may stand on one side only."""
