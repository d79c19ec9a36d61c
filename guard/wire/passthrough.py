"""Dialect `passthrough`: bytes in, bytes out. Complete when its framing is; no usage, nothing for the checks."""

from __future__ import annotations

from guard.ports import ExchangeText, Reason, Route
from guard.wire.dialect import AnswerFacts, RequestFacts, StreamWatcher
from guard.wire.text import Headers


class Passthrough:
    """See the module."""

    checked = False

    def read_request(self, route: Route, body: bytes) -> RequestFacts:
        return RequestFacts(body)

    def upstream_body(self, facts: RequestFacts, rename_model: str) -> bytes:
        return facts.body

    def watch(self, route: Route, facts: RequestFacts) -> StreamWatcher:
        return StreamWatcher()

    def read_answer(self, route: Route, body: bytes) -> AnswerFacts:
        return AnswerFacts()

    def request_text(self, route: Route, body: bytes) -> str:
        return ""

    def question(self, route: Route, body: bytes) -> str:
        return ""

    def error_frame(self, reason: Reason) -> bytes:
        return b""  # A frame in an unknown protocol would be a forgery; the cut connection says enough.

    def extract_text(
        self, route: Route, request: bytes, response: bytes, response_headers: Headers, stream: bool
    ) -> ExchangeText:
        return ExchangeText("", "", None)
