"""From tokens to text that may be sent: no half characters, nothing of a stop text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_HALF = "\N{REPLACEMENT CHARACTER}"


class AnswerText:
    r"""The text of one answer as its tokens come.

    decode: tokens to text, special ones left out. stops: the answer ends before the first of them.

    >>> bytewise = lambda tokens: bytes(tokens).decode("utf-8", "replace")
    >>> text = AnswerText(bytewise, ("\n\n",))
    >>> [text.push(byte) for byte in "\u5e74\n".encode()], text.end()
    (['', '', '\u5e74', ''], '\n')
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stop for stop in stops if stop)
        self._tokens: list[int] = []
        self._begin = self._sent = 0  # text of tokens before `_sent` is out; from `_begin` on they are decoded again
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """One more token; what may be sent now."""
        self._tokens.append(token)
        return "" if self.stopped else self._release(self._fresh(final=False), final=False)

    def end(self) -> str:
        """No more tokens; what was held back."""
        return "" if self.stopped else self._release(self._fresh(final=True), final=True)

    def _fresh(self, *, final: bool) -> str:
        """Text of tokens that were not sent, decoded with those before: a decoder joins words by what precedes."""
        before = self._decode(self._tokens[self._begin : self._sent])
        whole = self._decode(self._tokens[self._begin :])
        if not final and whole.endswith(_HALF):
            return ""
        if len(whole) > len(before):
            self._begin, self._sent = self._sent, len(self._tokens)
            return whole[len(before) :]
        return ""

    def _release(self, fresh: str, *, final: bool) -> str:
        self._held += fresh
        ends = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if ends:
            self.stopped = True
            out, self._held = self._held[: min(ends)], ""
            return out
        keep = 0 if final else self._begun()
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def _begun(self) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
