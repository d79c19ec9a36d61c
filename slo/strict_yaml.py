"""YAML for configuration: no duplicate keys, no aliases, no tags, bounded size, errors with line and cure.

Shared by `slo.spec` and `guard.settings`, so that both files are refused in the same words.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from slo.errors import ConfigError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 40

M = TypeVar("M", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses what makes configuration ambiguous or huge."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        peek: Any = self.peek_event  # the library has no types here
        if self.check_event(yaml.AliasEvent):
            event = peek()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed here", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", peek().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, Any] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` stands twice (first in line {seen[key]})", key_node.start_mark
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


# YAML 1.1 reads `off`, `no` and dates as other types; only what the files mean is kept.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, place: str) -> dict[str, Any]:
    """Parse a mapping.

    Raises:
        ConfigError: not YAML, not a mapping, duplicate key, alias, too large; `place` is the file's name.
    """
    documents = parse_documents(text, place)
    if len(documents) > 1:
        raise ConfigError(place, f"{len(documents)} documents", "write one (no line with --- between two)")
    document = documents[0] if documents else None
    if not isinstance(document, dict):
        raise ConfigError(place, document, "the file must be a mapping (key: value lines)")
    return document


def parse_documents(text: str, place: str) -> list[Any]:
    """Parse a stream of documents, whatever they are.

    Raises:
        ConfigError: not YAML, duplicate key, alias, too large; `place` is the file's name.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(place, f"{len(text)} characters", f"a configuration file has at most {MAX_BYTES}")
    try:
        return list(yaml.load_all(text, Loader=_StrictLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
        lines = text.splitlines()
        shown = lines[mark.line].strip() if mark and mark.line < len(lines) else ""
        raise ConfigError(where, shown, error.problem or "is not YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(place, text[:40], f"is not YAML ({' '.join(str(error).split())})") from error


INIT = "sft-guard init"


def read_config(path: Path, made_by: str = "") -> str:
    """Return the text of a configuration file. made_by: the command that writes such a file, for the cure.

    Raises:
        ConfigError: unreadable, too large, not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                str(path), f"{path.stat().st_size} bytes", f"a configuration file has at most {MAX_BYTES}"
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        cure = f"name a readable file{f', or make one with `{made_by}`' if made_by else ''}"
        raise ConfigError(str(path), error.strerror or "unreadable", cure) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), f"byte {error.object[error.start]:#x} at {error.start}", "save the file as UTF-8"
        ) from error


def load_yaml_file(path: Path | str, made_by: str = "") -> tuple[dict[str, Any], str]:
    """Read and parse a file; returns (mapping, text). made_by: see `read_config`.

    Raises:
        ConfigError: unreadable, not UTF-8, or anything `parse_yaml` refuses.
    """
    path = Path(path)
    text = read_config(path, made_by)
    return parse_yaml(text, path.name), text


def validate_model(model: type[M], document: dict[str, Any], place: str) -> M:
    """Check a parsed file against its model.

    Raises:
        ConfigError: the first error; `.more` holds the others, so that a person can mend all at once.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        known = _field_names(model)
        errors = [_config_error(e, place, known) for e in error.errors(include_url=False)]
    # Raised out here, without the library's error as its cause: the garbage collector cannot see into it, and in
    # a circle with the frames of its validators it would stay for good (1.3 kB a refused file, seen by fuzzing).
    errors[0].more = tuple(errors[1:])
    raise errors[0]


def _config_error(error: Any, place: str, known: tuple[str, ...]) -> ConfigError:
    *before, last = error["loc"] or ("",)
    unknown = error["type"] == "extra_forbidden"  # then the last part is the user's own word, whatever it looks like
    loc = [part for part in before if not _is_tag(part)] + [last] * (unknown or not _is_tag(last))
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{_printable(part)}"
    value, message = error["input"], error["msg"].removeprefix("Value error, ")
    if isinstance(value, str):
        message = message.removeprefix(f"`{value}`: ")  # it is shown as the value
    if unknown:
        near = difflib.get_close_matches(str(last), known, n=1)
        message = f"unknown key; did you mean `{near[0]}`?" if near else "unknown key; remove it"
    elif error["type"] == "missing":
        value, message = None, "this key is required"
    message = _printable(" ".join(message.split()), 1000)  # some quote what was written
    return ConfigError(f"{place}: {path}" if path else place, value, message)


_UNION_TAGS = frozenset({"str", "int", "float", "bool", "constrained-str", "function-before", "function-after"})


def _printable(text: str, chars_max: int = 200) -> str:
    """On one line whatever it holds, and not endless."""
    shown = text if len(text) <= chars_max else text[:chars_max] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def _is_tag(part: object) -> bool:
    """Pydantic names the member of a union that it tried; nobody wrote that."""
    return isinstance(part, str) and (not part or "[" in part or part in _UNION_TAGS)


@cache
def _field_names(model: type[BaseModel]) -> tuple[str, ...]:
    """All property names anywhere in the model, for did-you-mean; 20 ms the first time."""
    names: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            for value in schema.values():
                walk(value)
        elif isinstance(schema, list):
            for value in schema:
                walk(value)

    walk(model.model_json_schema())
    return tuple(sorted(names))
