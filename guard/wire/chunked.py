"""The chunked transfer coding, both sides: httptools with every leniency off does the reading."""

from __future__ import annotations

import httptools

# Heads are read by `wire.http1`; the parser is only told that a chunked body follows.
_REQUEST_PRIMER = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
_RESPONSE_PRIMER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class BadChunk(Exception):
    """The chunked coding is broken."""


class ChunkReader:
    """Takes a chunked body apart. Chunk extensions and trailers are dropped.

    done: the last chunk and its trailers were read. surplus: bytes came after them; whoever framed this message has
    another idea of where it ends, so the connection must not be used again.
    """

    __slots__ = ("_begun", "_body_count", "_parser", "_pieces", "done", "on_body", "surplus")

    def __init__(self, *, response: bool) -> None:
        self.done = self.surplus = self._begun = False
        self._pieces: list[bytes] = []
        self._body_count = 0
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self) if response else httptools.HttpRequestParser(self)
        self._parser.feed_data(_RESPONSE_PRIMER if response else _REQUEST_PRIMER)

    def on_message_begin(self) -> None:
        """Called by the parser: once by the primer, once more when bytes follow the message."""
        self.surplus = self._begun
        self._begun = True

    def on_message_complete(self) -> None:
        """Called by the parser after the last chunk."""
        if not self.done:
            self.done = True
            self._body_count = len(self._pieces)

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes in `data`.

        Raises:
            BadChunk: the coding is broken before its end.
        """
        try:
            self._parser.feed_data(data)
        except (
            httptools.HttpParserError,
            httptools.HttpParserUpgrade,
        ) as error:  # a CONNECT that follows is the second
            if not self.done:
                raise BadChunk(str(error)) from None
            self.surplus = True
        pieces = self._pieces
        if self.done:  # The parser goes on into what follows; that is not this body.
            del pieces[self._body_count :]
            self._body_count = 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body
