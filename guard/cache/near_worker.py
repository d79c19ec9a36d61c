"""The worker of the semantic cache: `python -m guard.cache.near_worker FD`. Embeds, searches and gates.

Beside the proxy because numpy and a model have no place on the path of an answer: it may be slow, hang or die, and the
proxy goes on after its budget as if there were no neighbour. Chinese works from its first moment, English once the
embedder is there. It leaves no core dump (it holds the words of users) and stops with its parent.
"""

from __future__ import annotations

import logging
import resource
import select
import socket
import sys
import threading
from collections import deque

from guard.cache.near_compare import compare
from guard.cache.near_frames import (
    Add,
    Answer,
    Compare,
    Compared,
    Find,
    FromWorker,
    Loaded,
    Remove,
    Setup,
    decode_to_worker,
    frame,
)
from guard.cache.near_index import NearIndex
from guard.checks.frames import Splitter
from slo.errors import GuardError

log = logging.getLogger("guard.cache")

BEAT_S = 0.2


class NearWorker:
    """The loop of one worker over a connected socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._splitter = Splitter()
        self._index = NearIndex(1, None)
        self._adding: deque[Add] = deque()
        self._loaded: deque[object] = deque()
        self._embedder: object = None

    def run(self) -> int:
        """Serve until the other side closes. Returns an exit status."""
        while True:
            # New questions are embedded when nobody waits for an answer.
            readable, _, _ = select.select([self._link], [], [], 0.0 if self._adding else BEAT_S)
            if readable:
                data = self._link.recv(1 << 18)
                if not data:
                    return 0
                for body in self._splitter.feed(data):
                    said = self.take(body)
                    if said is not None:
                        self._link.sendall(frame(said))
            elif self._adding:
                self._add(self._adding.popleft())
            if self._loaded:
                self._link.sendall(frame(self._take_embedder(self._loaded.popleft())))

    def take(self, body: bytes) -> FromWorker | None:
        """One message; what is to be said to it at once."""
        message = decode_to_worker(body)
        if isinstance(message, Find):
            return self._find(message)
        if isinstance(message, Add):
            self._adding.append(message)
        elif isinstance(message, Remove):
            self._adding = deque(a for a in self._adding if a.digest != message.digest)
            self._index.remove(message.space, message.digest)
        elif isinstance(message, Compare):
            return self._compare(message)
        else:
            return self._setup(message)
        return None

    def _setup(self, setup: Setup) -> Loaded:
        self._index = NearIndex(setup.vector_count, None)
        if setup.embedder != "none":
            threading.Thread(target=self._load, args=(setup.embedder,), daemon=True).start()
        return Loaded("", "hashed-ngram")

    def _load(self, name: str) -> None:
        from rag.embedding import load_embedder

        try:
            embedder = load_embedder(name, threads=1)
            if embedder is not None:
                embedder.embed(["the first text is the slow one"])
        except GuardError as error:
            log.warning("semantic cache: %s; English questions have no neighbours", error)
            return
        if embedder is not None:
            self._loaded.append(embedder)

    def _take_embedder(self, embedder: object) -> Loaded:
        self._embedder = embedder
        self._index.use(embedder)  # type: ignore[arg-type]
        return Loaded(getattr(embedder, "name", "?"), "hashed-ngram")

    def _add(self, message: Add) -> None:
        try:
            self._index.add(message.space, message.digest, message.question)
        except Exception as error:  # Questions come from outside; an odd one must not stop the worker.
            log.warning("a question could not be indexed: %s", type(error).__name__)

    def _find(self, message: Find) -> Answer:
        try:
            found = self._index.find(message.space, message.question, message.threshold)
        except Exception as error:  # As above.
            log.warning("a question could not be looked up: %s", type(error).__name__)
            return Answer(message.job_id, b"", 0.0, "words", "other")
        return Answer(message.job_id, found.digest, found.cosine, found.refusal, found.script.value)

    def _compare(self, message: Compare) -> Compared:
        try:
            same, likeness = compare(message.served, message.fresh, self._cosine if self._embedder else None)
        except Exception as error:  # As above.
            log.warning("two answers could not be compared: %s", type(error).__name__)
            return Compared(message.job_id, None, 0.0)
        return Compared(message.job_id, same, likeness)

    def _cosine(self, one: str, other: str) -> float:
        vectors = self._embedder.embed([one, other])  # type: ignore[attr-defined]
        return float(vectors[0] @ vectors[1])


def main() -> int:
    """Entry point of the process; the only argument is the number of an inherited socket."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=int(sys.argv[1])) as link:
        link.setblocking(True)
        try:
            return NearWorker(link).run()
        except (ConnectionError, KeyboardInterrupt):
            return 0


if __name__ == "__main__":
    sys.exit(main())
