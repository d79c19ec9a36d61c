"""The detector model as the check worker sees it: another process behind a socket, asked one answer at a time.

A model takes a hundred milliseconds and can hang or take the memory of the machine, so it must not sit in the loop
that checks every answer: what it does not manage is `skipped: busy`, what it gets wrong in time or form `unavailable`.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

import msgspec

from guard.checks.detector_spec import DetectorSpec
from guard.checks.file_watch import FileWatch
from guard.checks.frames import HEAD, Splitter
from guard.checks.opinion import Opinion, Question
from slo.clock import Clock

log = logging.getLogger("guard.checks")

BACKOFF_S = (5.0, 300.0)
SEND_TIMEOUT_S = 2.0


class Begin(msgspec.Struct, tag="b", array_like=True, frozen=True):
    """First frame to the process."""

    spec: DetectorSpec


class Ask(msgspec.Struct, tag="a", array_like=True, frozen=True):
    """Claims of one answer."""

    ticket: int
    question: str
    claims: tuple[str, ...]
    contexts: tuple[str, ...]


class Retest(msgspec.Struct, tag="t", array_like=True, frozen=True):
    """Run the golden pairs again."""


class Loaded(msgspec.Struct, tag="l", array_like=True, frozen=True):
    """The model is there, or `problem` says why not. blind: language -> why it may not speak about it."""

    name: str
    problem: str = ""
    blind: dict[str, str] = {}
    files: dict[str, str] = {}


class Said(msgspec.Struct, tag="s", array_like=True, frozen=True):
    """Answer to one `Ask`: probabilities, or why there are none."""

    ticket: int
    probabilities: tuple[float, ...]
    problem: str = ""


ToDetector = Begin | Ask | Retest
FromDetector = Loaded | Said
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FromDetector).decode
decode_to_detector = msgspec.msgpack.Decoder(ToDetector).decode


def detector_frame(message: ToDetector | FromDetector) -> bytes:
    """Message with its length in front."""
    body = _encode(message)
    return HEAD.pack(len(body)) + body


class DetectorLink:
    """`guard.checks.opinion.Detector` over a process of its own. Not thread-safe."""

    check = "detector"

    def __init__(self, spec: DetectorSpec, clock: Clock) -> None:
        self._spec, self._clock = spec, clock
        self.threshold = spec.threshold
        self.name = spec.model
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._splitter = Splitter()
        self._waiting: deque[tuple[float, Ask]] = deque()
        self._busy: tuple[float, int] | None = None  # since when, ticket (-1: golden pairs)
        self._given_up: list[tuple[int, Opinion]] = []
        self._ready = False
        self._load_by_s = 0.0
        self._failed, self._blind = "", dict[str, str]()
        self._watch = FileWatch()
        self._files = dict[str, str]()  # path -> SHA-256 of what was loaded first
        self._changed = ""
        self._start_at_s, self._backoff_s = clock.now_s(), BACKOFF_S[0]
        self._start()

    @property
    def problem(self) -> str:
        """A file changed, no model, or no language that it can tell apart."""
        if self._changed or self._failed:
            return f"detector: {self._changed or self._failed}"
        return "detector: " + "; ".join(self._blind.values()) if self._blind.keys() >= {"en", "zh"} else ""

    @property
    def line(self) -> str:
        """For people: what serves, and which language not."""
        if self.problem or not self._ready:
            return self.problem or "detector loading"
        return f"detector {self.name}" + "".join(f"; not for {lang}: {why}" for lang, why in self._blind.items())

    def filenos(self) -> Sequence[int]:
        return (self._link.fileno(),) if self._link is not None else ()

    def ask(self, ticket: int, asked: Question) -> Opinion | None:
        if problem := self.problem or self._blind.get(asked.language, ""):
            return Opinion(problem=problem)
        if not self._ready:
            return Opinion(problem="detector loading")
        if not asked.claims:
            return Opinion(skipped="no claim to judge")
        if not asked.unsure and not self._spec.ask_all:
            return Opinion(skipped="the tiers before are sure")
        if len(self._waiting) >= self._spec.waiting_count:
            return Opinion(skipped="detector busy: sampled")
        self._waiting.append((self._clock.now_s(), Ask(ticket, asked.question, asked.claims, asked.contexts)))
        self._pump()
        return None

    def collect(self) -> list[tuple[int, Opinion]]:
        found: list[tuple[int, Opinion]] = []
        if (link := self._link) is not None:
            try:
                while data := link.recv(1 << 16):
                    for body in self._splitter.feed(data):
                        self._heard(_decode(body), found)
                    if self._link is not link:
                        break  # what it said ended it
                else:
                    self._fail("its process ended")
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:  # killed with words of ours unread: the link is reset, not closed
                self._fail("its process ended")
            except (ValueError, msgspec.DecodeError) as error:
                self._fail(f"its process does not speak our language ({type(error).__name__})")
        self._pump()
        found += self._given_up
        self._given_up = []
        return found

    def look(self, *, retest: bool = False) -> None:
        now_s = self._clock.now_s()
        if not self._changed and (changed := self._watch.changed()):
            log.warning("detector: %s", changed)
        self._changed = self._watch.changed()
        if self._busy is not None and self._busy[1] >= 0 and now_s - self._busy[0] > self._spec.timeout_s:
            self._fail(f"no answer within {self._spec.timeout_s:g} s")
        elif self._link is not None and not self._ready and now_s > self._load_by_s:
            self._fail(f"not loaded within {self._spec.load_timeout_s:g} s")
        while self._waiting and now_s - self._waiting[0][0] > self._spec.timeout_s:
            self._given_up.append((self._waiting.popleft()[1].ticket, Opinion(skipped="detector busy: sampled")))
        if self._link is None and now_s >= self._start_at_s:
            self._start()
        if retest and self._ready and self._busy is None:
            self._send(Retest())
            self._busy = (now_s, -1)

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        command = self._spec.command or (sys.executable, "-m", "guard.checks.detector_process")
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(theirs.fileno())], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            self._fail(f"its process cannot be started ({error.strerror})")
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._link, self._splitter, self._ready, self._busy = ours, Splitter(), False, None
        self._load_by_s = self._clock.now_s() + self._spec.load_timeout_s
        self._send(Begin(self._spec))

    def _pump(self) -> None:
        """One answer is with the process at a time, so that a timeout names the one that hangs."""
        if self._ready and self._busy is None and self._waiting:
            _, ask = self._waiting.popleft()
            self._busy = (self._clock.now_s(), ask.ticket)
            self._send(ask)

    def _send(self, message: ToDetector) -> None:
        assert self._link is not None
        try:
            self._link.settimeout(SEND_TIMEOUT_S)  # it is idle and reads at once, or it is broken
            self._link.sendall(detector_frame(message))
            self._link.setblocking(False)
        except OSError as error:
            self._fail(f"its process cannot be reached ({type(error).__name__})")

    def _heard(self, message: FromDetector, found: list[tuple[int, Opinion]]) -> None:
        if isinstance(message, Loaded):
            self._busy = None
            self._failed = message.problem
            if message.problem:
                return  # it ends itself; the reason stays until the next try
            self._files = self._files or message.files
            if message.files != self._files:  # it ended and came back with a model that was put there meanwhile
                self._fail("its files are not those of the start; put them back, or restart the guard")
                return
            self.name, self._blind, self._ready = message.name, message.blind, True
            self._backoff_s = BACKOFF_S[0]
            if message.files:
                self._watch = FileWatch(known=message.files)
            return
        if self._busy is not None and self._busy[1] == message.ticket:
            self._busy = None
        found.append((message.ticket, Opinion(message.probabilities, problem=message.problem)))

    def _fail(self, why: str) -> None:
        """The process is of no use any more: end it, give up what it held, try again later, each time later."""
        if self._busy is not None and self._busy[1] >= 0:
            self._given_up.append((self._busy[1], Opinion(problem=f"detector: {why}")))
        self._given_up += [(ask.ticket, Opinion(problem=f"detector: {why}")) for _, ask in self._waiting]
        self._waiting.clear()
        self._busy, self._ready = None, False
        self._failed = self._failed or why
        log.warning("detector: %s; next try in %.0f s", self._failed, self._backoff_s)
        self.close()
        self._start_at_s = self._clock.now_s() + self._backoff_s
        self._backoff_s = min(BACKOFF_S[1], self._backoff_s * 2)
