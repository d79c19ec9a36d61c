"""A rule file that is followed while answers are given: a good change is taken over, a bad one refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from lora.postprocess import PostProcessor, RuleSet, read_rules
from rag.types import Document
from slo.errors import ConfigError, DataError, GuardError


class RuleFile:
    """`rag.answer_rules.RuleSource` over a file. say: told of every change, one line each.

    only: SHA-256 of the rules that the model behind was judged with; no others are taken. None takes any.

    Raises:
        ConfigError, DataError: the file cannot be used. At the start that is an error; later the rules in force stay.
    """

    def __init__(self, path: Path, say: Callable[[str], None], *, only: str | None = None) -> None:
        self._path, self._say, self._only = path, say, only
        self._rules, self._sha256 = self._read()
        self._seen = self._stamp()
        self._note = ""

    @property
    def sha256(self) -> str:
        """Hash of the file in force."""
        return self._sha256

    @property
    def note(self) -> str:
        """Why the file on disk is not in force, "" when it is."""
        return self._note

    def check(self, documents: Iterable[Document]) -> None:
        """Raises ConfigError: a topic names a document that is not there."""
        if missing := self._rules.unknown({document.doc_id for document in documents}):
            raise missing

    def look(self) -> None:
        """Take over a changed file; a damaged or missing one changes nothing and is told once."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            rules, found = self._read()
        except GuardError as error:
            self._note = str(error)
            self._say(f"rules: change refused, {self._sha256[:12]} stays in force: {error}")
            return
        self._note = ""
        if found != self._sha256:
            self._rules, self._sha256 = rules, found
            self._say(f"rules: {self._path.name} taken over, {len(rules.topics)} topics, {found[:12]} in force")

    def bind(self, documents: Iterable[Document]) -> PostProcessor:
        """The rules in force over these documents; a topic whose document is gone is off: its text is not given."""
        rules, texts = self._rules, {document.doc_id: document.text for document in documents}
        there = tuple(topic for topic in rules.topics if topic.kb_id in texts)
        for topic in rules.topics:
            if topic.kb_id not in texts:
                self._say(f"rules: topic {topic.name} is off, {topic.kb_id} is not in the knowledge base")
        return PostProcessor(replace(rules, topics=there), texts)

    def _read(self) -> tuple[RuleSet, str]:
        """Rules and hash of one and the same content."""
        for _ in range(3):
            before = self._bytes()
            rules = read_rules(self._path)
            if self._bytes() == before:
                found = sha256(before).hexdigest()
                if self._only is not None and found != self._only:
                    judged = f"was judged with {self._only[:12]}" if self._only else "was judged without rules"
                    cure = f"these rules are {found[:12]}, the model behind them {judged}; evaluate it with these"
                    raise ConfigError("rules", str(self._path), cure)
                return rules, found
        raise ConfigError("rules", str(self._path), "it is being written to; replace it in one step")

    def _bytes(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror}); check the path") from error

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)
