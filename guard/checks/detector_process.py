"""The process of the detector model: `python -m guard.checks.detector_process FD`. Claims in, probabilities out.

It loads the model, runs the golden pairs, and from then on answers one question at a time. It leaves no core dump (it
holds the words of users), runs at the lowest priority and ends when the other side is gone.
"""

from __future__ import annotations

import logging
import resource
import socket
import sys
from pathlib import Path
from typing import Protocol

from exporters.background import stay_behind
from guard.checks.detector_link import (
    Ask,
    Begin,
    FromDetector,
    Loaded,
    Said,
    ToDetector,
    decode_to_detector,
    detector_frame,
)
from guard.checks.detector_spec import DetectorSpec
from guard.checks.frames import Splitter
from guard.checks.selftest import GOLDEN, GoldenPair, blind_languages, load_golden
from slo.errors import GuardError

log = logging.getLogger("guard.checks")


class Model(Protocol):
    """`guard.checks.detector_model.HfDetector`."""

    name: str
    files: dict[str, str]

    def score(self, question: str, claims: list[str], contexts: list[str]) -> list[float]: ...


class DetectorProcess:
    """The loop of one process over a connected socket; without one, `answer` alone (`sft-guard doctor`)."""

    def __init__(self, link: socket.socket | None) -> None:
        self._link = link
        self._spec: DetectorSpec | None = None
        self._model: Model | None = None
        self._golden: tuple[GoldenPair, ...] = GOLDEN

    def run(self) -> int:
        """Serve until the other side closes. Returns an exit status; 1 when there is no model to serve."""
        assert self._link is not None
        splitter = Splitter()
        while data := self._link.recv(1 << 18):
            for body in splitter.feed(data):
                answer = self.answer(decode_to_detector(body))
                self._link.sendall(detector_frame(answer))
                if isinstance(answer, Loaded) and answer.problem:
                    return 1
        return 0

    def answer(self, message: ToDetector) -> FromDetector:
        """One message, one answer. Never raises: what breaks is a problem in words."""
        if isinstance(message, Begin):
            self._spec = message.spec
            try:
                from guard.checks.detector_model import HfDetector

                self._golden = load_golden(Path(message.spec.golden)) if message.spec.golden else GOLDEN
                self._model = HfDetector(message.spec)
            except GuardError as error:
                return Loaded(message.spec.model, str(error))
            except ImportError as error:
                return Loaded(message.spec.model, f"needs {error.name}: pip install 'sft-guard[embeddings]'")
            except Exception as error:  # whatever a model library raises, the guard goes on without this detector
                return Loaded(message.spec.model, f"broke while loading ({type(error).__name__})")
            return self._loaded()
        if isinstance(message, Ask):
            if self._model is None:
                return Said(message.ticket, (), "detector not loaded")
            try:
                said = self._model.score(message.question, list(message.claims), list(message.contexts))
            except Exception as error:  # one odd answer must not stop the detector
                log.warning("detector failed: %s", type(error).__name__)
                return Said(message.ticket, (), f"detector broke ({type(error).__name__})")
            return Said(message.ticket, tuple(said))
        return self._loaded()

    def _loaded(self) -> Loaded:
        assert self._model is not None
        assert self._spec is not None
        model, threshold = self._model, self._spec.threshold

        def says(pair: GoldenPair) -> bool:
            return max(model.score("", [pair.answer], [pair.context])) < threshold

        try:
            return Loaded(model.name, "", blind_languages(says, self._golden), model.files)
        except Exception as error:  # as above
            return Loaded(model.name, f"broke on the golden pairs ({type(error).__name__})")


def main() -> int:
    """Entry point; the only argument is the number of an inherited socket."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stay_behind()
    with socket.socket(fileno=int(sys.argv[1])) as link:
        link.setblocking(True)
        try:
            return DetectorProcess(link).run()
        except (ConnectionError, KeyboardInterrupt):
            return 0


if __name__ == "__main__":
    sys.exit(main())
