"""Cheap rules on an answer: microseconds, no model. Built-in ones and those of a rules.yaml with a fixed grammar.

builtin: {system_paths: true, promised_link: true, balanced_json: true}
rules:
  - name: refund-needs-form
    when: {question_any: [refund]}
    require_any: ["form RF-1"]
  - {name: no-promises, forbid_any: [guarantee, always works]}
  - {name: leave-days, number: {near: annual leave, unit: days, min: 0, max: 30}}
  - {name: no-invoice-numbers, forbid_pattern: 'INV-\\d{4,8}'}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from guard.checks.lexicon import normalise
from guard.checks.numbers import quantities
from guard.checks.pii import excerpt
from guard.checks.units import UNITS, compatible
from slo.errors import ConfigError
from slo.patterns import TEXT_CHARS, compile_safe
from slo.types import CheckResult, Finding

CHECK = "rules"
FILE_BYTES = 1_000_000
NEAR_CHARS = 60

_SYSTEM_PATH = re.compile(
    r"(?<![\w/.])/(?:etc|root|proc|sys|boot|var/(?:log|lib|run|spool)|usr/(?:s?bin|lib))/[\w.-]+|"
    r"(?<![\w/.])/etc/|/etc/(?:passwd|shadow)"
    r"|\b[a-z]:\\(?:windows|users|program files)\b|(?:\.\./){2,}|~/\.(?:ssh|aws|kube)\b",
    re.IGNORECASE,
)
_LINK_PROMISED = re.compile(
    r"\b(?:click|follow|visit|open|use|see|via|at|through) (?:on )?(?:the |this |that |"
    r"our )?(?:following |below )?(?:link|url)\b"
    r"|\b(?:link|url)(?: is)?(?: (?:below|here|as follows))?\s*:|\bhere is (?:the|a|your) (?:link|url)\b"
    r"|(?:點擊|点击|點選|点选|開啟|打开|請至|请至|前往|參考|参考)(?:以下|下列|下方|此|這個|这个|"
    r"該)?(?:的)?(?:連結|链接|網址|网址)|(?:以下|下列|下方)(?:是|為)?(?:的)?(?:連結|链接|"
    r"網址|网址)",
    re.IGNORECASE,
)
_LINK_HINT = re.compile(r"://|www\.|\b(?:link|url)\b|連結|链接|網址|网址", re.IGNORECASE)
_LINK_HINTS = ("://", "www.", "link", "url", "連結", "链接", "網址", "网址")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"'\u3000-\u303f\uff00-\uffef)\]]+", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"\[[^\]\n]{1,200}\]\(([^)\s]{0,500})\)")
_OPEN_FENCE = re.compile(r"```(?:json)?\s*([\[{][^`]*)$")
# Spaces of the first line only: of a run of line ends each would be tried, to the end of the text.
_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Terms = tuple[str, ...]


class When(_Strict):
    """A rule applies when one of the words is there."""

    question_any: list[str] = Field(default_factory=list)
    answer_any: list[str] = Field(default_factory=list)


class NumberRange(_Strict):
    """Every number with this unit that stands near the words lies between the bounds. Values are in `unit`."""

    near: str = ""
    unit: str
    min: float | None = None
    max: float | None = None

    @field_validator("unit")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.lower() not in UNITS:
            raise ValueError("is no known unit; write for example days, hours, percent, usd, twd, kg")
        return value.lower()

    @model_validator(mode="after")
    def _bounded(self) -> NumberRange:
        if self.min is None and self.max is None:
            raise ValueError("needs `min` or `max`")
        return self


class Rule(_Strict):
    """One rule; all its parts must hold."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    when: When | None = None
    require_any: list[str] = Field(default_factory=list)
    require_all: list[str] = Field(default_factory=list)
    forbid_any: list[str] = Field(default_factory=list)
    require_pattern: str | None = None
    forbid_pattern: str | None = None
    number: NumberRange | None = None

    @field_validator("require_pattern", "forbid_pattern")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        if value is not None:
            compile_safe(value)
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if not (
            self.require_any
            or self.require_all
            or self.forbid_any
            or self.require_pattern
            or self.forbid_pattern
            or self.number
        ):
            raise ValueError("asks for nothing; add require_any, require_all, forbid_any, a pattern or number")
        return self


class Builtin(_Strict):
    """Switches of the built-in rules."""

    system_paths: bool = True
    promised_link: bool = True
    balanced_json: bool = True


class RuleFile(_Strict):
    """rules.yaml."""

    builtin: Builtin = Builtin()
    rules: list[Rule] = Field(default_factory=list, max_length=1000)

    @model_validator(mode="after")
    def _unique(self) -> RuleFile:
        names = [r.name for r in self.rules]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"rule name {doubled[0]!r} is used twice; names must be unique")
        return self


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule with its words folded and its patterns compiled."""

    rule: Rule
    question_any: Terms
    answer_any: Terms
    require_any: Terms
    require_all: Terms
    forbid_any: Terms
    require_pattern: re.Pattern[str] | None
    forbid_pattern: re.Pattern[str] | None


class Rules:
    """Checked rules, ready to run. `Rules()` has the built-in ones only."""

    def __init__(self, file: RuleFile | None = None) -> None:
        self.file = file or RuleFile()
        self._ready = [_prepare(rule) for rule in self.file.rules]

    def check(self, question: str, answer: str) -> Finding:
        """Score 1.0 when every rule holds, else the share that does. Evidence: broken rules with the reason."""
        if not answer.strip():
            return Finding(CHECK, CheckResult.SKIPPED, None, "empty answer")
        broken: list[str] = []
        builtin = self.file.builtin
        if builtin.system_paths and ("/" in answer or "\\" in answer) and (found := _SYSTEM_PATH.search(answer)):
            broken.append(f"system_paths: {excerpt(found[0], 60)}")
        if builtin.promised_link and (reason := _link_problem(answer)):
            broken.append(f"promised_link: {reason}")
        if builtin.balanced_json and (reason := json_problem(answer)):
            broken.append(f"balanced_json: {reason}")
        count = builtin.system_paths + builtin.promised_link + builtin.balanced_json
        if self._ready:
            asked, said = normalise(question[:TEXT_CHARS]).casefold(), normalise(answer[:TEXT_CHARS]).casefold()
            for ready in self._ready:
                if not _applies(ready, asked, said):
                    continue
                count += 1
                if reason := _broken(ready, said):
                    broken.append(f"{ready.rule.name}: {reason}")
        if not broken:
            return Finding(CHECK, CheckResult.PASS, 1.0, "", (), "rules")
        return Finding(CHECK, CheckResult.FAIL, 1 - len(broken) / max(count, 1), broken[0], tuple(broken[:8]), "rules")


def _prepare(rule: Rule) -> _Ready:
    when = rule.when or When()
    return _Ready(
        rule, _fold(when.question_any), _fold(when.answer_any), _fold(rule.require_any), _fold(rule.require_all),
        _fold(rule.forbid_any), compile_safe(rule.require_pattern) if rule.require_pattern else None,
        compile_safe(rule.forbid_pattern) if rule.forbid_pattern else None,
    )  # fmt: skip


def _fold(words: list[str]) -> Terms:
    return tuple(normalise(w).casefold() for w in words)


def _applies(ready: _Ready, asked: str, said: str) -> bool:
    if not ready.question_any and not ready.answer_any:
        return True
    return any(w in asked for w in ready.question_any) or any(w in said for w in ready.answer_any)


def _broken(ready: _Ready, said: str) -> str:
    """Why the rule is broken, "" when it holds."""
    if ready.require_any and not any(w in said for w in ready.require_any):
        return f"none of {', '.join(ready.require_any)[:80]} is there"
    if missing := [w for w in ready.require_all if w not in said]:
        return f"{missing[0][:60]} is missing"
    if there := [w for w in ready.forbid_any if w in said]:
        return f"{there[0][:60]} may not be there"
    if ready.require_pattern and not ready.require_pattern.search(said):
        return "the required pattern is missing"
    if ready.forbid_pattern and ready.forbid_pattern.search(said):
        return "the forbidden pattern is there"
    return _number_problem(ready.rule.number, said) if ready.rule.number else ""


def _number_problem(wanted: NumberRange, said: str) -> str:
    dimension, factor = UNITS[wanted.unit]
    near = normalise(wanted.near).casefold()
    places = [m.start() for m in re.finditer(re.escape(near), said)] if near else []
    for number in quantities(said)[0]:
        if (number.dimension and not compatible(number.dimension, dimension)) or not number.dimension:
            continue
        if near and not any(abs(number.start - place) <= NEAR_CHARS + len(near) for place in places):
            continue
        value = number.value / factor
        if wanted.min is not None and value < wanted.min:
            return f"{value:g} {wanted.unit} is under {wanted.min:g}"
        if wanted.max is not None and value > wanted.max:
            return f"{value:g} {wanted.unit} is over {wanted.max:g}"
    return ""


def _link_problem(answer: str) -> str:
    for match in _MARKDOWN_LINK.finditer(answer) if "](" in answer else ():
        if not _valid_url(match[1]) and not match[1].startswith(("/", "#", "mailto:")):
            return "a link without a valid URL"
    lower = answer.casefold()
    if not any([hint in lower for hint in _LINK_HINTS]) or not _LINK_HINT.search(answer):  # noqa: C419 - quicker
        return ""
    urls = [url.rstrip(".,;:!?)\"'\u3002\uff0c") for url in _URL.findall(answer)]  # the sentence's, not the address's
    if bad := [u for u in urls if not _valid_url(u)]:
        return f"{excerpt(bad[0], 60)} is no valid URL"
    if not urls and not _MARKDOWN_LINK.search(answer) and _LINK_PROMISED.search(answer):
        return "a link is promised and none is given"
    return ""


def _valid_url(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises on a port that is none
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and re.fullmatch(r"[\w-]+(?:\.[\w-]+)+|localhost|\[?[0-9a-f:]+\]?", host) is not None
    )


def json_problem(answer: str) -> str:
    """Why a JSON block of the answer does not close, "" when there is none or it does.

    Looked at: fenced blocks, and an answer that begins with a brace or bracket and a JSON string, brace or digit.
    """
    blocks = [b for b in _FENCE.findall(answer) if b.lstrip()[:1] in ("{", "[")]
    if answer.count("```") % 2 and (opened := _OPEN_FENCE.search(answer)):
        blocks.append(opened[1])
    start = answer.lstrip()
    if re.match(r"\{\s*\"|\[\s*[\[{\"]", start):
        blocks.append(start)
    return next((reason for block in blocks if (reason := _unbalanced(block[:TEXT_CHARS]))), "")


def _unbalanced(block: str) -> str:
    closes: list[str] = []
    in_string = escaped = False
    for char in block:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            closes.append("}" if char == "{" else "]")
        elif char in "}]" and (not closes or closes.pop() != char):
            return f"a {char} closes nothing"
    if in_string:
        return "a string does not end"
    return f"{len(closes)} brackets stay open" if closes else ""


def load_rules(path: Path | str) -> Rules:
    """Read and check rules.yaml.

    Raises:
        ConfigError: with the file, the path of the value, the value and the cure.
    """
    path = Path(path)
    try:
        if path.stat().st_size > FILE_BYTES:
            raise ConfigError(path.name, f"{path.stat().st_size} bytes", f"rules files have at most {FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        if re.search(r"(?m)(?:^|[\s\[{,:-])[&*][A-Za-z0-9_]+\s*(?:$|[\]},])", text):
            raise ConfigError(path.name, "YAML anchor or alias", "write values out; quote words that begin with & or *")
        document = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(str(path), error.strerror, "give the path of a readable rules.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path.name, " ".join(str(error).split())[:160], "write YAML in UTF-8") from error
    return parse_rules({} if document is None else document, path.name)


def parse_rules(document: Any, place: str = "rules.yaml") -> Rules:
    """Check a loaded document. Raises ConfigError."""
    if not isinstance(document, dict):
        raise ConfigError(place, document, "write a mapping with `rules:`")
    try:
        return Rules(RuleFile.model_validate(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
        cure = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place}: {where}" if where else place, first["input"], cure) from error
